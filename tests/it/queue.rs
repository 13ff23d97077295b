//! Both queues, and what RabbitMQ may do to us: junk, redelivery, an outage, a queue that is gone.

use std::{collections::HashSet, time::Duration};

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use rstest::rstest;
use serde_json::Value;
use shop::{
    domain::{Error, orders},
    entities::Timestamp,
    queue::{Queue, SettleRequest},
    tasks::sweeper::{self, SweepOutcome},
    telemetry::traces::new_traceparent,
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    servers::RabbitMq,
    support::{Backend, MAX_WAIT, Shop, accepted, eventually},
};

/// With nothing to be heard for so long, there is nothing more.
const QUIET: Duration = Duration::from_secs(1);

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
async fn every_bell_arrives_in_order_and_as_many_at_once_as_are_wanted(#[values("embedded", "servers")] backend: &str) {
    let queue = open(&Backend::named(backend));
    let requests: Vec<SettleRequest> = (0..25).map(|_| request()).collect();
    queue.publish_settle_requests(&requests).await.expect("notify_attempts");
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
    assert_eq!(queue.depth().await.expect("asked"), 0);
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again() {
    let backend = Backend::servers();
    let (queue, request) = (open(&backend), request());
    queue
        .publish_settle_requests(std::slice::from_ref(&request))
        .await
        .expect("notify_attempts");
    let first = queue.next(10).await.expect("delivers");
    assert!(!first.messages[0].redelivered);
    queue.close().await;
    let again = open(&backend).next(10).await.expect("delivers");
    assert_eq!(again.messages[0].order_id, Ok(request.order_id));
    assert!(again.messages[0].redelivered);
}

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("connects");
    let channel = connection.create_channel().await.expect("opens");
    (connection, channel)
}

#[tokio::test]
async fn junk_is_laid_aside_with_a_reason_and_an_unpaid_order_is_left_alone() {
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 2);
    let client = shop.client();
    let unpaid = client.order(&[(1, 1)]).await;
    let (_connection, channel) = channel(&backend.queue_url).await;
    let stranger = Uuid::now_v7();
    let junk = [
        ("not json".to_owned(), "not JSON"),
        ("{\"order\": 1}".to_owned(), "no order id"),
        (format!("{{\"order_id\": \"{stranger}\"}}"), "no such order"),
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
    // The worker is still there, behind all of it.
    let paid = client.order(&[(1, 2)]).await;
    client.pay(&paid).await;
    assert_eq!(client.settled(&paid).await["status"], "PAID");

    let dead = format!("{}.orders.dead", backend.prefix);
    let mut reasons: Vec<(String, String)> = Vec::new();
    while reasons.len() < junk.len() {
        let message = eventually("the junk is among the dead letters", || async {
            channel
                .basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true })
                .await
                .expect("asked")
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
            .expect("it is there, as it was");
        assert!(reason.contains(expected), "{reason}");
    }
    let nothing_left = channel
        .basic_get(dead.as_str().into(), BasicGetOptions { no_ack: true })
        .await
        .expect("asked");
    assert!(nothing_left.is_none());
    assert_eq!(client.get(&format!("/orders/{unpaid}")).await.body["status"], "PENDING");
    assert_eq!(client.get("/products/1").await.body["stock"], 8);
}

#[tokio::test]
async fn a_message_has_the_promised_form() {
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
            .expect("asked")
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

/// Hears everything that is announced from now on: a queue keeps it, also while the broker is away for a while.
pub struct Spy {
    _connection: Connection,
    consumer: Consumer,
}

impl Spy {
    pub async fn on(backend: &Backend) -> Self {
        let (connection, channel) = channel(&backend.queue_url).await;
        let queue = declare_spy(&channel, backend).await;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..Default::default()
        };
        let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default());
        Self {
            consumer: consumer.await.expect("consumes"),
            _connection: connection,
        }
    }

    /// From now on there is a queue that listens, for a later [`Spy::on`] to read.
    pub async fn begin(backend: &Backend) {
        let (connection, channel) = channel(&backend.queue_url).await;
        declare_spy(&channel, backend).await;
        connection.close(200, "bye".into()).await.expect("closed");
    }

    /// The next event, whose type is also its routing key.
    pub async fn next(&mut self) -> Value {
        let delivery = timeout(MAX_WAIT, self.consumer.next()).await.expect("in time");
        let delivery = delivery.expect("more events").expect("arrives");
        let event: Value = serde_json::from_slice(&delivery.data).expect("JSON");
        assert_eq!(event["type"], delivery.routing_key.as_str());
        event
    }

    /// What there is, once nothing more comes.
    pub async fn all(mut self) -> Vec<Value> {
        let mut heard = Vec::new();
        while let Ok(Some(Ok(delivery))) = timeout(QUIET, self.consumer.next()).await {
            heard.push(serde_json::from_slice(&delivery.data).expect("JSON"));
        }
        heard
    }
}

async fn declare_spy(channel: &Channel, backend: &Backend) -> ShortString {
    let (events, queue) = (
        ShortString::from(format!("{}.events", backend.prefix)),
        ShortString::from(format!("{}.spy", backend.prefix)),
    );
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let exchange = channel.exchange_declare(events.clone(), ExchangeKind::Topic, durable, FieldTable::default());
    exchange.await.expect("as the shop declares it");
    let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), quorum);
    declared.await.expect("declared");
    let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
    let bound = channel.queue_bind(queue.clone(), events, "#".into(), bind, none);
    bound.await.expect("bound");
    queue
}

#[tokio::test]
async fn what_becomes_of_orders_and_stock_is_announced_as_cloudevents() {
    let backend = Backend::servers();
    backend.stock(&[(100, 6)]).await;
    let mut told = Spy::on(&backend).await;
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
        let event = told.next().await;
        assert_eq!(event["specversion"], "1.0");
        for attribute in ["id", "source", "time", "subject"] {
            assert!(
                event[attribute].as_str().is_some_and(|text| !text.is_empty()),
                "{attribute}: {event}"
            );
        }
        let (kind, data) = (event["type"].as_str().expect("text"), &event["data"]);
        let (subject, told) = match kind {
            "order.paid" => (paid.as_str(), (&data["total_price"], 200)),
            "order.failed" => (failed.as_str(), (&data["failure"]["lines"][0]["available"], 4)),
            "stock.low" => ("1", (&data["stock"], 4)),
            other => panic!("{other}"),
        };
        assert_eq!(
            (event["subject"].as_str(), told.0.as_i64()),
            (Some(subject), Some(told.1)),
            "{event}"
        );
        kinds.insert(kind.to_owned());
    }
}

#[tokio::test]
async fn orders_that_could_not_be_rung_for_are_not_put_off() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 3)]).await;
    accepted(&app, 3, |_| vec![(1, 1)]).await;
    let due = orders::make_all_due(app.db.write(), Timestamp::now()).await;
    assert_eq!(due.expect("written"), 3);
    assert_eq!(app.queue.depth().await.expect("asked"), 0);
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
    assert!(matches!(&refused, Err(Error::Unavailable(_))), "{refused:?}");
    // After a failure the broker is left alone for a moment.
    let depth = eventually("the broker is asked again", || async { app.queue.depth().await.ok() }).await;
    assert_eq!(depth, 0);
    assert_eq!(sweeper::sweep(&app).await.ok(), Some(SweepOutcome::Done));
    let rung = || async { (app.queue.depth().await.ok()? == 3).then_some(()) };
    eventually("all three are rung for", rung).await;
}

/// Sent back and forth between two states of the world: the broker killed with orders accepted meanwhile, then its
/// queue deleted under the worker's feet.
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
