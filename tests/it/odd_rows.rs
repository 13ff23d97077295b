//! Rows that this version would never write: a newer version that runs beside it has, or somebody by hand. One such row is
//! shown as it is, or left out, and nobody else's answer fails for it.

mod holds;

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use shop::{app::App, domain::OrderId};

use crate::support::{Answer, Backend, Client, Shop, all_settled, eventually, publish, run_to_end};

/// A back end on which one order and one product are tampered with.
struct Tampered {
    backend: Backend,
    app: App,
    client: Client,
    _shop: Shop,
    _workers: Vec<Shop>,
    /// The order that is tampered with, FAILED.
    odd: String,
    /// The next order of the same user, PAID.
    other: String,
}

impl Tampered {
    async fn new(backend: &str) -> Self {
        let backend = Backend::named(backend);
        let app = backend.stock(&[(100, 1_000), (100, 1_000), (100, 1_000)]).await;
        let shop = Shop::serve(&backend);
        let workers = Shop::workers(&backend, 1);
        let client = shop.client();

        let odd = client.order(&[(1, 5_000)]).await;
        let other = client.order(&[(1, 1)]).await;
        for order in [&odd, &other] {
            client.pay(order).await;
        }
        all_settled(&app).await;
        Self {
            backend,
            app,
            client,
            _shop: shop,
            _workers: workers,
            odd,
            other,
        }
    }

    /// Runs SQL in which `:odd` is the order's id. What rules the change out on this database is lifted first.
    async fn tamper(&self, sql: &str) {
        let id = if self.backend.is_embedded() {
            format!("x'{}'", self.odd.replace('-', ""))
        } else {
            format!("'{}'", self.odd)
        };
        let constraints = if self.backend.is_embedded() {
            "PRAGMA ignore_check_constraints = ON"
        } else {
            "ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_status_is_known;
             ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_status_fits_the_rest;
             ALTER TABLE orders ALTER total_price DROP NOT NULL;
             ALTER TABLE order_items ALTER quantity DROP NOT NULL;
             ALTER TABLE products ALTER name DROP NOT NULL"
        };
        for sql in [constraints, &sql.replace(":odd", &id)] {
            self.app.db.write().execute_unprepared(sql).await.expect(sql);
        }
    }

    async fn list(&self) -> Answer {
        self.client.get("/orders?user_id=7").await
    }

    /// Asserts that the other order can be found, listed and waited for.
    async fn other_is_served(&self, what: &str) {
        let list = self.list().await;
        assert_eq!(list.status, 200, "{what}: {list:?}");
        let items = list.body["items"].as_array().expect("a list");
        assert!(
            items.iter().any(|order| order["order_id"] == *self.other),
            "{what}: {list:?}"
        );
        assert_eq!(self.client.get(&format!("/orders/{}", self.other)).await.status, 200);
        assert_eq!(self.client.get("/orders?user_id=7&limit=1").await.status, 200);

        let id = self.client.order(&[(2, 1)]).await;
        let waiting = self.client.request(reqwest::Method::POST, &format!("/orders/{id}/pay"));
        let paid = Answer::of(waiting.header("Prefer", "wait=30")).await;
        assert_eq!((paid.status, &paid.body["status"]), (200, &json!("PAID")), "{what}");
    }

    async fn events_of(&self, order: &str) -> Value {
        let events = self.client.get(&format!("/orders/{order}/events")).await;
        let text = events.body.as_str().unwrap_or_default().to_owned();
        let data = text.lines().find_map(|line| line.strip_prefix("data:"));
        serde_json::from_str(data.unwrap_or_default()).unwrap_or_default()
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_this_version_does_not_know_is_passed_on(#[values("embedded", "servers")] backend: &str) {
    let tampered = Tampered::new(backend).await;
    let odd = &tampered.odd;

    for (stored, answered) in [
        (
            r#"{"reason":"card_reversed","lines":[]}"#,
            json!({ "reason": "card_reversed", "lines": [] }),
        ),
        (
            r#"{"reason":"moved","lines":[{"product_id":1,"to":2}],"by":{"clerk":7}}"#,
            json!({ "reason": "moved", "lines": [{ "product_id": 1, "to": 2 }], "by": { "clerk": 7 } }),
        ),
        (r#"{"reason":"gone"}"#, json!({ "reason": "gone", "lines": [] })),
        (r#""gone""#, json!({ "reason": "unknown", "lines": [] })),
        ("[]", json!({ "reason": "unknown", "lines": [] })),
        // JSON with a number that is beyond all bounds.
        (
            r#"{"reason":"gone","n":1e400}"#,
            json!({ "reason": "unknown", "lines": [] }),
        ),
    ] {
        tampered
            .tamper(&format!("UPDATE orders SET failure = '{stored}' WHERE id = :odd"))
            .await;
        tampered.other_is_served(stored).await;

        let list = tampered.list().await;
        let items = list.body["items"].as_array().expect("a list");
        let listed = items.iter().find(|order| order["order_id"] == **odd).expect("listed");
        assert_eq!(listed["failure"], answered);
        assert_eq!(tampered.events_of(odd).await["failure"], answered);
        let pay = tampered.client.pay(odd).await;
        pay.problem(409, "order-failed");

        // Delivered again, as after a crash: the worker reports it and goes on.
        publish_if_there_is_a_queue(&tampered, odd).await;
        let verified = run_to_end(&tampered.backend, &["verify", "--json"], &[]);
        assert!(matches!(verified.status.code(), Some(0 | 1)), "{stored}: {verified:?}");
    }
    tampered.other_is_served("all of them").await;
}

async fn publish_if_there_is_a_queue(tampered: &Tampered, order: &str) {
    if !tampered.backend.is_embedded() {
        let id: OrderId = order.parse().expect("an id");
        publish(&tampered.app, &[id]).await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_this_version_does_not_know_is_shown_and_the_order_left_alone(
    #[values("embedded", "servers")] backend: &str,
) {
    let tampered = Tampered::new(backend).await;
    let odd = &tampered.odd;
    tampered
        .tamper("UPDATE orders SET status = 'ON_HOLD' WHERE id = :odd")
        .await;
    publish_if_there_is_a_queue(&tampered, odd).await;
    tampered.other_is_served("an unknown status").await;

    let found = tampered.client.get(&format!("/orders/{odd}")).await;
    assert_eq!((found.status, &found.body["status"]), (200, &json!("ON_HOLD")));
    assert_eq!(tampered.events_of(odd).await["status"], "ON_HOLD");
    assert_eq!(tampered.client.pay(odd).await.status, 409);
    let waiting = tampered.client.request(reqwest::Method::GET, &format!("/orders/{odd}"));
    assert_eq!(Answer::of(waiting.header("Prefer", "wait=1")).await.status, 200);

    // It is not cached for good: the newer version may go on with it.
    tampered
        .tamper("UPDATE orders SET status = 'FAILED' WHERE id = :odd")
        .await;
    eventually("the new status is shown", || async {
        let found = tampered.client.get(&format!("/orders/{odd}")).await;
        (found.body["status"] == "FAILED").then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_time_beyond_the_calendar_is_shown_as_its_end(#[values("embedded", "servers")] backend: &str) {
    let tampered = Tampered::new(backend).await;
    let odd = &tampered.odd;
    let (first, last) = if tampered.backend.is_embedded() {
        ("-9223372036854775808", "9223372036854775807")
    } else {
        ("'-infinity'", "'infinity'")
    };

    for (time, shown) in [(last, "9999-12-31T23:59:59.999999Z"), (first, "0000-01-01T00:00:00Z")] {
        for column in ["settled_at", "created_at", "accepted_at", "updated_at", "notify_after"] {
            tampered
                .tamper(&format!("UPDATE orders SET {column} = {time} WHERE id = :odd"))
                .await;
        }
        tampered
            .tamper(&format!("UPDATE products SET created_at = {time} WHERE id = 3"))
            .await;
        tampered.other_is_served(time).await;

        let list = tampered.list().await;
        let items = list.body["items"].as_array().expect("a list");
        let listed = items.iter().find(|order| order["order_id"] == **odd).expect("listed");
        assert_eq!(
            (&listed["created_at"], &listed["settled_at"]),
            (&json!(shown), &json!(shown))
        );
        let product = tampered.client.get("/products/3").await;
        assert_eq!((product.status, &product.body["created_at"]), (200, &json!(shown)));
        assert_eq!(tampered.client.get("/products?limit=3").await.status, 200);
        publish_if_there_is_a_queue(&tampered, odd).await;
    }
    tampered.other_is_served("all of them").await;
}

/// On SQLite the tables are STRICT, and `NOT NULL` cannot be lifted.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_lacks_a_value_is_left_out_and_the_others_are_served() {
    let tampered = Tampered::new("servers").await;
    let odd = &tampered.odd;

    for (lack, restore) in [
        (
            "UPDATE orders SET total_price = NULL WHERE id = :odd",
            "UPDATE orders SET total_price = 500000 WHERE id = :odd",
        ),
        (
            "UPDATE order_items SET quantity = NULL WHERE order_id = :odd",
            "UPDATE order_items SET quantity = 5000 WHERE order_id = :odd",
        ),
    ] {
        tampered.tamper(lack).await;
        publish_if_there_is_a_queue(&tampered, odd).await;
        tampered.other_is_served(lack).await;

        // Every page leads to the next, the one of the odd order too.
        let mut path = "/orders?user_id=7&limit=1".to_owned();
        let mut seen = Vec::new();
        loop {
            let page = tampered.client.get(&path).await;
            assert_eq!(page.status, 200, "{page:?}");
            let items = page.body["items"].as_array().expect("a list");
            seen.extend(items.iter().map(|order| order["order_id"].clone()));
            let Some(cursor) = page.body["next_cursor"].as_str() else {
                break;
            };
            path = format!("/orders?user_id=7&limit=1&cursor={cursor}");
        }
        assert!(
            seen.contains(&json!(tampered.other)) && !seen.contains(&json!(odd)),
            "{seen:?}"
        );
        tampered.tamper(restore).await;
    }

    tampered.tamper("UPDATE products SET name = NULL WHERE id = 2").await;
    for (path, ids) in [
        ("/products?limit=5", json!([1, 3])),
        ("/products?limit=1", json!([1])),
        ("/products?limit=1&cursor=1", json!([3])),
    ] {
        let page = tampered.client.get(path).await;
        let items = page.body["items"].as_array().expect("a list");
        let shown: Value = items.iter().map(|product| product["id"].clone()).collect();
        assert_eq!(shown, ids, "{path}");
    }
}

/// Lists of what stands beside orders and products, page by page. On SQLite the tables are STRICT, and `NOT NULL` cannot be
/// lifted.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_or_a_movement_that_lacks_a_value_is_left_out_of_its_list() {
    let tampered = Tampered::new("servers").await;
    let client = &tampered.client;
    let bought = client.order(&[(1, 3)]).await;
    client.pay(&bought).await;
    client.settled(&bought).await;
    let refunds = format!("/orders/{bought}/refunds");
    for key in ["first", "second", "third"] {
        let refund = json!({ "items": [{ "product_id": 1, "quantity": 1, "restock": true }], "reason": key });
        assert_eq!(client.post_with_key(&refunds, key, &refund).await.status, 201);
    }

    let restock = "UPDATE refund_items SET quantity = 1 WHERE quantity IS NULL";
    for (table, column, restore) in [
        (
            "refunds",
            "amount",
            "UPDATE refunds SET amount = 100 WHERE amount IS NULL",
        ),
        (
            "refunds",
            "currency",
            "UPDATE refunds SET currency = 'USD' WHERE currency IS NULL",
        ),
        ("refund_items", "quantity", restock),
    ] {
        let key = if table == "refunds" { "id" } else { "refund_id" };
        let sql = format!(
            "ALTER TABLE {table} ALTER {column} DROP NOT NULL;
             UPDATE {table} SET {column} = NULL WHERE {key} IN (SELECT id FROM refunds WHERE reason = 'second')"
        );
        tampered.tamper(&sql).await;
        assert_eq!(reasons(client, &refunds, 200).await, ["third", "first"], "{sql}");
        assert_eq!(reasons(client, &refunds, 1).await, ["third", "first"], "{sql}");
        tampered.tamper(restore).await;
    }
    assert_eq!(reasons(client, &refunds, 1).await, ["third", "second", "first"]);

    let movements = "/products/1/movements";
    tampered
        .tamper(
            "ALTER TABLE stock_movements ALTER delta DROP NOT NULL;
             UPDATE stock_movements SET delta = NULL WHERE reason IN ('second', 'third')",
        )
        .await;
    for limit in [200, 1] {
        assert_eq!(reasons(client, movements, limit).await, ["first", "initial stock"]);
    }
    tampered.other_is_served("all of them").await;
}

/// The reasons of all entries of a list, which is read in pages of `limit`.
async fn reasons(client: &Client, path: &str, limit: u64) -> Vec<String> {
    let (mut reasons, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}?limit={limit}{cursor}")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let items = page.body["items"].as_array().expect("a list");
        reasons.extend(
            items
                .iter()
                .map(|item| item["reason"].as_str().expect("a text").to_owned()),
        );
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return reasons,
        }
    }
}
