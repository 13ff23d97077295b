//! Users see and change their own orders only; administrators change the catalogue.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use super::{JWT, admin, get, hs256, in_seconds, send, user};
use crate::support::{Answer, Backend, Client, Shop};

fn order_of(user_id: i64) -> Value {
    json!({ "user_id": user_id, "items": [{ "product_id": 1, "quantity": 1 }] })
}

#[rstest]
#[tokio::test]
async fn an_order_of_another_user_is_neither_seen_nor_changed(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::start(&backend, &["serve"], &JWT);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let (own, other, admin) = (user(7), user(8), admin());
    let create = |token: String, user_id: i64| {
        let request = client
            .request(Method::POST, "/orders")
            .header("Idempotency-Key", "k1")
            .bearer_auth(token);
        Answer::of(request.json(&order_of(user_id)))
    };

    let created = create(own.clone(), 7).await;
    assert_eq!(created.status, 201);
    let id = created.body["order_id"].as_str().expect("an id").to_owned();
    create(other.clone(), 7).await.problem(403, "forbidden");
    // The keys of different users are different keys.
    let theirs = create(other.clone(), 8).await;
    assert_eq!((theirs.status, theirs.header("idempotent-replayed")), (201, None));
    assert_ne!(theirs.body["order_id"], created.body["order_id"]);

    let unknown = "01900000-0000-7000-8000-000000000000";
    assert_looks_unknown(&client, &other, &id, unknown).await;
    let path = format!("/orders/{id}");
    let pending = get(&client, &path, &own).await;
    assert_eq!(
        (&pending.body["status"], &pending.body["accepted_at"]),
        (&json!("PENDING"), &Value::Null)
    );

    let pay = client
        .request(Method::POST, &format!("{path}/pay"))
        .header("Prefer", "wait=20")
        .bearer_auth(&own);
    assert_eq!(Answer::of(pay).await.body["status"], "PAID");
    // From this read on the order is in the cache as well.
    assert_eq!(get(&client, &path, &own).await.status, 200);
    assert_looks_unknown(&client, &other, &id, unknown).await;

    let ids = |answer: &Answer| -> Vec<Value> {
        let items = answer.body["items"].as_array().expect("a list");
        items.iter().map(|order| order["order_id"].clone()).collect()
    };
    assert_eq!(
        ids(&get(&client, "/orders", &own).await),
        [created.body["order_id"].clone()]
    );
    assert_eq!(
        ids(&get(&client, "/orders?user_id=8", &other).await),
        [theirs.body["order_id"].clone()]
    );
    get(&client, "/orders?user_id=7", &other)
        .await
        .problem(403, "forbidden");
    assert_eq!(ids(&get(&client, "/orders", &admin).await).len(), 2);
    assert_eq!(get(&client, &format!("/orders/{id}"), &admin).await.status, 200);
}

/// Asserts that for this token the order `id` is answered as one that does not exist.
async fn assert_looks_unknown(client: &Client, token: &str, id: &str, unknown: &str) {
    for (method, path) in [
        (Method::GET, ""),
        (Method::POST, "/pay"),
        (Method::POST, "/cancel"),
        (Method::GET, "/events"),
    ] {
        let mut bodies = Vec::new();
        for id in [id, unknown] {
            let path = format!("/orders/{id}{path}");
            let answer = send(client, method.clone(), &path, Some(token), None).await;
            answer.problem(404, "not-found");
            bodies.push(answer.body.to_string().replace(id, "ID"));
        }
        assert_eq!(bodies[0], bodies[1], "the answers differ");
    }

    let declined = json!({ "payment_method": "pm_card_declined" });
    let path = format!("/orders/{id}/pay");
    send(client, Method::POST, &path, Some(token), Some(declined))
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn an_order_is_cancelled_by_its_user_or_an_administrator() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::start(&backend, &["serve"], &JWT);
    let client = shop.client();

    for (canceller, other) in [(user(7), user(8)), (admin(), user(8))] {
        let created = send(&client, Method::POST, "/orders", Some(&user(7)), Some(order_of(7))).await;
        let path = format!("/orders/{}/cancel", created.body["order_id"].as_str().expect("an id"));
        let cancel = async |token: Option<&str>| send(&client, Method::POST, &path, token, None).await;

        cancel(None).await.problem(401, "unauthorized");
        cancel(Some(&other)).await.problem(404, "not-found");
        assert_eq!(cancel(Some(&canceller)).await.status, 202);
        cancel(Some(&other)).await.problem(404, "not-found");
        assert_eq!(cancel(Some(&user(7))).await.status, 200);
    }
}

#[tokio::test]
async fn only_an_administrator_changes_the_catalogue() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::start(
        &backend,
        &["serve"],
        &[&JWT[..], &[("SHOP_CATALOGUE_PUBLIC", "true")]].concat(),
    );
    let client = shop.client();

    let changes = [
        (
            Method::POST,
            "/products",
            json!({ "name": "Mug", "price": 1, "stock": 1 }),
            201,
        ),
        (Method::PATCH, "/products/1", json!({ "price": 200 }), 200),
        (
            Method::POST,
            "/products/1/stock",
            json!({ "delta": 5, "reason": "delivery" }),
            200,
        ),
    ];
    for (method, path, body, done) in changes {
        let send = |token: Option<String>| {
            let (client, method, body) = (&client, method.clone(), body.clone());
            async move { send(client, method, path, token.as_deref(), Some(body)).await }
        };

        send(None).await.problem(401, "unauthorized");
        send(Some(user(7))).await.problem(403, "forbidden");
        // Scopes that only contain the name.
        let almost = hs256(&json!({ "sub": "7", "exp": in_seconds(600), "scope": "shop:admins xshop:admin" }));
        send(Some(almost)).await.problem(403, "forbidden");
        // Nobody else learns what is wrong with the rest of the request.
        let wrong = json!({ "colour": "red" });
        let answer = super::send(&client, method.clone(), path, Some(&user(7)), Some(wrong)).await;
        answer.problem(403, "forbidden");
        assert_eq!(send(Some(admin())).await.status, done);
    }

    // A public catalogue is read without a token, but not with an invalid one.
    let product = client.get("/products/1").await;
    assert_eq!(
        (&product.body["price"], &product.body["stock"]),
        (&json!(200), &json!(15))
    );
    assert_eq!(client.get("/products").await.status, 200);
    get(&client, "/products", "junk").await.problem(401, "unauthorized");
    client.get("/orders").await.problem(401, "unauthorized");
}
