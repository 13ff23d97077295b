//! The process dies between any two steps of an order. Whatever was answered stays true.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};
use shop::entities::order::OrderStatus;

use crate::{
    history::{self, HoldEnds},
    support::{Answer, Backend, Client, EventListener, Shop, all_settled, ledger_report},
};

const ORDERS: usize = 40;
/// Too few for all orders of the first product; those of the second are set aside, and enough.
const STOCK: [(i64, i64); 2] = [(100, 30), (100, 1_000)];

/// The failpoint, and the role that reaches it.
#[rstest]
#[case("created", "serve")]
#[case("accepted", "serve")]
#[case("published", "serve")]
#[case("delivered", "work")]
#[case("settled", "work")]
#[case("invalidated", "work")]
#[case("eventspublished", "work")]
#[case("acknowledged", "work")]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_process_dies_at_a_failpoint(
    #[case] point: &str,
    #[case] role: &str,
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&STOCK).await;
    history::record(&app).await;
    let mut events = if backend.is_embedded() {
        None
    } else {
        Some(EventListener::on(&backend).await)
    };

    // Small batches, so that the process dies in the middle of the orders.
    let dies = format!("{point}:2");
    let small = ("SHOP_BATCH_MAX", "4");
    let doomed = |for_role: &str| {
        if role == for_role || backend.is_embedded() {
            vec![small, ("FAILPOINT", dies.as_str())]
        } else {
            vec![small]
        }
    };

    let serve = Shop::start(&backend, &["serve"], &doomed("serve"));
    let work = (!backend.is_embedded()).then(|| Shop::start(&backend, &["work"], &doomed("work")));
    let (first, died) = if role == "serve" || backend.is_embedded() {
        (serve.client(), &serve)
    } else {
        (serve.client(), work.as_ref().expect("it runs"))
    };

    let seen = join_all((0..ORDERS).map(|key| buy(first.clone(), key))).await;
    died.wait_for_end();

    // Restarted without failpoints; every request is sent again.
    drop((serve, work));
    let serve = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let again = join_all((0..ORDERS).map(|key| buy(serve.client(), key))).await;

    for (key, (before, after)) in seen.iter().zip(&again).enumerate() {
        let (id, status) = after.as_ref().expect("an answer");
        assert!(
            key % 2 == 1 || *status != Some(409),
            "an order with a hold has its units"
        );
        assert!(matches!(status, Some(200 | 202 | 409)), "{status:?}");
        if let Some((first, _)) = before {
            assert_eq!(first, id, "the same key is the same order");
        }
    }

    all_settled(&app).await;
    history::assert_steps(&app, HoldEnds::AsMade).await;
    let report = ledger_report(&app).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.orders, i64::try_from(ORDERS).expect("few"));
    if let Some(events) = &mut events {
        assert_events_of(events, &app, &again).await;
    }
}

/// Creates and pays an order. Answers its id and how the payment was answered, as far as there was an answer.
async fn buy(client: Client, key: usize) -> Option<(String, Option<u16>)> {
    let create = client.request(reqwest::Method::POST, "/orders");
    let create = create.header("Idempotency-Key", format!("key-{key}")).json(&order(key));
    let created = Answer::if_any(create.timeout(Duration::from_secs(20))).await.ok()?;
    let id = created.body["order_id"].as_str()?.to_owned();

    let pay = client.request(reqwest::Method::POST, &format!("/orders/{id}/pay"));
    let paid = Answer::if_any(pay.timeout(Duration::from_secs(20))).await.ok();
    Some((id, paid.map(|paid| paid.status)))
}

/// Every second order has a hold.
fn order(key: usize) -> Value {
    let has_hold = key.is_multiple_of(2);
    let mut order =
        json!({ "user_id": 1, "items": [{ "product_id": 1 + u8::from(has_hold), "quantity": 1 + key % 3 }] });
    if has_hold {
        order["hold_seconds"] = json!(600);
    }
    order
}

/// A process that kept running without its worker would be ready and settle nothing.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_panics_ends_its_process(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&STOCK).await;
    let doomed = [("FAILPOINT", "settled:1"), ("FAILPOINT_PANICS", "yes")];
    let (mut panics, serve) = if backend.is_embedded() {
        (Shop::start(&backend, &["serve"], &doomed), None)
    } else {
        (Shop::start(&backend, &["work"], &doomed), Some(Shop::serve(&backend)))
    };

    let client = serve.as_ref().unwrap_or(&panics).client();
    let id = client.order(&[(1, 1)]).await;
    assert_eq!(client.pay(&id).await.status, 202);

    panics.wait_for("panicked");
    assert_eq!(panics.exit_code(), Some(1));
    assert!(
        panics.log().contains("shop: a part of the process panicked"),
        "{}",
        panics.log()
    );

    drop(serve);
    let _serve = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);

    all_settled(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

/// Asserts that every settled order has its event, and that repeated events are equal.
async fn assert_events_of(events: &mut EventListener, app: &shop::app::App, orders: &[Option<(String, Option<u16>)>]) {
    let mut published: HashMap<String, Value> = HashMap::new();
    for (id, _) in orders.iter().flatten() {
        while !published.contains_key(id) {
            let event = events.next().await;
            if event["type"] == "stock.low" {
                continue;
            }
            let subject = event["subject"].as_str().expect("a subject").to_owned();
            let before = published.entry(subject).or_insert_with(|| event.clone());
            assert_eq!(before, &event, "repeated with another content");
        }

        let order = shop::domain::orders::find(app.db.read(), shop::domain::Caller::Admin, id.parse().expect("an id"))
            .await
            .expect("found");
        let kind = match order.row.status {
            OrderStatus::Paid => "order.paid",
            _ => "order.failed",
        };
        assert_eq!(published[id]["type"], kind);
    }
}
