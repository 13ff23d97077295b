//! Carts: what they show, what bounds them, how they end, and that nothing but the order stays of them.

mod checkout;
mod outages;
mod secrets;

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use shop::app::App;

use crate::support::{Answer, Backend, Client, Shop, eventually};

fn create_request(client: &Client) -> RequestBuilder {
    client.request(Method::POST, "/carts")
}

fn put_request(client: &Client, cart: &str, product: i64, quantity: i64) -> RequestBuilder {
    let request = client.request(Method::PUT, &format!("{cart}/items/{product}"));
    request.json(&json!({ "quantity": quantity }))
}

fn remove_request(client: &Client, cart: &str, product: i64) -> RequestBuilder {
    client.request(Method::DELETE, &format!("{cart}/items/{product}"))
}

fn checkout_request(client: &Client, cart: &str, user_id: i64) -> RequestBuilder {
    let request = client.request(Method::POST, &format!("{cart}/checkout"));
    request.json(&json!({ "user_id": user_id }))
}

/// The answer once carts are available. A busy machine may not see the answer of Redis in time; a client then tries again.
pub async fn answer_to(request: RequestBuilder) -> Answer {
    eventually("carts are available", || async {
        let answer = Answer::of(request.try_clone().expect("a body in memory")).await;
        (answer.body["type"] != "urn:shop:problem:carts-unavailable").then_some(answer)
    })
    .await
}

/// A new cart's path.
async fn new_cart(client: &Client) -> String {
    let answer = answer_to(create_request(client)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.header("location").expect("where it is").to_owned()
}

pub async fn find(client: &Client, cart: &str) -> Answer {
    answer_to(client.request(Method::GET, cart)).await
}

async fn put(client: &Client, cart: &str, product: i64, quantity: i64) -> Answer {
    answer_to(put_request(client, cart, product, quantity)).await
}

async fn remove(client: &Client, cart: &str, product: i64) -> Answer {
    answer_to(remove_request(client, cart, product)).await
}

pub async fn check_out(client: &Client, cart: &str, user_id: i64) -> Answer {
    answer_to(checkout_request(client, cart, user_id)).await
}

/// A new cart with these products and quantities.
pub async fn cart_of(client: &Client, lines: &[(i64, i64)]) -> String {
    let cart = new_cart(client).await;
    for (product, quantity) in lines {
        let answer = put(client, &cart, *product, *quantity).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    cart
}

/// Product and quantity of the lines of a cart or an order.
fn lines(answer: &Answer) -> Vec<(i64, i64)> {
    let items = answer.body["items"].as_array().expect("a list").iter();
    let number = |item: &Value, field: &str| item[field].as_i64().expect("a number");
    items
        .map(|item| (number(item, "product_id"), number(item, "quantity")))
        .collect()
}

async fn execute(app: &App, statement: &str) {
    let executed = app.db.write().execute_unprepared(statement).await;
    executed.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

#[rstest]
#[tokio::test]
async fn a_cart_shows_what_its_products_cost_now_and_becomes_an_order(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 10), (250, 3)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    let made = answer_to(create_request(&client)).await;
    assert_eq!((made.status, &made.body["items"]), (201, &json!([])));
    let id = made.body["cart_id"].as_str().expect("an id");
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    let cart = format!("/carts/{id}");
    assert_eq!(made.header("location"), Some(cart.as_str()));

    // In the order in which they were put in, also when one is changed.
    put(&client, &cart, 2, 1).await;
    put(&client, &cart, 1, 1).await;
    let changed = put(&client, &cart, 2, 4).await;
    let found = find(&client, &cart).await;
    assert_eq!((changed.status, found.status), (200, 200));
    assert_eq!(found.body, changed.body);
    let expected = json!([
        { "product_id": 2, "quantity": 4, "name": "product 2", "price": 250, "available": 3 },
        { "product_id": 1, "quantity": 1, "name": "product 1", "price": 100, "available": 10 },
    ]);
    assert_eq!(found.body["items"], expected);
    assert_eq!(
        (&found.body["total_price"], &found.body["currency"]),
        (&json!(1_100), &json!("USD"))
    );
    assert_eq!(found.header("cache-control"), Some("no-store"));

    let price = json!({ "price": 300 });
    Answer::of(client.request(Method::PATCH, "/products/2").json(&price)).await;
    assert_eq!(find(&client, &cart).await.body["total_price"], 1_300);

    let order = check_out(&client, &cart, 7).await;
    assert_eq!((order.status, &order.body["status"]), (201, &json!("PENDING")));
    assert_eq!(
        (lines(&order), &order.body["total_price"]),
        (vec![(2, 4), (1, 1)], &json!(1_300))
    );
    let location = order.header("location").expect("where it is");
    assert_eq!(client.get(location).await.body, order.body);
    assert_eq!(find(&client, &cart).await.body["order_id"], order.body["order_id"]);
}

#[rstest]
#[tokio::test]
async fn a_cart_has_the_bounds_of_an_order(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(1, 1); 101]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let cart = new_cart(&client).await;

    for (product, quantity) in [(1, -1), (1, 10_001)] {
        let answer = put(&client, &cart, product, quantity).await;
        assert_eq!(answer.problem(400, "invalid-request"), ["/quantity"]);
    }
    for product in [102, 0, -1] {
        let unknown = put(&client, &cart, product, 1).await;
        assert_eq!(unknown.problem(422, "unknown-product"), ["/path/product_id"]);
    }
    let no_number = Answer::of(client.request(Method::DELETE, &format!("{cart}/items/one"))).await;
    assert_eq!(no_number.problem(400, "invalid-request"), ["/path/product_id"]);
    check_out(&client, &cart, 7).await.problem(409, "cart-empty");
    assert_eq!(lines(&find(&client, &cart).await), []);

    let full = join_all((1..=100).map(|product| put(&client, &cart, product, 10_000))).await;
    assert!(full.iter().all(|answer| answer.status == 200));
    put(&client, &cart, 101, 1).await.problem(409, "cart-full");
    assert_eq!(put(&client, &cart, 100, 5).await.status, 200, "it has a line already");

    // Out it goes either way, and what is not in it can be taken out too.
    for answer in [
        put(&client, &cart, 1, 0).await,
        remove(&client, &cart, 2).await,
        remove(&client, &cart, 2).await,
        put(&client, &cart, 102, 0).await,
    ] {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(lines(&find(&client, &cart).await).len(), 98);
    assert_eq!(put(&client, &cart, 101, 1).await.status, 200);

    let no_cart = format!("/carts/{}", "0".repeat(32));
    find(&client, &no_cart).await.problem(404, "not-found");
    put(&client, &no_cart, 1, 1).await.problem(404, "not-found");
    check_out(&client, &no_cart, 7).await.problem(404, "not-found");
    // Clients need not know what an id looks like.
    for no_id in [
        "7",
        "0",
        "0123456789abcdef0123456789ABCDEF",
        "01900000-0000-7000-8000-000000000000",
        "%00",
        "%C3%A4",
    ] {
        let no_cart = format!("/carts/{no_id}");
        find(&client, &no_cart).await.problem(404, "not-found");
        put(&client, &no_cart, 1, 1).await.problem(404, "not-found");
        remove(&client, &no_cart, 1).await.problem(404, "not-found");
        check_out(&client, &no_cart, 7).await.problem(404, "not-found");
    }
}

#[rstest]
#[tokio::test]
async fn a_product_that_has_left_the_catalogue_is_shown_as_unavailable(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (250, 3)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let cart = cart_of(&client, &[(1, 2), (2, 1)]).await;

    // No operation of the shop does that.
    let by_force = if backend.is_embedded() {
        "PRAGMA foreign_keys = OFF"
    } else {
        "SET LOCAL session_replication_role = replica"
    };
    execute(&app, &format!("{by_force}; DELETE FROM products WHERE id = 2")).await;

    let found = find(&client, &cart).await;
    assert_eq!(
        found.body["items"][1],
        json!({ "product_id": 2, "quantity": 1, "available": 0 })
    );
    assert_eq!(found.body["total_price"], 200);
    let refused = check_out(&client, &cart, 7).await;
    refused.problem(422, "unknown-product");
    assert_eq!(refused.body["errors"][0]["detail"], "there is no product 2");

    remove(&client, &cart, 2).await;
    assert_eq!(check_out(&client, &cart, 7).await.status, 201);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_changes_from_two_tabs_the_last_one_holds_and_no_other_line_is_lost(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    backend.stock(&[(1, 1); 20]).await;
    let shops = two_of(&backend);
    let cart = new_cart(&shops[0].client()).await;

    // Each product from both, at once.
    let changes = (0..40).zip(shops.iter().cycle()).map(|(number, shop)| {
        let (client, cart) = (shop.client(), cart.clone());
        async move { put(&client, &cart, 1 + number / 2, 1 + number % 2).await }
    });
    let changed = join_all(changes).await;
    assert!(changed.iter().all(|answer| answer.status == 200), "{changed:?}");

    let found = lines(&find(&shops[0].client(), &cart).await);
    let all: Vec<i64> = (1..=20).collect();
    let mut products: Vec<i64> = found.iter().map(|(product, _)| *product).collect();
    products.sort_unstable();
    assert_eq!(products, all);
    assert!(found.iter().all(|(_, quantity)| [1, 2].contains(quantity)), "{found:?}");

    put(&shops[0].client(), &cart, 1, 7).await;
    for shop in &shops {
        assert!(lines(&find(&shop.client(), &cart).await).contains(&(1, 7)));
    }
}

#[rstest]
#[tokio::test]
async fn a_cart_is_gone_some_time_after_its_last_change(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(1, 1)]).await;
    let shop = Shop::start(&backend, &["serve"], &[("SHOP_CART_TTL_SECONDS", "2")]);
    let client = shop.client();

    let made = answer_to(create_request(&client)).await;
    let cart = made.header("location").expect("where it is");
    let changed = put(&client, cart, 1, 1).await;
    assert!(changed.body["expires_at"].as_str() > made.body["expires_at"].as_str());
    assert_eq!(find(&client, cart).await.body["expires_at"], changed.body["expires_at"]);

    eventually("the cart is gone", || async {
        (find(&client, cart).await.status == 404).then_some(())
    })
    .await;
    check_out(&client, cart, 7).await.problem(404, "not-found");
    put(&client, cart, 1, 1).await.problem(404, "not-found");
}

/// Two `serve` processes that share their carts; one where carts are in the process.
fn two_of(backend: &Backend) -> Vec<Shop> {
    let count = if backend.is_embedded() { 1 } else { 2 };
    (0..count).map(|_| Shop::serve(backend)).collect()
}
