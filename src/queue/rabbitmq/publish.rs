//! Publishing, confirmed and mandatory: a message that reached no queue counts as not published. It has a connection of
//! its own, since a broker that blocks publishers must not hold up acknowledgements.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Queue as QueueStatus, options::BasicPublishOptions, types::ShortString,
};
use tokio::{sync::Mutex, time::timeout};

use super::session::{ANSWER_TIMEOUT, Broker, Purpose, Session};
use crate::queue::QueueError;

/// Added to [`ANSWER_TIMEOUT`] for every message of a batch.
const TIMEOUT_PER_MESSAGE: Duration = Duration::from_millis(10);
/// How long after a failure every caller gets the same failure, without a new connection. It doubles with each further
/// one, up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Delivery mode 2: written to disk.
pub(super) const PERSISTENT: u8 = 2;

/// A message to publish.
pub(super) struct Message {
    pub exchange: ShortString,
    pub routing_key: ShortString,
    /// Whether the message must reach a queue.
    pub mandatory: bool,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

/// Publishes through one session, and opens another when that is lost.
pub(super) struct Publisher {
    broker: Arc<Broker>,
    state: Mutex<State>,
    /// How many settle requests were published from here.
    pub requests_published: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// The last failure since the last success.
    failure: Option<Failure>,
}

struct Failure {
    at: Instant,
    error: QueueError,
    backoff: Duration,
}

impl Publisher {
    pub(super) fn new(broker: Arc<Broker>) -> Self {
        Self {
            broker,
            state: Mutex::default(),
            requests_published: Arc::default(),
        }
    }

    /// Publishes all, and returns when all are confirmed.
    pub(super) async fn publish(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        if messages.is_empty() {
            return Ok(());
        }

        let session = self.session().await?;
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let confirmed = timeout(
            ANSWER_TIMEOUT + TIMEOUT_PER_MESSAGE * count,
            publish_all(&session.channel, messages),
        );

        match confirmed.await.unwrap_or_else(|_| Err(not_confirmed())) {
            Ok(()) => {
                self.record_success().await;
                Ok(())
            }
            Err(error) => Err(self.discard_session(&session, error).await),
        }
    }

    pub(super) async fn publish_settle_requests(&self, requests: Vec<Message>) -> Result<(), QueueError> {
        let count = requests.len() as u64;
        self.publish(requests).await?;
        self.requests_published.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// How many messages wait in a queue, and how many consumers it has.
    pub(super) async fn queue_status(&self, queue: &ShortString) -> Result<QueueStatus, QueueError> {
        let session = self.session().await?;
        match session.queue_status(queue).await {
            Ok(status) => Ok(status),
            Err(error) => Err(self.discard_session(&session, error).await),
        }
    }

    pub(super) async fn close(&self) {
        let session = self.state.lock().await.session.take();
        if let Some(session) = session {
            session.close().await;
        }
    }

    async fn session(&self) -> Result<Session, QueueError> {
        let mut state = self.state.lock().await;

        if let Some(session) = &state.session
            && session.is_open()
        {
            // Another connection would be blocked as well.
            if session.is_blocked() {
                return Err(QueueError(
                    "the broker takes no messages: it is short of memory or disk".to_owned(),
                ));
            }
            return Ok(session.clone());
        }

        state.session = None;
        if let Some(failure) = &state.failure
            && failure.at.elapsed() < failure.backoff
        {
            return Err(failure.error.clone());
        }

        match self.broker.open(Purpose::Publish).await {
            Ok(session) => {
                state.session = Some(session.clone());
                Ok(session)
            }
            Err(error) => {
                state.record_failure(&error);
                Err(error)
            }
        }
    }

    /// After an error the state of the channel is unknown, so the next caller opens another session.
    async fn discard_session(&self, session: &Session, error: QueueError) -> QueueError {
        let mut state = self.state.lock().await;
        let is_current = state
            .session
            .as_ref()
            .is_some_and(|current| current.is_same_as(session));
        if is_current && !session.is_blocked() {
            state.session = None;
            state.record_failure(&error);
        }
        error
    }

    async fn record_success(&self) {
        self.state.lock().await.failure = None;
    }
}

impl State {
    fn record_failure(&mut self, error: &QueueError) {
        let doubled = self
            .failure
            .as_ref()
            .map_or(FIRST_BACKOFF, |failure| failure.backoff * 2);
        self.failure = Some(Failure {
            at: Instant::now(),
            error: error.clone(),
            backoff: doubled.min(MAX_BACKOFF),
        });
    }
}

/// Publishes all before it awaits the first confirm, and returns when all are confirmed.
pub(super) async fn publish_all(channel: &Channel, messages: Vec<Message>) -> Result<(), QueueError> {
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        let options = BasicPublishOptions {
            mandatory: message.mandatory,
            ..Default::default()
        };
        let confirm = channel
            .basic_publish(
                message.exchange,
                message.routing_key,
                options,
                &message.body,
                message.properties,
            )
            .await?;
        confirms.push(confirm);
    }

    for confirmation in try_join_all(confirms).await? {
        match confirmation {
            Confirmation::Ack(None) => {}
            // Confirmed, and yet in no queue: the queue does not exist, or is not bound.
            Confirmation::Ack(Some(returned)) => {
                return Err(QueueError(format!("a message was returned: {}", returned.reply_text)));
            }
            Confirmation::Nack(_) => return Err(QueueError("the broker rejected a message".to_owned())),
            Confirmation::NotRequested => return Err(QueueError("the channel does not confirm".to_owned())),
        }
    }
    Ok(())
}

pub(super) fn not_confirmed() -> QueueError {
    QueueError("timed out waiting for the broker to confirm".to_owned())
}

/// The properties of a persistent message.
pub(super) fn properties(message_id: &str, content_type: &str) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id.into())
        .with_content_type(content_type.into())
        .with_timestamp(seconds_since_epoch())
}

pub(super) fn seconds_since_epoch() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
