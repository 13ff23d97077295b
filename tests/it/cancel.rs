//! Cancelling: until its payment is accepted an order can be cancelled, by its user or an administrator, and never after.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    servers::RabbitMq,
    support::{Answer, Backend, EventListener, Shop, eventually, ledger_report, level_of},
};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_cancelled_once_and_says_so_from_then_on(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let failure = json!({ "reason": "cancelled", "lines": [] });

    for id in [client.held_order(&[(1, 4)]).await, client.order(&[(1, 4)]).await] {
        let path = format!("/orders/{id}");
        let cancelled = client.cancel(&id).await;
        assert_eq!((cancelled.status, &cancelled.body["failure"]), (202, &failure));
        assert_eq!(cancelled.header("location"), Some(&*path));
        assert!(cancelled.body["settled_at"].is_string() && cancelled.body.get("accepted_at").is_none());
        assert_eq!(level_of(&app, 1).await, (5, 0));

        let again = client.cancel(&id).await;
        assert_eq!((again.status, &again.body), (200, &cancelled.body));
        assert_eq!(client.get(&path).await.body, cancelled.body);
        let declined = json!({ "payment_method": "pm_card_declined" });
        for paid in [
            client.pay(&id).await,
            client.post(&format!("{path}/pay"), &declined).await,
        ] {
            paid.problem(409, "order-failed");
            assert_eq!(paid.body["failure"], failure);
        }
    }

    let waits = client.order(&[(1, 1)]).await;
    let waits = client
        .request(Method::POST, &format!("/orders/{waits}/cancel"))
        .header("Prefer", "wait=5");
    let cancelled = Answer::of(waits).await;
    assert_eq!((cancelled.status, &cancelled.body["failure"]), (200, &failure));
    assert_eq!(cancelled.header("preference-applied"), Some("wait=5"));

    let metrics = shop.management().get("/metrics").await.body;
    let cancelled = "shop_orders_failed_total{reason=\"cancelled\"} 3";
    assert!(
        metrics.as_str().is_some_and(|text| text.contains(cancelled)),
        "{metrics}"
    );

    client
        .cancel("01900000-0000-7000-8000-000000000000")
        .await
        .problem(404, "not-found");
    client.cancel("1").await.problem(400, "invalid-request");
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_payment_was_accepted_is_not_cancelled(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    // On the embedded back end it may be settled by then.
    let paid = client.held_order(&[(1, 2)]).await;
    assert_eq!(client.pay(&paid).await.status, 202);
    let refused = client.cancel(&paid).await;
    if !backend.is_embedded() {
        refused.problem(409, "payment-accepted");
    }
    assert_eq!(refused.status, 409);

    let _workers = Shop::workers(&backend, 1);
    assert_eq!(client.settled(&paid).await["status"], "PAID");
    client.cancel(&paid).await.problem(409, "order-paid");

    let short = client.order(&[(1, 4)]).await;
    client.pay(&short).await;
    let failed = client.settled(&short).await;
    let refused = client.cancel(&short).await;
    refused.problem(409, "order-failed");
    assert_eq!(refused.body["failure"], failed["failure"]);
    assert_eq!(level_of(&app, 1).await, (3, 0));
    assert!(ledger_report(&app).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_cancelled_while_the_broker_is_away_and_its_event_follows() {
    let rabbitmq = RabbitMq::start();
    let mut backend = Backend::servers();
    backend.queue_url = rabbitmq.url();
    let app = backend.stock(&[(100, 5)]).await;
    EventListener::declare(&backend).await;
    let (shop, other) = (Shop::serve(&backend), Shop::serve(&backend));
    let _worker = Shop::work(&backend);
    let client = shop.client();
    rabbitmq.stop();

    let id = client.held_order(&[(1, 5)]).await;
    // Whoever follows it at another process finds out without an event. Otherwise the stream would go on for minutes.
    let follows = other.client().request(Method::GET, &format!("/orders/{id}/events"));
    let following = tokio::spawn(Answer::of(follows));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.cancel(&id).await.status, 202);
    let followed = following.await.expect("answered").body;
    assert!(
        followed.as_str().is_some_and(|stream| stream.contains("\"cancelled\"")),
        "{followed}"
    );
    assert_eq!(level_of(&app, 1).await, (5, 0));
    rabbitmq.start_again();

    eventually("the event is published", || async {
        let left = shop::domain::outbox::len(app.db.read()).await.expect("counted");
        (left == 0).then_some(())
    })
    .await;
    let published = EventListener::on(&backend).await.all().await;
    assert!(!published.is_empty());
    for event in &published {
        assert_eq!(
            (&event["type"], &event["subject"]),
            (&json!("order.failed"), &json!(id))
        );
        assert_eq!(event["id"], format!("{id}/settled"));
        assert_eq!(event["data"]["failure"]["reason"], "cancelled");
    }
}

/// A settle request for an order that was cancelled, such as one that was sent by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_is_not_settled_whatever_a_message_says() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 5)]).await;
    let mut events = EventListener::on(&backend).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let id = client.held_order(&[(1, 2)]).await;
    client.cancel(&id).await;
    crate::support::publish(&app, &[id.parse().expect("an id")]).await;
    let _worker = Shop::work(&backend);

    // From the outbox, and from the message: the same event.
    let seen: Vec<Value> = vec![events.next().await, events.next().await];
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0]["data"]["failure"]["reason"], "cancelled");
    eventually("the message has been taken", || async {
        (app.queue.depth().await.ok()? == 0).then_some(())
    })
    .await;
    assert_eq!(client.get(&format!("/orders/{id}")).await.body["status"], "FAILED");
    assert_eq!(level_of(&app, 1).await, (5, 0));
    assert_eq!(app.queue.dead_letters(10).await.expect("listed").total, 0);
}

/// Whoever sends more believes that it is heeded.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_without_a_body_takes_an_empty_one_and_refuses_what_it_would_not_heed() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let id = client.held_order(&[(1, 1)]).await;
    let cancel = format!("/orders/{id}/cancel");
    let send = async |path: &str, kind: &str, body: &str| {
        let request = client.request(Method::POST, path).header("Content-Type", kind);
        Answer::of(request.body(body.to_owned())).await
    };

    for path in [&*cancel, "/carts"] {
        for (body, pointer) in [
            (r#"{"reason":"too late"}"#, "/reason"),
            (r#"{"reason":1,"reason":2}"#, "/reason"),
            ("[]", ""),
            ("null", ""),
            ("{", ""),
        ] {
            let refused = send(path, "application/json", body).await;
            let pointers = refused.problem(400, "invalid-request");
            assert_eq!(pointers[0], pointer, "{path} {body}");
        }
        send(path, "text/plain", "{}")
            .await
            .problem(415, "unsupported-media-type");
        let large = " ".repeat(64 * 1024 + 1);
        send(path, "application/json", &large)
            .await
            .problem(413, "payload-too-large");
    }
    assert_eq!(client.get(&format!("/orders/{id}")).await.body["status"], "PENDING");

    assert_eq!(send("/carts", "application/json", "{}").await.status, 201);
    assert_eq!(
        send("/carts", "application/x-www-form-urlencoded", "").await.status,
        201
    );
    assert_eq!(send(&cancel, "application/json", " {} ").await.status, 202);
    assert_eq!(send(&cancel, "application/json", "").await.status, 200);
}
