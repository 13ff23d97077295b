//! Both queues, and what RabbitMQ may do: deliver junk, redeliver, be away, lose a queue.

use std::collections::HashSet;

use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions, QueueDeleteOptions},
    types::FieldTable,
};
use rstest::rstest;
use serde_json::Value;
use shop::{
    domain::orders,
    entities::Timestamp,
    queue::{Queue, SettleRequest},
    tasks::{
        poll::RoundError,
        sweeper::{self, SweepOutcome},
    },
    telemetry::traces::new_traceparent,
};
use uuid::Uuid;

use crate::{
    servers::RabbitMq,
    support::{Backend, EventListener, Shop, accepted, channel, eventually},
};

fn request() -> SettleRequest {
    SettleRequest {
        order_id: Uuid::now_v7(),
        traceparent: new_traceparent(),
    }
}

fn open(backend: &Backend) -> Queue {
    Queue::new(&backend.queue_url, &backend.prefix, 100).expect("a known URL")
}

#[rstest]
#[tokio::test]
async fn settle_requests_arrive_in_order_and_never_more_at_once_than_asked_for(
    #[values("embedded", "servers")] backend: &str,
) {
    let queue = open(&Backend::named(backend));
    let requests: Vec<SettleRequest> = (0..25).map(|_| request()).collect();
    queue.publish_settle_requests(&requests).await.expect("published");

    let mut arrived = Vec::new();
    while arrived.len() < requests.len() {
        let deliveries = queue.next(10).await.expect("delivers");
        assert!((1..=10).contains(&deliveries.messages.len()));
        arrived.extend(
            deliveries
                .messages
                .iter()
                .map(|delivery| delivery.order_id.clone().expect("readable")),
        );
        queue.acknowledge(&deliveries).await.expect("acknowledges");
    }

    assert_eq!(
        arrived,
        requests.iter().map(|request| request.order_id).collect::<Vec<_>>()
    );
    assert_eq!(queue.depth().await.expect("answered"), 0);
}

#[tokio::test]
async fn an_unacknowledged_message_is_redelivered() {
    let backend = Backend::servers();
    let (queue, request) = (open(&backend), request());
    queue
        .publish_settle_requests(std::slice::from_ref(&request))
        .await
        .expect("published");
    let first = queue.next(10).await.expect("delivers");
    assert!(!first.messages[0].redelivered);
    queue.close().await;
    let again = open(&backend).next(10).await.expect("delivers");
    assert_eq!(again.messages[0].order_id, Ok(request.order_id));
    assert!(again.messages[0].redelivered);
}

#[tokio::test]
async fn junk_is_dead_lettered_with_a_reason_and_an_unpaid_order_is_left_alone() {
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 2);
    let client = shop.client();
    let unpaid = client.order(&[(1, 1)]).await;
    let (_connection, channel) = channel(&backend.queue_url).await;

    let unknown = Uuid::now_v7();
    let junk = [
        ("not json".to_owned(), "not JSON"),
        ("{\"order\": 1}".to_owned(), "no order id"),
        (format!("{{\"order_id\": \"{unknown}\"}}"), "no such order"),
    ];
    let bodies = junk.iter().map(|(body, _)| body.clone());
    for body in bodies.chain([format!("{{\"order_id\": \"{unpaid}\"}}")]) {
        let exchange = format!("{}.orders", backend.prefix);
        let publish = channel.basic_publish(
            exchange.into(),
            "settle".into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            BasicProperties::default(),
        );
        publish.await.expect("published");
    }

    // The worker goes on after the junk.
    let paid = client.order(&[(1, 2)]).await;
    client.pay(&paid).await;
    assert_eq!(client.settled(&paid).await["status"], "PAID");

    let dead = format!("{}.orders.dead", backend.prefix);
    let mut reasons: Vec<(String, String)> = Vec::new();
    while reasons.len() < junk.len() {
        let message = eventually("the junk is dead-lettered", || async {
            channel
                .basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true })
                .await
                .expect("answered")
        })
        .await;
        let headers = message.delivery.properties.headers().clone().expect("headers");
        let reason = headers
            .inner()
            .get("x-shop-reason")
            .expect("a reason")
            .as_long_string()
            .expect("text")
            .to_string();
        reasons.push((String::from_utf8_lossy(&message.delivery.data).into_owned(), reason));
    }

    for (body, expected) in &junk {
        let (_, reason) = reasons
            .iter()
            .find(|(dead, _)| dead == body)
            .expect("its body is unchanged");
        assert!(reason.contains(expected), "{reason}");
    }

    let nothing_left = channel
        .basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true })
        .await
        .expect("answered");
    assert!(nothing_left.is_none());
    assert_eq!(client.get(&format!("/orders/{unpaid}")).await.body["status"], "PENDING");
    assert_eq!(client.get("/products/1").await.body["stock"], 8);
}

#[tokio::test]
async fn a_settle_request_has_the_promised_form() {
    let backend = Backend::servers();
    backend.stock(&[(100, 6)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let (_connection, channel) = channel(&backend.queue_url).await;

    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let id = client.order(&[(1, 2)]).await;
    let pay = client.request(reqwest::Method::POST, &format!("/orders/{id}/pay"));
    pay.header("traceparent", traceparent).send().await.expect("answers");

    let settle = format!("{}.orders.settle", backend.prefix);
    let request = eventually("the request is in the queue", || async {
        channel
            .basic_get(settle.as_str().into(), BasicGetOptions::default())
            .await
            .expect("answered")
    })
    .await;
    let body: Value = serde_json::from_slice(&request.delivery.data).expect("JSON");
    assert_eq!(body, serde_json::json!({ "order_id": id }));

    let properties = &request.delivery.properties;
    assert_eq!(properties.message_id().as_ref().map(ToString::to_string), Some(id));
    assert_eq!(*properties.delivery_mode(), Some(2));
    let headers = properties.headers().clone().expect("headers");
    let trace = headers
        .inner()
        .get("traceparent")
        .and_then(|value| value.as_long_string());
    assert_eq!(trace.map(ToString::to_string).as_deref(), Some(traceparent));
}

#[tokio::test]
async fn settled_orders_and_low_stock_are_published_as_cloudevents() {
    let backend = Backend::servers();
    backend.stock(&[(100, 6)]).await;
    let mut events = EventListener::on(&backend).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let (paid, failed) = (client.order(&[(1, 2)]).await, client.order(&[(1, 5)]).await);
    for id in [&paid, &failed] {
        client.pay(id).await;
        client.settled(id).await;
    }

    let mut kinds = HashSet::new();
    while kinds.len() < 3 {
        let event = events.next().await;
        assert_eq!(event["specversion"], "1.0");
        for attribute in ["id", "source", "time", "subject"] {
            assert!(
                event[attribute].as_str().is_some_and(|text| !text.is_empty()),
                "{attribute}: {event}"
            );
        }

        let (kind, data) = (event["type"].as_str().expect("text"), &event["data"]);
        let (subject, (value, expected)) = match kind {
            "order.paid" => (paid.as_str(), (&data["total_price"], 200)),
            "order.failed" => (failed.as_str(), (&data["failure"]["lines"][0]["available"], 4)),
            "stock.low" => ("1", (&data["stock"], 4)),
            other => panic!("{other}"),
        };
        assert_eq!(
            (event["subject"].as_str(), value.as_i64()),
            (Some(subject), Some(expected)),
            "{event}"
        );
        kinds.insert(kind.to_owned());
    }
}

#[tokio::test]
async fn orders_whose_settle_requests_could_not_be_published_stay_due() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 3)]).await;
    accepted(&app, 3, |_| vec![(1, 1)]).await;
    let due = orders::make_all_due(app.db.write(), Timestamp::now()).await;
    assert_eq!(due.expect("written"), 3);
    assert_eq!(app.queue.depth().await.expect("answered"), 0);

    let (_connection, channel) = channel(&backend.queue_url).await;
    let (settle, exchange) = (
        format!("{}.orders.settle", backend.prefix),
        format!("{}.orders", backend.prefix),
    );
    channel
        .queue_unbind(settle.into(), exchange.into(), "settle".into(), FieldTable::default())
        .await
        .expect("unbound");
    let refused = sweeper::sweep(&app).await;
    assert!(matches!(&refused, Err(RoundError::Queue(_))), "{refused:?}");

    // After a failure the shop pauses before it connects again.
    let depth = eventually("the shop connects again", || async { app.queue.depth().await.ok() }).await;
    assert_eq!(depth, 0);
    assert_eq!(sweeper::sweep(&app).await.ok(), Some(SweepOutcome::Done));
    eventually("all three requests are published", || async {
        (app.queue.depth().await.ok()? == 3).then_some(())
    })
    .await;
}

/// First the broker is away while payments are accepted, then its queue is deleted while the worker consumes from it.
#[tokio::test(flavor = "multi_thread")]
async fn orders_accepted_while_the_broker_is_away_are_settled_once_it_is_back() {
    let rabbitmq = RabbitMq::start();
    let mut backend = Backend::servers();
    backend.queue_url = rabbitmq.url();
    backend.stock(&[(100, 1_000)]).await;
    let shop = Shop::serve(&backend);
    let workers = Shop::workers(&backend, 1);
    let client = shop.client();

    let first = client.order(&[(1, 1)]).await;
    client.pay(&first).await;
    client.settled(&first).await;

    rabbitmq.stop();
    let mut orders = Vec::new();
    for _ in 0..20 {
        let id = client.order(&[(1, 1)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
        orders.push(id);
    }
    let ready = client.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["queue"]), (200, &"down".into()));
    assert_eq!(workers[0].management().get("/readyz").await.status, 503);

    rabbitmq.start_again();
    for id in &orders {
        assert_eq!(client.settled(id).await["status"], "PAID");
    }

    let (_connection, channel) = channel(&backend.queue_url).await;
    let settle = format!("{}.orders.settle", backend.prefix);
    channel
        .queue_delete(settle.into(), QueueDeleteOptions::default())
        .await
        .expect("deleted");

    let last = client.order(&[(1, 1)]).await;
    assert_eq!(client.pay(&last).await.status, 202);
    assert_eq!(client.settled(&last).await["status"], "PAID");
    assert_eq!(client.get("/products/1").await.body["stock"], 1_000 - 22);
}
