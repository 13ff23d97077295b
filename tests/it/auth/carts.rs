//! A cart that a user made is that user's alone.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{JWT, admin, user};
use crate::{
    carts::answer_to,
    support::{Answer, Backend, Client, Shop},
};

async fn send(client: &Client, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
    let mut request = client.request(method, path);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    answer_to(request).await
}

/// Whatever can be asked of a cart, by somebody.
async fn ask_everything(client: &Client, cart: &str, token: Option<&str>, user_id: i64) -> [Answer; 4] {
    let item = format!("{cart}/items/1");
    [
        send(client, Method::GET, cart, token, None).await,
        send(client, Method::PUT, &item, token, Some(json!({ "quantity": 2 }))).await,
        send(client, Method::DELETE, &item, token, None).await,
        send(
            client,
            Method::POST,
            &format!("{cart}/checkout"),
            token,
            Some(json!({ "user_id": user_id })),
        )
        .await,
    ]
}

#[rstest]
#[tokio::test]
async fn a_cart_of_another_user_is_neither_seen_nor_changed(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::start(&backend, &["serve"], &JWT);
    let client = shop.client();
    let (own, other, admin) = (user(7), user(8), admin());

    send(&client, Method::POST, "/carts", None, None)
        .await
        .problem(401, "unauthorized");
    let made = send(&client, Method::POST, "/carts", Some(&own), None).await;
    assert_eq!(made.status, 201, "{made:?}");
    let cart = made.header("location").expect("where it is");
    let body = Some(json!({ "quantity": 3 }));
    let changed = send(&client, Method::PUT, &format!("{cart}/items/1"), Some(&own), body).await;
    assert_eq!(changed.status, 200, "{changed:?}");

    for answer in ask_everything(&client, cart, None, 7).await {
        answer.problem(401, "unauthorized");
    }
    // An administrator sees every order, and no cart.
    for answer in ask_everything(&client, cart, Some(&other), 8).await {
        answer.problem(404, "not-found");
    }
    for answer in ask_everything(&client, cart, Some(&admin), 7).await {
        answer.problem(404, "not-found");
    }
    let for_another = json!({ "user_id": 8 });
    send(
        &client,
        Method::POST,
        &format!("{cart}/checkout"),
        Some(&own),
        Some(for_another),
    )
    .await
    .problem(403, "forbidden");
    let found = send(&client, Method::GET, cart, Some(&own), None).await;
    assert_eq!(found.body["items"][0]["quantity"], 3, "{found:?}");

    let checkout = async |token: &str, user_id: i64| {
        let body: Option<Value> = Some(json!({ "user_id": user_id }));
        send(&client, Method::POST, &format!("{cart}/checkout"), Some(token), body).await
    };
    let order = checkout(&own, 7).await;
    assert_eq!((order.status, &order.body["user_id"]), (201, &json!(7)));
    checkout(&other, 8).await.problem(404, "not-found");
    assert_eq!(checkout(&own, 7).await.body, order.body);
}

/// A cart that was made before users were known belongs to whoever knows its id, and still nobody comes without a token.
#[tokio::test]
async fn a_cart_that_nobody_owns_needs_a_token_where_users_are_known() {
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let (anonymous, known) = (Shop::serve(&backend), Shop::start(&backend, &["serve"], &JWT));
    let made = send(&anonymous.client(), Method::POST, "/carts", None, None).await;
    let cart = made.header("location").expect("where it is");

    let client = known.client();
    send(&client, Method::GET, cart, None, None)
        .await
        .problem(401, "unauthorized");
    assert_eq!(send(&client, Method::GET, cart, Some(&user(7)), None).await.status, 200);
}
