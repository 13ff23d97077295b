//! Changing the stock of many products by one request: all of it or nothing.

use futures_util::stream::{self, StreamExt as _};
use rstest::rstest;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use super::{movements, stock_of};
use crate::support::{Answer, Backend, Shop, all_settled, count, ledger_report, unless_busy};

#[tokio::test]
async fn a_list_of_stock_changes_has_1_to_1000_lines_and_each_product_once() {
    let backend = Backend::embedded();
    let app = backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let line = |product: i64| json!({ "product_id": product, "delta": 1, "reason": "x" });
    let lines = |count: i64| Value::Array((1..=count).map(line).collect());

    for (body, expected) in [
        (json!([]), &[""][..]),
        (lines(1_001), &[""]),
        (json!([line(1), line(2), line(1)]), &["/2/product_id"]),
        (json!({ "product_id": 1 }), &[""]),
    ] {
        let answer = client.post("/stock-changes", &body).await;
        let pointers = answer.problem(400, "invalid-request");
        assert!(pointers.starts_with(&[expected[0].to_owned()]), "{answer:?}");
    }
    let unknown = client.post("/stock-changes", &lines(1_000)).await;
    assert_eq!(unknown.problem(422, "unknown-product").len(), 100);
    assert_eq!(unknown.body["refused"].as_array().map(Vec::len), Some(999));
    assert_eq!(stock_of(&app, 1).await, 5);
}

/// A thousand lines are promised, whatever they say; other bodies are as small as ever.
#[tokio::test]
async fn a_thousand_lines_may_say_all_that_a_line_can_say() {
    let backend = Backend::embedded();
    let app = backend.stock(&vec![(100, 10); 1_000]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let line =
        |product: i64| json!({ "product_id": product, "set_to": 7, "expected_stock": 10, "reason": "ä".repeat(200) });
    let lines = Value::Array((1..=1_000).map(line).collect());
    assert!(lines.to_string().len() > 400 * 1024);

    let made = client.post_with_key("/stock-changes", "all", &lines).await;
    assert_eq!(made.status, 200, "{made:?}");
    assert_eq!((stock_of(&app, 1).await, stock_of(&app, 1_000).await), (7, 7));
    let refused = client.post("/stock-changes", &lines).await;
    refused.problem(409, "stock-changed");
    let named = refused.body["refused"].as_array().expect("lines");
    assert!(named.len() == 1_000 && named[999]["product_id"] == 1_000);

    let larger = json!([{ "product_id": 1, "delta": 1, "reason": "x".repeat(1024 * 1024) }]);
    client
        .post("/stock-changes", &larger)
        .await
        .problem(413, "payload-too-large");
    let elsewhere = json!({ "delta": 1, "reason": "x".repeat(64 * 1024) });
    client
        .post("/products/1/stock", &elsewhere)
        .await
        .problem(413, "payload-too-large");
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test]
async fn changes_of_many_products_are_made_whole_or_every_line_that_does_not_hold_is_named(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (100, 20), (100, 30), (100, 40)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let post = |lines: Value| {
        let client = client.clone();
        async move { client.post("/stock-changes", &lines).await }
    };
    let counted = |product: i64, expected: i64| json!({ "product_id": product, "set_to": 7, "expected_stock": expected, "reason": "counted" });
    let lost = |product: i64, units: i64| json!({ "product_id": product, "delta": -units, "reason": "lost" });

    let refused = post(json!([
        counted(4, 40),
        counted(1, 11),
        lost(3, 31),
        lost(9, 1),
        lost(2, 1)
    ]))
    .await;
    assert_eq!(
        refused.problem(422, "unknown-product"),
        ["/1/expected_stock", "/2", "/3/product_id"]
    );
    assert_eq!(
        refused.body["refused"],
        json!([
            { "line": 1, "product_id": 1, "problem": "stock-changed", "stock": 10 },
            { "line": 2, "product_id": 3, "problem": "stock-out-of-range", "stock": 30 },
            { "line": 3, "product_id": 9, "problem": "unknown-product" },
        ])
    );
    let refused = post(json!([lost(3, 31), counted(4, 40), counted(1, 11)])).await;
    assert_eq!(refused.problem(409, "stock-changed"), ["/0", "/2/expected_stock"]);
    let refused = post(json!([lost(3, 31), counted(4, 40)])).await;
    assert_eq!(refused.problem(409, "stock-out-of-range"), ["/0"]);
    for (product, stock) in [(1, 10), (2, 20), (3, 30), (4, 40)] {
        assert_eq!(stock_of(&app, product).await, stock, "nothing changed");
        assert_eq!(movements(&client, product).await.len(), 1);
    }

    let made = post(json!([counted(4, 40), lost(3, 30), counted(1, 10)])).await;
    assert_eq!(made.status, 200, "{made:?}");
    let level = |product: i64, stock: i64| json!({ "product_id": product, "stock": stock, "available": stock });
    assert_eq!(made.body["items"], json!([level(4, 7), level(3, 0), level(1, 7)]));
    let movement = movements(&client, 4).await.swap_remove(0);
    assert_eq!(
        (&movement["delta"], &movement["reason"]),
        (&json!(-33), &json!("counted"))
    );
    assert!(ledger_report(&app).await.is_clean());
}

/// As many lines as a request may have, again and again, in opposite orders, while orders of the same products are settled.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_lines_are_changed_while_orders_are_settled_without_a_deadlock(
    #[values("embedded", "servers")] backend: &str,
) {
    const PRODUCTS: i64 = 1_000;
    const ORDERS: i64 = 300;
    let backend = Backend::named(backend);
    let app = backend.stock(&vec![(100, 100); 1_000]).await;
    let shops = [Shop::serve(&backend)];
    let _workers = Shop::workers(&backend, 2);
    let client = shops[0].client();

    let line = |product: i64| json!({ "product_id": product, "delta": 1, "reason": "delivery 4711" });
    let up: Vec<Value> = (1..=PRODUCTS).map(line).collect();
    let down: Vec<Value> = up.iter().rev().cloned().collect();
    let changing = stream::iter(0..8).map(|turn: i64| {
        let (client, lines) = (client.clone(), json!(if turn % 2 == 0 { &up } else { &down }));
        async move {
            let key = format!("turn-{turn}");
            unless_busy(|| client.post_with_key("/stock-changes", &key, &lines)).await
        }
    });
    let buying = stream::iter(0..ORDERS).map(|number| {
        let client = client.clone();
        async move {
            let item = |line: i64| json!({ "product_id": 1 + (number * 37 + line * 53) % PRODUCTS, "quantity": 1 });
            let order = json!({ "user_id": 7, "items": (0..20).map(item).collect::<Vec<Value>>() });
            let made = unless_busy(|| client.post("/orders", &order)).await;
            let id = made.body["order_id"].as_str().expect("an id").to_owned();
            assert!(matches!(unless_busy(|| client.pay(&id)).await.status, 200 | 202));
        }
    });
    let (changed, _) = tokio::join!(
        changing.buffer_unordered(2).collect::<Vec<Answer>>(),
        buying.buffer_unordered(8).collect::<Vec<()>>()
    );

    for answer in &changed {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["items"].as_array().map(Vec::len), Some(1_000));
    }
    all_settled(&app).await;
    assert_eq!(count(&app, "PAID").await, ORDERS);
    assert!(ledger_report(&app).await.is_clean());
    if !backend.is_embedded() {
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let read = app.db.read();
        let row = read.query_one_raw(Statement::from_string(read.get_database_backend(), deadlocks));
        let row = row.await.expect("readable").expect("one row");
        assert_eq!(row.try_get_by_index::<i64>(0).expect("a number"), 0);
    }
}
