//! Receives which orders have been settled, through a queue that belongs to this process alone and is deleted with the
//! connection.

use std::mem;

use futures_util::StreamExt as _;
use lapin::{
    Consumer,
    message::Delivery,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{
    consume::take_arrived,
    session::{Broker, Purpose, Session, with_timeout},
};
use crate::{domain::OrderId, queue::QueueError};

/// The most events that wait in the queue; of more the oldest are dropped.
const MAX_QUEUE_LENGTH: i32 = 100_000;
/// The most events taken at once.
const MAX_BATCH: usize = 1_000;

pub(in crate::queue) struct Listener {
    consumer: Consumer,
    /// Taken from the consumer and not yet returned.
    arrived: Vec<Delivery>,
    /// The connection lives as long as the listener.
    _session: Session,
}

impl Listener {
    pub(super) async fn open(broker: &Broker) -> Result<Self, QueueError> {
        let session = broker.open(Purpose::Listen).await?;
        let queue = declare(&session, broker).await?;

        let options = BasicConsumeOptions {
            no_ack: true,
            exclusive: true,
            ..Default::default()
        };
        let consumer = session
            .channel
            .basic_consume(queue, ShortString::default(), options, FieldTable::default());
        Ok(Self {
            consumer: with_timeout(consumer).await?,
            arrived: Vec::new(),
            _session: session,
        })
    }

    /// May be dropped while it waits: events that have arrived by then stay for the next call.
    pub(in crate::queue) async fn next(&mut self) -> Result<Vec<OrderId>, QueueError> {
        if self.arrived.is_empty() {
            let lost = || QueueError("the connection was lost".to_owned());
            let first = self.consumer.next().await.ok_or_else(lost)??;
            self.arrived.push(first);
        }
        take_arrived(&mut self.consumer, &mut self.arrived, MAX_BATCH).await;
        let events = mem::take(&mut self.arrived);

        // Other programs may publish there too: what is no event about an order is ignored.
        Ok(events.iter().filter_map(|event| subject(&event.data)).collect())
    }
}

/// Declares the queue, with a name that the broker chooses, and binds it to the events about orders.
async fn declare(session: &Session, broker: &Broker) -> Result<ShortString, QueueError> {
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..Default::default()
    };
    let mut bounded = FieldTable::default();
    bounded.insert("x-max-length".into(), AMQPValue::LongInt(MAX_QUEUE_LENGTH));
    let queue = session
        .channel
        .queue_declare(ShortString::default(), exclusive, bounded);
    let queue = with_timeout(queue).await?.name().clone();

    let (events, options, none) = (
        broker.topology.events.clone(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    let bound = session
        .channel
        .queue_bind(queue.clone(), events, "order.*".into(), options, none);
    with_timeout(bound).await?;
    Ok(queue)
}

/// The order that an event is about.
fn subject(event: &[u8]) -> Option<OrderId> {
    #[derive(serde::Deserialize)]
    struct Subject {
        subject: OrderId,
    }

    serde_json::from_slice::<Subject>(event).ok().map(|event| event.subject)
}
