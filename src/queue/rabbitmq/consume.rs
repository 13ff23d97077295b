//! Consuming settle requests. A consumer that is lost is replaced, also when the broker does not say that it is lost.

use std::{
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    Channel,
    message::Delivery as Message,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use tokio::{
    sync::Mutex,
    time::{timeout, timeout_at},
};

use super::{
    dead_letters::replayed,
    headers::text_header,
    session::{Broker, Purpose, Session, with_timeout},
};
use crate::{
    gathering::Gathering,
    queue::{
        QueueError,
        message::{Delivery, MessageBatch, from_body},
    },
};

/// After so long without a message the broker is asked whether any are waiting.
const CHECK_AFTER: Duration = Duration::from_secs(2);
/// After so long without a message, although settle requests were published from here, the consumer is replaced in any
/// case. If other consumers received them, that costs one connection.
const REPLACE_AFTER: Duration = Duration::from_secs(10);

/// Consumes through one session, and opens another when that is lost.
pub(super) struct Consumer {
    broker: Arc<Broker>,
    /// The most messages that are delivered and not acknowledged.
    prefetch: u16,
    /// How many settle requests were published from this process.
    requests_published: Arc<AtomicU64>,
    active: Mutex<Option<ActiveConsumer>>,
    /// Apart from `active`, which stays locked while it waits for messages.
    acknowledgements: StdMutex<Option<Acknowledgements>>,
    next_id: AtomicU64,
}

struct ActiveConsumer {
    id: u64,
    session: Session,
    messages: lapin::Consumer,
    gathering: Gathering,
    /// The tag of the last message that was delivered, and when that was.
    last_tag: u64,
    last_delivery: Instant,
    /// How many settle requests had been published from this process by then.
    requests_published: u64,
}

/// How far the messages of one consumer are acknowledged.
struct Acknowledgements {
    consumer_id: u64,
    channel: Channel,
    last_tag: u64,
}

impl Consumer {
    pub(super) fn new(broker: Arc<Broker>, prefetch: u16, requests_published: Arc<AtomicU64>) -> Self {
        Self {
            broker,
            prefetch,
            requests_published,
            active: Mutex::default(),
            acknowledgements: StdMutex::default(),
            next_id: AtomicU64::new(1),
        }
    }

    /// May be dropped while it waits: messages that have arrived by then stay for the next call. Those that it has taken are
    /// delivered again when the connection ends.
    pub(super) async fn next(&self, max: usize) -> Result<MessageBatch, QueueError> {
        let mut active = self.active.lock().await;
        let consumer = match active.take() {
            Some(consumer) => active.insert(consumer),
            None => active.insert(self.consume().await?),
        };

        match self.first_message(consumer).await {
            Ok(first) => {
                consumer.requests_published = self.requests_published.load(Ordering::Relaxed);
                Ok(consumer.take_arrived(first, max).await)
            }
            Err(error) => {
                *active = None;
                Err(error)
            }
        }
    }

    pub(super) async fn acknowledge(&self, batch: &MessageBatch) -> Result<(), QueueError> {
        let Some(last_tag) = batch.messages.iter().map(|delivery| delivery.tag).max() else {
            return Ok(());
        };

        let channel = match &mut *self.acknowledgements() {
            Some(current) if current.consumer_id == batch.consumer_id => {
                current.last_tag = last_tag;
                current.channel.clone()
            }
            _ => return Err(QueueError("the connection that delivered them is lost".to_owned())),
        };
        with_timeout(channel.basic_ack(last_tag, BasicAckOptions { multiple: true })).await
    }

    pub(super) async fn close(&self) {
        let active = self.active.lock().await.take();
        if let Some(consumer) = active {
            consumer.session.close().await;
        }
    }

    /// Opens a session and consumes from the queue of settle requests.
    async fn consume(&self) -> Result<ActiveConsumer, QueueError> {
        let session = self.broker.open(Purpose::Consume).await?;
        let channel = &session.channel;
        with_timeout(channel.basic_qos(self.prefetch, BasicQosOptions::default())).await?;
        let messages = with_timeout(channel.basic_consume(
            self.broker.topology.settle.clone(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        ))
        .await?;

        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        *self.acknowledgements() = Some(Acknowledgements {
            consumer_id: id,
            channel: channel.clone(),
            last_tag: 0,
        });
        Ok(ActiveConsumer {
            id,
            messages,
            gathering: Gathering::default(),
            last_tag: 0,
            last_delivery: Instant::now(),
            requests_published: self.requests_published.load(Ordering::Relaxed),
            session,
        })
    }

    /// Waits for a message.
    ///
    /// A broker may lose a consumer without saying so: RabbitMQ 3.10 does when the queue is deleted while the broker
    /// starts. Then messages wait, and none is delivered. If the queue is deleted under load, the broker may even believe
    /// that it has delivered them.
    async fn first_message(&self, consumer: &mut ActiveConsumer) -> Result<Message, QueueError> {
        let mut seemed_lost = false;

        loop {
            match timeout(CHECK_AFTER, consumer.messages.next()).await {
                Ok(Some(first)) => return Ok(first?),
                Ok(None) => return Err(QueueError("the broker cancelled the consumer".to_owned())),
                Err(_) => {}
            }

            // Twice, because a message may be on its way.
            let seems_lost = self.seems_lost(consumer).await?;
            if seems_lost && seemed_lost {
                return Err(QueueError("the broker has lost the consumer".to_owned()));
            }
            seemed_lost = seems_lost;

            if consumer.last_delivery.elapsed() > REPLACE_AFTER
                && self.requests_published.load(Ordering::Relaxed) > consumer.requests_published
                && self.has_acknowledged_all(consumer)
            {
                return Err(QueueError(
                    "requests were published, and the broker delivers none".to_owned(),
                ));
            }
        }
    }

    async fn seems_lost(&self, consumer: &ActiveConsumer) -> Result<bool, QueueError> {
        let queue = consumer.session.queue_status(&self.broker.topology.settle).await?;
        Ok(queue.consumer_count() == 0 || (queue.message_count() > 0 && self.has_acknowledged_all(consumer)))
    }

    /// While messages are unacknowledged, the broker may rightly hold back the others.
    fn has_acknowledged_all(&self, consumer: &ActiveConsumer) -> bool {
        let acknowledgements = self.acknowledgements();
        acknowledgements
            .as_ref()
            .is_none_or(|current| current.last_tag >= consumer.last_tag)
    }

    fn acknowledgements(&self) -> MutexGuard<'_, Option<Acknowledgements>> {
        self.acknowledgements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActiveConsumer {
    /// `first`, and those that have arrived with it, `max` in all.
    async fn take_arrived(&mut self, first: Message, max: usize) -> MessageBatch {
        let mut messages = vec![first];
        take_arrived(&mut self.messages, &mut messages, max).await;
        self.gather_more(&mut messages, max).await;
        let messages: Vec<Delivery> = messages.into_iter().map(delivery).collect();

        self.last_delivery = Instant::now();
        self.last_tag = messages.last().map_or(self.last_tag, |last| last.tag);
        MessageBatch {
            messages,
            consumer_id: self.id,
        }
    }

    /// Waits for as many as came the last time, for a moment at most.
    async fn gather_more(&mut self, messages: &mut Vec<Message>, max: usize) {
        let (goal, deadline) = self.gathering.goal(messages.len());
        while messages.len() < goal.min(max) {
            match timeout_at(deadline, self.messages.next()).await {
                Ok(Some(Ok(message))) => messages.push(message),
                // The time is up, or the connection is lost, which the next call will see.
                Ok(_) | Err(_) => break,
            }
        }
        self.gathering.record(messages.len());
    }
}

/// Adds the messages that have arrived, up to `max` in all, and those that arrive while other tasks that are ready run: what
/// was published together is delivered message by message.
pub(super) async fn take_arrived(consumer: &mut lapin::Consumer, messages: &mut Vec<Message>, max: usize) {
    loop {
        let before = messages.len();
        tokio::task::yield_now().await;
        while messages.len() < max
            && let Some(Some(Ok(message))) = consumer.next().now_or_never()
        {
            messages.push(message);
        }
        if messages.len() == before {
            return;
        }
    }
}

fn delivery(message: Message) -> Delivery {
    let properties = &message.properties;
    Delivery {
        order_id: from_body(&message.data),
        redelivered: message.redelivered,
        traceparent: text_header(properties.headers().as_ref(), "traceparent"),
        replayed: replayed(properties.headers().as_ref()),
        message_id: properties.message_id().as_ref().map(ToString::to_string),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        tag: message.delivery_tag,
        body: message.data,
    }
}
