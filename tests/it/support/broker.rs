//! What tests do with the broker beside the shop: open a channel, and listen to events.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicConsumeOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::Value;
use tokio::time::timeout;

use super::{Backend, MAX_WAIT};

/// When no event comes for so long, there is none left.
const QUIET: Duration = Duration::from_secs(1);

/// The channel works for as long as its connection is kept.
pub async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("connects");
    let channel = connection.create_channel().await.expect("opens");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    (connection, channel)
}

/// Receives every event from now on. Its queue is durable, so it also keeps events while the broker restarts.
pub struct EventListener {
    _connection: Connection,
    consumer: Consumer,
}

impl EventListener {
    pub async fn on(backend: &Backend) -> Self {
        let (connection, channel) = channel(&backend.queue_url).await;
        let queue = declare_queue(&channel, backend).await;
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

    /// Declares the queue only, for a later [`EventListener::on`] to read what has gathered in it.
    pub async fn declare(backend: &Backend) {
        let (connection, channel) = channel(&backend.queue_url).await;
        declare_queue(&channel, backend).await;
        connection.close(200, "bye".into()).await.expect("closed");
    }

    /// The next event, whose type is also its routing key.
    pub async fn next(&mut self) -> Value {
        let delivery = timeout(MAX_WAIT, self.consumer.next())
            .await
            .expect("an event before the timeout");
        let delivery = delivery.expect("more events").expect("arrives");
        let event: Value = serde_json::from_slice(&delivery.data).expect("JSON");
        assert_eq!(event["type"], delivery.routing_key.as_str());
        event
    }

    /// All events, until none comes for [`QUIET`].
    pub async fn all(mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Ok(Some(Ok(delivery))) = timeout(QUIET, self.consumer.next()).await {
            events.push(serde_json::from_slice(&delivery.data).expect("JSON"));
        }
        events
    }
}

async fn declare_queue(channel: &Channel, backend: &Backend) -> ShortString {
    let (events, queue) = (
        ShortString::from(format!("{}.events", backend.prefix)),
        ShortString::from(format!("{}.events.test", backend.prefix)),
    );
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };

    let exchange = channel.exchange_declare(events.clone(), ExchangeKind::Topic, durable, FieldTable::default());
    exchange.await.expect("as the shop declares it");

    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), quorum);
    declared.await.expect("declared");

    let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
    let bound = channel.queue_bind(queue.clone(), events, "#".into(), bind, none);
    bound.await.expect("bound");
    queue
}
