//! Hears which orders have been settled, through a queue of this process alone that ends with the connection.

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::{Queue, Session, within};
use crate::{domain::OrderId, queue::QueueError};

/// The most events that wait to be heard; of more the oldest are dropped.
const MAX_WAITING: i32 = 100_000;
/// The most that are taken at once.
const AT_ONCE: usize = 1_000;

pub(in crate::queue) struct Listener {
    consumer: Consumer,
    _session: Session,
}

impl Queue {
    pub(in crate::queue) async fn listen(&self) -> Result<Listener, QueueError> {
        let session = self.open("listen").await?;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..Default::default()
        };
        let mut bounded = FieldTable::default();
        bounded.insert("x-max-length".into(), AMQPValue::LongInt(MAX_WAITING));
        let queue = within(
            session
                .channel
                .queue_declare(ShortString::default(), exclusive, bounded),
        )
        .await?;
        let name = queue.name().clone();
        let events = self.shared.topology.events.clone();
        let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
        within(
            session
                .channel
                .queue_bind(name.clone(), events, "order.*".into(), bind, none),
        )
        .await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            exclusive: true,
            ..Default::default()
        };
        let consumed = session
            .channel
            .basic_consume(name, ShortString::default(), options, FieldTable::default());
        Ok(Listener {
            consumer: within(consumed).await?,
            _session: session,
        })
    }
}

impl Listener {
    pub(in crate::queue) async fn next(&mut self) -> Result<Vec<OrderId>, QueueError> {
        let lost = || QueueError("the connection was lost".to_owned());
        let first = self.consumer.next().await.ok_or_else(lost)?;
        let mut settled = vec![first.map_err(|error| QueueError(error.to_string()))?];
        while settled.len() < AT_ONCE
            && let Some(Some(Ok(next))) = self.consumer.next().now_or_never()
        {
            settled.push(next);
        }
        // Other programs may publish there too: what is not an event about an order is let pass.
        Ok(settled.iter().filter_map(|delivery| subject(&delivery.data)).collect())
    }
}

/// The order that an event is about.
fn subject(event: &[u8]) -> Option<OrderId> {
    #[derive(serde::Deserialize)]
    struct Subject {
        subject: OrderId,
    }
    serde_json::from_slice::<Subject>(event).ok().map(|event| event.subject)
}
