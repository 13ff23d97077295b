//! The queue on RabbitMQ. Publishing and consuming have a connection each, since a broker that pushes back on
//! publishers must not hold up acknowledgements. A connection that is lost is made anew by whoever needs it next.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lapin::{
    Channel, Connection, ConnectionProperties, Queue as Declared,
    options::{ConfirmSelectOptions, QueueDeclareOptions},
    types::{FieldTable, LongString, ShortString},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

mod consume;
mod dead;
mod listen;
mod publish;
mod topology;

use super::{Delivery, Event, QueueError, SettleRequest};
use consume::{Acknowledging, Consuming};
pub(super) use listen::Listener;
use publish::{Message, header, properties, publish_all};
use topology::{LARGE_FRAMES, SMALL_FRAMES, Topology, hosts, with_parameter};

/// For connecting to one host and declaring what is needed there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For publishing a batch and having it confirmed, and for every other question to the broker.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What every message of a batch adds to it.
const ANSWER_TIMEOUT_EACH: Duration = Duration::from_millis(10);
/// After a failure, who asks again sooner gets the same failure: twice as long each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The purpose of a connection that nothing large comes through.
const PUBLISH: &str = "publish";
/// The most connections at once, those counted that are given up and cannot end yet: a broker that hangs, or takes nothing
/// for want of memory, does not hear a goodbye, and each costs a thread here.
const MAX_CONNECTIONS: usize = 16;

#[derive(Clone)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    hosts: Hosts,
    topology: Topology,
    prefetch: u16,
    publisher: Mutex<Publisher>,
    consumer: Mutex<Option<Consuming>>,
    /// Apart from `consumer`, which is held while waiting for messages.
    acknowledging: StdMutex<Option<Acknowledging>>,
    sessions: AtomicU64,
    /// Bells that were published from here.
    published: AtomicU64,
    connections: Arc<Semaphore>,
}

/// The hosts of one cluster, tried in turn.
struct Hosts {
    urls: Vec<String>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Publisher {
    session: Option<Session>,
    failed: Option<Failure>,
}

/// The last of the failures since something went well.
struct Failure {
    when: Instant,
    error: QueueError,
    /// How long to leave the broker alone.
    pause: Duration,
}

impl Publisher {
    fn fail(&mut self, error: &QueueError) {
        let pause = self.failed.as_ref().map_or(FIRST_PAUSE, |failure| failure.pause * 2);
        self.failed = Some(Failure {
            when: Instant::now(),
            error: error.clone(),
            pause: pause.min(LONGEST_PAUSE),
        });
    }
}

#[derive(Clone)]
struct Session {
    connection: Arc<Open>,
    channel: Channel,
}

/// A connection that is closed when nobody holds it any more, and counted until it really has ended.
struct Open(Option<(Connection, OwnedSemaphorePermit)>);

impl Queue {
    pub(super) fn new(url: &str, prefix: &str, prefetch: u16) -> Result<Self, QueueError> {
        Ok(Self {
            shared: Arc::new(Shared {
                hosts: Hosts {
                    urls: hosts(url)?,
                    next: AtomicUsize::new(0),
                },
                topology: Topology::new(prefix),
                prefetch,
                publisher: Mutex::default(),
                consumer: Mutex::default(),
                acknowledging: StdMutex::default(),
                sessions: AtomicU64::new(1),
                published: AtomicU64::new(0),
                connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            }),
        })
    }

    pub(super) async fn publish_settle_requests(&self, requests: &[SettleRequest]) -> Result<(), QueueError> {
        let topology = &self.shared.topology;
        let messages = requests.iter().map(|request| Message {
            exchange: topology.orders.clone(),
            routing_key: "settle".into(),
            mandatory: true,
            body: super::to_body(request.order_id),
            properties: properties(&request.order_id.to_string(), "application/json")
                .with_headers(header("traceparent", &request.traceparent)),
        });
        self.publish(messages.collect()).await?;
        self.shared
            .published
            .fetch_add(requests.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn dead_letter(&self, dead: &[(&Delivery, String)]) -> Result<(), QueueError> {
        let messages = dead.iter().map(|(delivery, reason)| Message {
            exchange: ShortString::default(),
            routing_key: self.shared.topology.dead.clone(),
            mandatory: true,
            body: delivery.body.clone(),
            properties: dead::properties(delivery, reason),
        });
        self.publish(messages.collect()).await
    }

    /// Not mandatory: a fact that nobody has subscribed to has been told.
    pub(super) async fn publish_events(&self, events: &[Event]) -> Result<(), QueueError> {
        let messages = events.iter().map(|event| Message {
            exchange: self.shared.topology.events.clone(),
            routing_key: event.kind.into(),
            mandatory: false,
            body: serde_json::to_vec(event).unwrap_or_default(),
            properties: properties(&event.id, "application/cloudevents+json; charset=utf-8"),
        });
        self.publish(messages.collect()).await
    }

    pub(super) async fn depth(&self) -> Result<u64, QueueError> {
        let session = self.publisher().await?;
        match self.queue_status(&session).await {
            Ok(queue) => Ok(u64::from(queue.message_count())),
            Err(error) => Err(self.discard_session(&session, error).await),
        }
    }

    pub(super) async fn close(&self) {
        let publisher = self.shared.publisher.lock().await.session.take();
        let consumer = self.shared.consumer.lock().await.take().map(Consuming::into_session);
        for session in publisher.into_iter().chain(consumer) {
            session.close().await;
        }
    }

    /// All are sent before the first confirm is awaited.
    async fn publish(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        if messages.is_empty() {
            return Ok(());
        }
        let session = self.publisher().await?;
        let limit = ANSWER_TIMEOUT + ANSWER_TIMEOUT_EACH * u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let sent = timeout(limit, publish_all(&session.channel, messages)).await;
        match sent.unwrap_or_else(|_| Err(QueueError("the broker did not confirm in time".to_owned()))) {
            Ok(()) => {
                self.record_success().await;
                Ok(())
            }
            Err(error) => Err(self.discard_session(&session, error).await),
        }
    }

    async fn publisher(&self) -> Result<Session, QueueError> {
        let mut publisher = self.shared.publisher.lock().await;
        if let Some(session) = &publisher.session
            && session.is_open()
        {
            // The connection is as good as any, and another would be blocked as well.
            if session.connection.status().blocked() {
                return Err(QueueError(
                    "the broker takes no messages: it is short of memory or disk".to_owned(),
                ));
            }
            return Ok(session.clone());
        }
        publisher.session = None;
        if let Some(failure) = &publisher.failed
            && failure.when.elapsed() < failure.pause
        {
            return Err(failure.error.clone());
        }
        match self.open(PUBLISH).await {
            Ok(session) => {
                publisher.session = Some(session.clone());
                Ok(session)
            }
            Err(error) => {
                publisher.fail(&error);
                Err(error)
            }
        }
    }

    /// After an error nothing is known about the channel, so the next caller opens another.
    async fn discard_session(&self, session: &Session, error: QueueError) -> QueueError {
        let mut publisher = self.shared.publisher.lock().await;
        if publisher
            .session
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(&current.connection, &session.connection))
            && !session.connection.status().blocked()
        {
            publisher.session = None;
            publisher.fail(&error);
        }
        error
    }

    async fn record_success(&self) {
        self.shared.publisher.lock().await.failed = None;
    }

    /// How many wait in the queue, and how many consume from it.
    async fn queue_status(&self, session: &Session) -> Result<Declared, QueueError> {
        let name = self.shared.topology.settle.clone();
        within(session.channel.queue_declare(name, passive(), FieldTable::default())).await
    }

    /// Connects to the first host that answers, and declares everything: whoever comes first makes it.
    async fn open(&self, purpose: &str) -> Result<Session, QueueError> {
        let hosts = &self.shared.hosts;
        let start = hosts.next.fetch_add(1, Ordering::Relaxed);
        let mut last = QueueError("no host".to_owned());
        for offset in 0..hosts.urls.len() {
            let url = &hosts.urls[start.wrapping_add(offset) % hosts.urls.len()];
            match timeout(CONNECT_TIMEOUT, self.open_at(url, purpose)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => last = error,
                Err(_) => last = QueueError("the broker did not answer in time".to_owned()),
            }
        }
        Err(last)
    }

    async fn open_at(&self, url: &str, purpose: &str) -> Result<Session, QueueError> {
        let place = Arc::clone(&self.shared.connections).try_acquire_owned();
        let place = place.map_err(|_| QueueError("earlier connections have not ended yet".to_owned()))?;
        let properties =
            ConnectionProperties::default().with_connection_name(LongString::from(format!("shop {purpose}")));
        let frames = if purpose == PUBLISH { SMALL_FRAMES } else { LARGE_FRAMES };
        let url = with_parameter(url, "frame_max", frames);
        // A task of its own: given up in the middle, it still keeps its place until it has ended.
        let connecting = tokio::spawn(async move {
            let connection = Connection::connect(&url, properties).await?;
            Ok(Arc::new(Open(Some((connection, place)))))
        });
        let failed = |error: lapin::Error| QueueError(error.to_string());
        let connecting = connecting.await.map_err(|error| QueueError(error.to_string()))?;
        let connection = connecting.map_err(failed)?;
        let channel = self.shared.topology.declare(&connection).await.map_err(failed)?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        confirms.await.map_err(failed)?;
        Ok(Session { connection, channel })
    }
}

impl Session {
    fn is_open(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Says goodbye, and waits for it to be heard.
    async fn close(&self) {
        let _ = within(self.connection.close(200, "bye".into())).await;
    }
}

impl Deref for Open {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        let (connection, _) = self.0.as_ref().expect("it is there until this is dropped");
        connection
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let (Some((connection, place)), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                let _ = connection.close(200, "bye".into()).await;
                drop(place);
            });
        }
    }
}

fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: true,
        ..Default::default()
    }
}

async fn within<T>(asked: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, QueueError> {
    match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| QueueError(error.to_string())),
        Err(_) => Err(QueueError("the broker did not answer in time".to_owned())),
    }
}
