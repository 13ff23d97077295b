//! Holds: units that are set aside until a payment is accepted. What is held is nobody else's, and free again after its time.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, future::join_all, stream};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shop::domain::OrderId;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{
    Answer, Backend, Client, EventListener, Shop, a_minute_ago, all_settled, count, end_holds, eventually,
    ledger_report, level_of,
};

fn id_of(answer: &Answer) -> OrderId {
    let id = answer.body["order_id"].as_str().expect("an id");
    id.parse().expect("a UUID")
}

fn instant(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().expect("an instant"), &Rfc3339).expect("RFC 3339")
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn units_are_set_aside_or_refused_with_the_lines_that_are_short(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5), (100, 3)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    let held = client.hold(&[(1, 2), (2, 3)], 600).await;
    assert_eq!((held.status, &held.body["status"]), (201, &json!("PENDING")));
    let lasts = instant(&held.body["expires_at"]) - instant(&held.body["created_at"]);
    assert_eq!(lasts, Duration::seconds(600));
    let product = client.get("/products/1").await.body;
    assert_eq!((&product["stock"], &product["available"]), (&json!(5), &json!(3)));
    eventually("the page shows what is available", || async {
        let page = client.get("/products").await.body;
        (page["items"][0]["available"] == 3 && page["items"][1]["available"] == 0).then_some(())
    })
    .await;

    let refused = client.hold(&[(1, 4), (2, 1)], 600).await;
    refused.problem(409, "insufficient-stock");
    let short = |product: i64, requested: i64, available: i64| json!({ "product_id": product, "requested": requested, "available": available });
    assert_eq!(refused.body["lines"], json!([short(1, 4, 3), short(2, 1, 0)]));
    assert_eq!(ledger_report(&app).await.orders, 1, "nothing of it is stored");
    assert_eq!((level_of(&app, 1).await, level_of(&app, 2).await), ((5, 2), (3, 3)));

    let write_off = json!({ "delta": -4, "reason": "breakage" });
    let refused = client.post("/products/1/stock", &write_off).await;
    refused.problem(409, "stock-out-of-range");
    let write_off = json!({ "delta": -3, "reason": "breakage" });
    assert_eq!(client.post("/products/1/stock", &write_off).await.status, 200);

    for seconds in [0, 29, 3_601] {
        let refused = client.hold(&[(1, 1)], seconds).await;
        assert_eq!(refused.problem(400, "invalid-request"), ["/hold_seconds"]);
    }
    client.hold(&[(99, 1)], 600).await.problem(422, "unknown-product");
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_held_order_is_paid_from_its_hold_and_others_from_what_is_available(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();

    let held = client.held_order(&[(1, 3)]).await;
    let without = client.order(&[(1, 3)]).await;
    assert_eq!(
        client.get(&format!("/orders/{without}")).await.body["expires_at"],
        Value::Null
    );
    client.pay(&without).await;
    let failed = client.settled(&without).await;
    let lines = json!([{ "product_id": 1, "requested": 3, "available": 2 }]);
    assert_eq!(
        failed["failure"],
        json!({ "reason": "insufficient_stock", "lines": lines }),
        "what others hold is not for sale"
    );

    let rest = client.order(&[(1, 2)]).await;
    client.pay(&rest).await;
    assert_eq!(client.settled(&rest).await["status"], "PAID");
    assert_eq!(level_of(&app, 1).await, (3, 3));
    assert_eq!(client.pay(&held).await.status, 202);
    let paid = client.settled(&held).await;
    assert!(paid["status"] == "PAID" && paid["expires_at"].is_string(), "{paid}");
    assert_eq!(level_of(&app, 1).await, (0, 0));
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_holds_once_and_another_hold_is_another_request(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shops: Vec<Shop> = (0..if backend.is_embedded() { 1 } else { 2 })
        .map(|_| Shop::serve(&backend))
        .collect();
    let clients: Vec<Client> = shops.iter().map(Shop::client).collect();
    let ask = |number: usize, key: &'static str, quantity: i64, seconds: Option<u32>| {
        let mut order = json!({ "user_id": 1, "items": [{ "product_id": 1, "quantity": quantity }] });
        if let Some(seconds) = seconds {
            order["hold_seconds"] = json!(seconds);
        }
        let request = clients[number % clients.len()].request(Method::POST, "/orders");
        Answer::of(request.header("Idempotency-Key", key).json(&order))
    };

    // Six of ten: only a repeated request is answered 201.
    let answers = join_all((0..50).map(|number| ask(number, "basket", 6, Some(60)))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 && answer.body == answers[0].body),
        "{answers:?}"
    );
    assert_eq!(level_of(&app, 1).await, (10, 6));
    for hold in [None, Some(61)] {
        ask(0, "basket", 6, hold).await.problem(422, "idempotency-key-reused");
    }
    ask(0, "plain", 1, None).await;
    ask(0, "plain", 1, Some(60))
        .await
        .problem(422, "idempotency-key-reused");

    // A refused hold keeps no key.
    ask(0, "later", 5, Some(60)).await.problem(409, "insufficient-stock");
    let restock = json!({ "delta": 1, "reason": "delivery" });
    assert_eq!(clients[0].post("/products/1/stock", &restock).await.status, 200);
    let made = ask(0, "later", 5, Some(60)).await;
    assert_eq!((made.status, made.header("idempotent-replayed")), (201, None));

    assert_eq!(level_of(&app, 1).await, (11, 11));
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_ends_unpaid_expires_and_whoever_waits_is_told(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5)]).await;
    let events = if backend.is_embedded() {
        None
    } else {
        Some(EventListener::on(&backend).await)
    };
    let shop = Shop::serve(&backend);
    let workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let held = client.hold(&[(1, 4)], 30).await;
    let id = id_of(&held);

    let waiting = tokio::spawn({
        let client = client.clone();
        async move {
            let path = format!("/orders/{id}");
            let waits = client.request(Method::GET, &path).header("Prefer", "wait=30");
            let follows = client.request(Method::GET, &format!("{path}/events"));
            tokio::join!(Answer::of(waits), Answer::of(follows))
        }
    });
    end_holds(&app, a_minute_ago(), &[id]).await;

    let (waited, followed) = waiting.await.expect("answered");
    let failure = json!({ "reason": "expired", "lines": [] });
    assert_eq!(
        (&waited.body["status"], &waited.body["failure"]),
        (&json!("FAILED"), &failure)
    );
    assert!(
        followed
            .body
            .as_str()
            .is_some_and(|stream| stream.contains("\"expired\"")),
        "{followed:?}"
    );
    assert_eq!(level_of(&app, 1).await, (5, 0));
    let late = client.pay(&id.to_string()).await;
    late.problem(409, "order-failed");
    assert_eq!(late.body["failure"], failure);
    assert!(
        late.body["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("expired"))
    );

    let metrics = workers.first().unwrap_or(&shop).management().get("/metrics").await.body;
    for expected in [
        "shop_orders_failed_total{reason=\"expired\"} 1",
        "shop_hold_expiry_lag_seconds_count 1",
    ] {
        assert!(
            metrics.as_str().is_some_and(|text| text.contains(expected)),
            "{metrics}"
        );
    }

    if let Some(events) = events {
        assert_expired(&events.all().await, id);
    }
    assert!(ledger_report(&app).await.is_clean());
}

/// Asserts that there are events, and that each says that this order has expired.
fn assert_expired(events: &[Value], id: OrderId) {
    assert!(!events.is_empty());
    for event in events {
        assert_eq!(
            (&event["type"], &event["subject"]),
            (&json!("order.failed"), &json!(id))
        );
        assert_eq!(
            (&event["data"]["failure"], &event["data"]["order_id"]),
            (&json!({ "reason": "expired", "lines": [] }), &json!(id))
        );
    }
}

/// There is no worker yet, so nobody but the payment itself can expire the order.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_late_expires_the_order_itself() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 9)]).await;
    EventListener::declare(&backend).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let hold = async |quantity: i64| id_of(&client.hold(&[(1, quantity)], 30).await);
    let (late, in_time, cancelled) = (hold(4).await, hold(3).await, hold(2).await);

    assert_eq!(client.pay(&in_time.to_string()).await.status, 202);
    end_holds(&app, a_minute_ago(), &[late, in_time, cancelled]).await;
    let declined = json!({ "payment_method": "pm_card_declined" });
    let answers = [
        client.post(&format!("/orders/{late}/pay"), &declined).await,
        client.pay(&late.to_string()).await,
    ];
    for answer in &answers {
        answer.problem(409, "order-failed");
        assert_eq!(answer.body["failure"]["reason"], "expired");
    }
    // What was accepted in time is not expired, and what was not can still be cancelled.
    assert_eq!(client.pay(&in_time.to_string()).await.status, 202);
    assert_eq!(client.cancel(&cancelled.to_string()).await.status, 202);
    assert_eq!(level_of(&app, 1).await, (9, 3));

    let _worker = Shop::work(&backend);
    assert_eq!(client.settled(&in_time.to_string()).await["status"], "PAID");
    let published = EventListener::on(&backend).await.all().await;
    let facts: BTreeSet<(&str, &str, Option<&str>)> = published
        .iter()
        .map(|event| {
            let reason = event["data"]["failure"]["reason"].as_str();
            (
                event["subject"].as_str().expect("text"),
                event["type"].as_str().expect("text"),
                reason,
            )
        })
        .filter(|(_, kind, _)| *kind != "stock.low")
        .collect();
    let (late, in_time, cancelled) = (late.to_string(), in_time.to_string(), cancelled.to_string());
    let expected = [
        (&*late, "order.failed", Some("expired")),
        (&*in_time, "order.paid", None),
        (&*cancelled, "order.failed", Some("cancelled")),
    ];
    assert_eq!(facts, BTreeSet::from(expected));
    assert!(ledger_report(&app).await.is_clean());
}

/// A thousand customers want one of a hundred units, and half of those who got one pay. Then everything is killed.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_holds_on_a_hundred_units_a_hundred_succeed(#[values("embedded", "servers")] backend: &str) {
    const HOLDS: usize = 1_000;
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 100), (100, 100_000)]).await;
    let processes = if backend.is_embedded() { 1 } else { 2 };
    let shops: Vec<Shop> = (0..processes).map(|_| Shop::serve(&backend)).collect();
    let workers = Shop::workers(&backend, 2);
    let clients: Vec<Client> = shops.iter().map(Shop::client).collect();

    let answers: Vec<Answer> = stream::iter(0..HOLDS)
        .map(|number| {
            let client = clients[number % processes].clone();
            // Both products, in either order.
            let mut lines = [(1, 1), (2, 1)];
            lines.rotate_left(number % 2);
            async move { client.hold(&lines, 3_600).await }
        })
        .buffer_unordered(200)
        .collect()
        .await;

    let (made, refused): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (100, HOLDS - 100));
    for answer in refused {
        answer.problem(409, "insufficient-stock");
        assert_eq!(
            answer.body["lines"],
            json!([{ "product_id": 1, "requested": 1, "available": 0 }])
        );
    }
    assert_eq!(
        ledger_report(&app).await.orders,
        100,
        "nothing is stored of those that were refused"
    );
    assert_eq!(
        (level_of(&app, 1).await, level_of(&app, 2).await),
        ((100, 100), (100_000, 100))
    );

    let ids: Vec<String> = made.iter().map(|answer| id_of(answer).to_string()).collect();
    let paid = join_all((0..50).map(|number| clients[number % processes].pay(&ids[number]))).await;
    assert!(paid.iter().all(|answer| matches!(answer.status, 200 | 202)), "{paid:?}");

    // Killed at any point of settling. The holds end while nobody is there.
    drop((shops, workers));
    let unpaid: Vec<OrderId> = ids[50..].iter().map(|id| id.parse().expect("an id")).collect();
    end_holds(&app, a_minute_ago(), &unpaid).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    all_settled(&app).await;
    eventually("the unpaid units are free again", || async {
        (level_of(&app, 1).await == (50, 0)).then_some(())
    })
    .await;
    assert_eq!((count(&app, "PAID").await, count(&app, "FAILED").await), (50, 50));
    assert_eq!(level_of(&app, 2).await, (99_950, 0));

    let client = &shop.client();
    let again = join_all((0..60).map(|_| async move { client.hold(&[(1, 1)], 30).await })).await;
    assert_eq!(again.iter().filter(|answer| answer.status == 201).count(), 50);
    let report = ledger_report(&app).await;
    assert!(report.is_clean(), "{report:?}");
}
