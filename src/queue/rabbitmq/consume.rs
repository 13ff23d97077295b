//! Taking from the queue: a consumer that is made anew when it is lost, also when the broker does not say that it is.

use std::{
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    Channel, Consumer,
    message::Delivery as Message,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{Queue, Session, within};
use crate::queue::{Delivery, MessageBatch, QueueError, from_body};

/// When nothing has come for so long, the broker is asked whether anything waits.
const SILENCE: Duration = Duration::from_secs(2);
/// When nothing has come for so long, though requests were published from here, the consumer is made anew in any case. Others may
/// have heard them; then it costs a connection.
const LONG_SILENCE: Duration = Duration::from_secs(10);

pub(super) struct Consuming {
    session: Session,
    id: u64,
    consumer: Consumer,
    /// The tag of the last message that came.
    delivered: u64,
    /// When that was, and how many requests had been published from here by then.
    heard: Instant,
    published: u64,
}

/// How the messages of one session are acknowledged.
pub(super) struct Acknowledging {
    session: u64,
    channel: Channel,
    /// The last tag.
    acknowledged: u64,
}

impl Queue {
    /// May be dropped while it waits: what has come by then stays for the next call.
    pub(in crate::queue) async fn next(&self, max: usize) -> Result<MessageBatch, QueueError> {
        let mut place = self.shared.consumer.lock().await;
        if place.is_none() {
            let consuming = self.consume().await?;
            *self.acknowledging() = Some(Acknowledging {
                session: consuming.id,
                channel: consuming.session.channel.clone(),
                acknowledged: 0,
            });
            *place = Some(consuming);
        }
        let Some(consuming) = place.as_mut() else {
            return Err(QueueError("not connected".to_owned()));
        };
        match self.first(consuming).await {
            Ok(first) => {
                consuming.published = self.shared.published.load(Ordering::Relaxed);
                Ok(consuming.take(first, max))
            }
            Err(lost) => {
                *place = None;
                Err(lost)
            }
        }
    }

    pub(in crate::queue) async fn acknowledge(&self, deliveries: &MessageBatch) -> Result<(), QueueError> {
        let Some(last) = deliveries.messages.iter().map(|delivery| delivery.tag).max() else {
            return Ok(());
        };
        let channel = match &mut *self.acknowledging() {
            Some(current) if current.session == deliveries.session => {
                current.acknowledged = last;
                current.channel.clone()
            }
            _ => return Err(QueueError("the connection they came through is gone".to_owned())),
        };
        within(channel.basic_ack(last, BasicAckOptions { multiple: true })).await
    }

    /// Waits for a message. A broker may forget a consumer and never say so: `RabbitMQ` 3.10 does when the queue is
    /// deleted while the broker starts. Then messages wait and none comes, however often one looks. When the queue is
    /// deleted under load, it may also believe that it has delivered them.
    async fn first(&self, consuming: &mut Consuming) -> Result<Message, QueueError> {
        let mut suspected = false;
        loop {
            match timeout(SILENCE, consuming.consumer.next()).await {
                Ok(Some(Ok(first))) => return Ok(first),
                Ok(Some(Err(error))) => return Err(QueueError(error.to_string())),
                Ok(None) => return Err(QueueError("the broker cancelled the consumer".to_owned())),
                Err(_) => {
                    let forgotten = self.seems_forgotten(consuming).await?;
                    if suspected && forgotten {
                        return Err(QueueError("the broker has forgotten the consumer".to_owned()));
                    }
                    suspected = forgotten;
                    if consuming.heard.elapsed() > LONG_SILENCE
                        && self.shared.published.load(Ordering::Relaxed) > consuming.published
                        && self.has_nothing_in_hand(consuming)
                    {
                        return Err(QueueError(
                            "nothing comes of the requests that were published".to_owned(),
                        ));
                    }
                }
            }
        }
    }

    async fn seems_forgotten(&self, consuming: &Consuming) -> Result<bool, QueueError> {
        let queue = self.queue_status(&consuming.session).await?;
        Ok(queue.consumer_count() == 0 || (queue.message_count() > 0 && self.has_nothing_in_hand(consuming)))
    }

    /// While messages are in hand, the broker may rightly hold the others back.
    fn has_nothing_in_hand(&self, consuming: &Consuming) -> bool {
        let current = self.acknowledging();
        current
            .as_ref()
            .is_none_or(|current| current.acknowledged >= consuming.delivered)
    }

    async fn consume(&self) -> Result<Consuming, QueueError> {
        let session = self.open("consume").await?;
        within(
            session
                .channel
                .basic_qos(self.shared.prefetch, BasicQosOptions::default()),
        )
        .await?;
        let consumer = within(session.channel.basic_consume(
            self.shared.topology.settle.clone(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        ))
        .await?;
        Ok(Consuming {
            session,
            id: self.shared.sessions.fetch_add(1, Ordering::Relaxed),
            consumer,
            delivered: 0,
            heard: Instant::now(),
            published: self.shared.published.load(Ordering::Relaxed),
        })
    }

    fn acknowledging(&self) -> MutexGuard<'_, Option<Acknowledging>> {
        self.shared.acknowledging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Consuming {
    pub(super) fn into_session(self) -> Session {
        self.session
    }

    /// `first`, and those behind it that are here already.
    fn take(&mut self, first: Message, max: usize) -> MessageBatch {
        let mut deliveries = vec![delivery(first)];
        while deliveries.len() < max
            && let Some(Some(Ok(next))) = self.consumer.next().now_or_never()
        {
            deliveries.push(delivery(next));
        }
        self.heard = Instant::now();
        self.delivered = deliveries.last().map_or(self.delivered, |last| last.tag);
        MessageBatch {
            messages: deliveries,
            session: self.id,
        }
    }
}

fn delivery(delivery: Message) -> Delivery {
    Delivery {
        order_id: from_body(&delivery.data),
        redelivered: delivery.redelivered,
        traceparent: text_of(delivery.properties.headers().as_ref(), "traceparent"),
        message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
        content_type: delivery.properties.content_type().as_ref().map(ToString::to_string),
        tag: delivery.delivery_tag,
        body: delivery.data,
    }
}

/// A header whose value is text.
pub(super) fn text_of(headers: Option<&FieldTable>, name: &str) -> Option<String> {
    match headers?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
