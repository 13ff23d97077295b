//! An order from the catalogue to PAID or FAILED, through the program as users run it, on every back end.

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Client, Shop, eventually, run_to_end};

#[rstest]
#[tokio::test]
async fn an_order_is_created_paid_and_settled(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(1999, 10), (500, 3)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();

    let page = client.get("/products").await;
    assert_eq!(page.body["items"][0]["price"], 1999);
    assert_eq!(page.body["items"][0]["currency"], "USD");

    let request =
        json!({ "user_id": 1, "items": [{ "product_id": 1, "quantity": 2 }, { "product_id": 2, "quantity": 1 }] });
    let created = client.post("/orders", &request).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.body["status"], "PENDING");
    assert_eq!(created.body["total_price"], 4498);
    assert_eq!(created.body["items"][0]["unit_price"], 1999);
    let id = created.body["order_id"].as_str().expect("an id");
    assert_eq!(created.header("location"), Some(format!("/orders/{id}").as_str()));

    let paid = client.pay(id).await;
    assert_eq!((paid.status, &paid.body["order_id"]), (202, &created.body["order_id"]));
    let settled = client.settled(id).await;
    assert_eq!(
        (&settled["status"], &settled["total_price"]),
        (&json!("PAID"), &json!(4498))
    );
    assert!(settled["settled_at"].is_string() && settled.get("failure").is_none());
    assert_eq!(settled["items"], created.body["items"]);

    assert_eq!(client.pay(id).await.status, 200);

    eventually("the page shows the new stock", || async {
        let page = client.get("/products").await;
        (page.body["items"][0]["stock"] == 8 && page.body["items"][1]["stock"] == 2).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn an_order_that_is_short_of_stock_fails_as_a_whole_with_the_reason(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 10), (100, 3), (100, 0)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();

    let id = client.order(&[(1, 1), (2, 4), (3, 1)]).await;
    assert_eq!(client.pay(&id).await.status, 202);

    let settled = client.settled(&id).await;
    assert_eq!(settled["status"], "FAILED");
    let lines = json!([
        { "product_id": 2, "requested": 4, "available": 3 },
        { "product_id": 3, "requested": 1, "available": 0 },
    ]);
    assert_eq!(
        settled["failure"],
        json!({ "reason": "insufficient_stock", "lines": lines })
    );

    client.pay(&id).await.problem(409, "order-failed");
    assert_eq!(client.get("/products/1").await.body["stock"], 10);
}

#[rstest]
#[tokio::test]
async fn a_declined_card_leaves_the_order_payable(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 1)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();

    let id = client.order(&[(1, 1)]).await;
    let pay = format!("/orders/{id}/pay");
    let declined = client
        .post(&pay, &json!({ "payment_method": "pm_card_declined" }))
        .await;
    declined.problem(402, "payment-declined");
    assert_eq!(client.get(&format!("/orders/{id}")).await.body["status"], "PENDING");

    let approved = client.post(&pay, &json!({ "payment_method": "pm_card_visa" })).await;
    assert_eq!(approved.status, 202);
    assert_eq!(client.settled(&id).await["status"], "PAID");
}

#[rstest]
#[tokio::test]
async fn the_same_idempotency_key_makes_one_order(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 100)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let create = |user: i64, quantity: i64| {
        let body = json!({ "user_id": user, "items": [{ "product_id": 1, "quantity": quantity }] });
        let request = client
            .request(Method::POST, "/orders")
            .header("idempotency-key", "basket-1");
        Answer::of(request.json(&body))
    };

    let answers: Vec<Answer> = stream::iter(0..50)
        .map(|_| create(1, 2))
        .buffer_unordered(50)
        .collect()
        .await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 && answer.body == answers[0].body)
    );

    let replayed = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed") == Some("true"))
        .count();
    assert_eq!(replayed, 49);
    create(1, 3).await.problem(422, "idempotency-key-reused");

    // The replay also works when the same order would be too expensive by now.
    let expensive = client
        .request(Method::PATCH, "/products/1")
        .json(&json!({ "price": i64::MAX }));
    assert_eq!(Answer::of(expensive).await.status, 200);
    assert_eq!(create(1, 2).await.body, answers[0].body);
    create(3, 2).await.problem(422, "total-too-large");
    let cheap = client
        .request(Method::PATCH, "/products/1")
        .json(&json!({ "price": 100 }));
    assert_eq!(Answer::of(cheap).await.status, 200);
    assert_eq!(
        create(3, 2).await.header("idempotent-replayed"),
        None,
        "a rejected order keeps no key"
    );

    let other = create(2, 2).await;
    assert_eq!(other.status, 201);
    assert_ne!(other.body["order_id"], answers[0].body["order_id"]);
}

/// Mixed orders over short stock and one hot product, paid on 32 connections at once, through two of each process where
/// there are servers.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn under_concurrent_payments_no_unit_is_sold_twice(#[values("embedded", "servers")] backend: &str) {
    const HOT: i64 = 21;
    let backend = Backend::named(backend);
    let mut products = vec![(250, 12); 20];
    products.push((1000, 100));
    backend.stock(&products).await;
    let shops: Vec<Shop> = (0..if backend.is_embedded() { 1 } else { 2 })
        .map(|_| Shop::serve(&backend))
        .collect();
    let _workers = Shop::workers(&backend, 2);
    let clients: Vec<Client> = shops.iter().map(Shop::client).collect();
    let client = |number: i64| &clients[usize::try_from(number).expect("small") % clients.len()];

    let mixed = (0..200).map(mixed_lines);
    let hot = (0..150).map(|_| vec![(HOT, 1)]);
    let orders: Vec<(i64, String)> = stream::iter((0..).zip(mixed.chain(hot)))
        .map(|(number, lines)| async move { (number, client(number).order(&lines).await) })
        .buffer_unordered(32)
        .collect()
        .await;

    // Every order is paid twice, as by a double click.
    let twice = orders.iter().chain(&orders);
    let statuses: Vec<u16> = stream::iter(twice)
        .map(|(number, id)| async move { client(number + 1).pay(id).await.status })
        .buffer_unordered(32)
        .collect()
        .await;
    assert!(
        statuses.iter().all(|status| [200, 202, 409].contains(status)),
        "{statuses:?}"
    );

    let settled: Vec<Value> = stream::iter(&orders)
        .map(|(number, id)| client(*number).settled(id))
        .buffer_unordered(32)
        .collect()
        .await;
    let sold = sold_units(&settled);
    assert_eq!(sold[&HOT], 100, "of 150 orders for 100 units");
    for (product, (_, stock)) in (1..).zip(&products) {
        let left = client(product).get(&format!("/products/{product}")).await.body["stock"].as_i64();
        assert_eq!(
            left,
            Some(stock - sold.get(&product).unwrap_or(&0)),
            "product {product}"
        );
        assert!(left >= Some(0));
    }

    let verified = run_to_end(&backend, &["verify"], &[]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

/// Three lines of 20 products, in ascending order in every second order and in descending order in the others: locks that
/// are taken in the order of the lines would deadlock.
fn mixed_lines(number: i64) -> Vec<(i64, i64)> {
    let product = |step: i64| (number * step) % 20 + 1;
    let mut lines = vec![(product(1), number % 3 + 1), (product(7), 2), (product(11), 1)];
    if number % 2 == 0 {
        lines.reverse();
    }

    lines.sort_by_key(|line| line.0 * if number % 2 == 0 { 1 } else { -1 });
    lines.dedup_by_key(|line| line.0);
    lines
}

/// How many units of each product the PAID orders have.
fn sold_units(orders: &[Value]) -> HashMap<i64, i64> {
    let mut sold: HashMap<i64, i64> = HashMap::new();
    for order in orders.iter().filter(|order| order["status"] == "PAID") {
        for item in order["items"].as_array().expect("items") {
            *sold.entry(item["product_id"].as_i64().expect("an id")).or_default() +=
                item["quantity"].as_i64().expect("a number");
        }
    }
    sold
}

#[tokio::test]
async fn a_payment_accepted_before_a_kill_is_settled_after_it() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 1_000)]).await;
    let mut shop = Shop::serve(&backend);
    let client = shop.client();

    let mut orders = Vec::new();
    for _ in 0..20 {
        let id = client.order(&[(1, 1)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
        orders.push(id);
    }

    shop.kill();

    let restarted = Shop::serve(&backend);
    for id in &orders {
        assert_eq!(restarted.client().settled(id).await["status"], "PAID");
    }
    assert_eq!(restarted.client().get("/products/1").await.body["stock"], 980);
}
