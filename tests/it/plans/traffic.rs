//! What customers, administrators and the background of a shop do: every path at least once, with many at once and alone.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use shop::{domain::orders, entities::Timestamp};

use crate::{
    carts,
    servers::Postgres,
    support::{Answer, Backend, Client, eventually},
};

const PRODUCTS: i64 = 300;
pub const CUSTOMERS: i64 = 40;

/// `count` orders that are PAID, with two lines each, beside a catalogue.
pub fn fill(count: i64) -> String {
    format!(
        "INSERT INTO products (id, name, price, stock) \
         SELECT n, 'product ' || n, 100, 1000000 FROM generate_series(1, {PRODUCTS}) n ON CONFLICT DO NOTHING; \
         SELECT setval('products_id_seq', {PRODUCTS}); \
         WITH new AS (INSERT INTO orders (id, user_id, status, total_price, currency, accepted_at, settled_at) \
           SELECT gen_random_uuid(), n % 1000 + 1, 'PAID', 200, 'USD', now(), now() FROM generate_series(1, {count}) n \
           RETURNING id) \
         INSERT INTO order_items (order_id, product_id, quantity, unit_price) \
         SELECT id, 1 + (row_number() OVER ()) % {PRODUCTS}, 1, 100 FROM new, generate_series(1, 2)"
    )
}

/// Orders of two lines, all at once, and each of them a second time under its key. Their ids.
pub async fn place_orders(client: &Client) -> Vec<String> {
    let place = |customer: i64| async move {
        let body = json!({ "user_id": customer, "items": [
            { "product_id": customer, "quantity": 1 }, { "product_id": customer + 1, "quantity": 1 },
        ] });
        let request = client.request(Method::POST, "/orders").json(&body);
        let answer = Answer::of(request.header("Idempotency-Key", format!("key {customer}").replace(' ', "-"))).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body["order_id"].as_str().expect("an id").to_owned()
    };

    let ids = join_all((1..=CUSTOMERS).map(place)).await;
    let again = join_all((1..=CUSTOMERS).map(place)).await;
    assert_eq!(ids, again);
    ids
}

/// Orders with a hold: paid, cancelled, expired, paid too late, and refused. Orders without one that are cancelled.
async fn hold_and_let_go(backend: &Backend, client: &Client, postgres: &Postgres) {
    let held: Vec<String> = join_all((1..=CUSTOMERS).map(|_| client.held_order(&[(5, 1), (6, 2)]))).await;
    assert_eq!(client.hold(&[(5, 9_999), (6, 9_999), (7, 1)], 60).await.status, 201);
    postgres.psql(&backend.database_url, "UPDATE products SET stock = held WHERE id = 7");
    assert_eq!(client.hold(&[(7, 1)], 60).await.status, 409);

    let (paid, rest) = held.split_at(held.len() / 4);
    let (cancelled, rest) = rest.split_at(rest.len() / 2);
    assert!(
        join_all(paid.iter().map(|id| client.pay(id)))
            .await
            .iter()
            .all(|answer| answer.status == 202)
    );
    let answers = join_all(cancelled.iter().map(|id| client.cancel(id))).await;
    assert!(answers.iter().all(|answer| answer.status == 202));
    for id in rest {
        let ends = format!("UPDATE orders SET expires_at = now() - interval '1 minute' WHERE id = '{id}'");
        postgres.psql(&backend.database_url, &ends);
        // Sometimes the payment expires it, sometimes the worker.
        assert_eq!(client.pay(id).await.status, 409);
    }
    for id in paid {
        assert_eq!(client.settled(id).await["status"], "PAID");
    }
    let plain = client.order(&[(8, 1)]).await;
    assert_eq!(client.cancel(&plain).await.status, 202);
    eventually("the outbox is empty", || async {
        (postgres.psql(&backend.database_url, "SELECT count(*) FROM outbox") == "0").then_some(())
    })
    .await;
}

/// Every path that customers and the background take, with many at once and alone.
pub async fn go_through_everything(backend: &Backend, client: &Client, postgres: &Postgres) {
    let ids = place_orders(client).await;
    let paid = join_all(ids.iter().map(|id| client.pay(id))).await;
    assert!(paid.iter().all(|answer| matches!(answer.status, 200 | 202)), "{paid:?}");
    for id in &ids {
        client.settled(id).await;
    }

    hold_and_let_go(backend, client, postgres).await;

    // One that is short, one that is paid twice, one that is declined, one alone with `Prefer`.
    let short = client.order(&[(1, 10_000), (2, 10_000)]).await;
    postgres.psql(&backend.database_url, "UPDATE products SET stock = 5 WHERE id = 1");
    client.pay(&short).await;
    assert_eq!(client.settled(&short).await["status"], "FAILED");
    let alone = client.order(&[(3, 1)]).await;
    let declined = client.request(Method::POST, &format!("/orders/{alone}/pay"));
    let declined = Answer::of(declined.json(&json!({ "payment_method": "pm_card_declined" }))).await;
    assert_eq!(declined.status, 402);
    let waiting = client
        .request(Method::POST, &format!("/orders/{alone}/pay"))
        .header("Prefer", "wait=20");
    assert_eq!(Answer::of(waiting).await.status, 200);

    for path in [
        "/orders?limit=50",
        "/orders?user_id=7",
        "/orders?status=PENDING",
        "/orders?status=FAILED",
        "/orders?user_id=7&status=PAID&limit=3",
        &format!("/orders?limit=200&cursor={alone}"),
        "/products?limit=50",
        "/products?limit=50&cursor=100",
        "/products?q=PRODUCT%2012",
        "/products/7",
    ] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    let restock = json!({ "delta": 5, "reason": "delivery" });
    assert_eq!(client.post("/products/5/stock", &restock).await.status, 200);

    // A cart that becomes an order, and one that is not there.
    let cart = carts::cart_of(client, &[(1, 1), (2, 1)]).await;
    assert_eq!(carts::check_out(client, &cart, 7).await.status, 201);
    let no_cart = format!("/carts/{}", "0".repeat(32));
    assert_eq!(carts::check_out(client, &no_cart, 7).await.status, 404);

    // An accepted order whose settle request was lost: the sweeper finds it.
    let lost = client.order(&[(4, 1)]).await;
    postgres.psql(
        &backend.database_url,
        &format!("UPDATE orders SET accepted_at = now(), notify_after = now() WHERE id = '{lost}'"),
    );
    eventually("the lost order is settled", || async {
        let order = client.get(&format!("/orders/{lost}")).await;
        (order.body["status"] == "PAID").then_some(())
    })
    .await;

    // What is done when settle requests cannot be published, and when a queue inside the process starts.
    let app = backend.app().await;
    let (now, ids) = (Timestamp::now(), [lost.parse().expect("an id")]);
    let released = orders::release_due(app.db.write(), now, &ids).await;
    released.expect("answered");
    orders::make_all_due(app.db.write(), now).await.expect("answered");
}
