//! Sessions on the broker: a connection, and a channel on which everything is declared and publishing is confirmed. A
//! session that is lost is not repaired; whoever needs one opens another.

use std::{ops::Deref, sync::Arc, time::Duration};

use lapin::{
    Channel, Connection, ConnectionProperties, Queue as QueueStatus,
    options::{ConfirmSelectOptions, QueueDeclareOptions},
    types::{FieldTable, LongString, ShortString},
    uri::AMQPUri,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{hosts::Hosts, topology::Topology};
use crate::queue::QueueError;

/// How long the broker may take to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting to one host and declaring may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The most connections at once, those included that are discarded and not yet closed. Each costs a thread, and a broker
/// that hangs, or is short of memory, does not answer when it is asked to close.
const MAX_CONNECTIONS: usize = 16;
/// In bytes. The client allocates 64 frames a connection; what is published is small, and a larger body is split.
const SMALL_FRAME_MAX: u32 = 16_384;
/// In bytes, the broker's own limit. A message of any other program may have headers as large, which are never split.
const LARGE_FRAME_MAX: u32 = 131_072;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publish,
    Consume,
    Listen,
    DeadLetters,
}

impl Purpose {
    /// The connection's name, which the broker's management shows.
    fn connection_name(self) -> LongString {
        let name = match self {
            Self::Publish => "shop publish",
            Self::Consume => "shop consume",
            Self::Listen => "shop listen",
            Self::DeadLetters => "shop dead letters",
        };
        name.into()
    }

    fn frame_max(self) -> u32 {
        match self {
            Self::Publish => SMALL_FRAME_MAX,
            Self::Consume | Self::Listen | Self::DeadLetters => LARGE_FRAME_MAX,
        }
    }
}

/// Where the broker is, and what is declared there.
pub(super) struct Broker {
    hosts: Hosts,
    pub topology: Topology,
    connections: Arc<Semaphore>,
}

impl Broker {
    /// # Errors
    /// That the URL is malformed.
    pub(super) fn new(url: &str, prefix: &str) -> Result<Self, QueueError> {
        Ok(Self {
            hosts: Hosts::parse(url)?,
            topology: Topology::new(prefix),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }

    /// Connects to the first host that answers, and declares everything that does not exist yet.
    ///
    /// # Errors
    /// That of the last host, when none answers.
    pub(super) async fn open(&self, purpose: Purpose) -> Result<Session, QueueError> {
        let mut last = QueueError("no host".to_owned());
        for uri in self.hosts.in_turn(purpose.frame_max()) {
            match timeout(CONNECT_TIMEOUT, self.open_at(uri, purpose)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => last = error,
                Err(_) => last = QueueError("timed out connecting to the broker".to_owned()),
            }
        }
        Err(last)
    }

    async fn open_at(&self, uri: AMQPUri, purpose: Purpose) -> Result<Session, QueueError> {
        let permit = Arc::clone(&self.connections).try_acquire_owned();
        let permit = permit.map_err(|_| QueueError("earlier connections are not closed yet".to_owned()))?;
        let properties = ConnectionProperties::default().with_connection_name(purpose.connection_name());

        // On a task of its own: if this future is dropped half-way, the connection is still counted until it is closed.
        let connecting = tokio::spawn(async move {
            let connection = Connection::connect_uri(uri, properties).await?;
            Ok::<_, lapin::Error>(CountedConnection(Some((connection, permit))))
        });
        let connection = connecting.await.map_err(|error| QueueError(error.to_string()))??;

        let channel = self.topology.declare(&connection).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Session {
            connection: Arc::new(connection),
            channel,
        })
    }
}

/// A connection and a channel. Clones share them.
#[derive(Clone)]
pub(super) struct Session {
    connection: Arc<CountedConnection>,
    pub channel: Channel,
}

impl Session {
    pub(super) fn is_open(&self) -> bool {
        self.connection.status().connected() && self.channel.status().connected()
    }

    /// Whether the broker takes no messages for now, being short of memory or disk.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }

    /// How many messages wait in a queue, and how many consumers it has.
    pub(super) async fn queue_status(&self, name: &ShortString) -> Result<QueueStatus, QueueError> {
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declared = self.channel.queue_declare(name.clone(), passive, FieldTable::default());
        with_timeout(declared).await
    }

    /// Closes the connection and waits until the broker has confirmed it.
    pub(super) async fn close(&self) {
        let _ = with_timeout(self.connection.close(200, "bye".into())).await;
    }
}

/// A connection that closes itself when it is dropped, and keeps its permit until it is closed.
struct CountedConnection(Option<(Connection, OwnedSemaphorePermit)>);

impl Deref for CountedConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        let (connection, _) = self.0.as_ref().expect("it is taken only when this is dropped");
        connection
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        if let (Some((connection, permit)), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                let _ = connection.close(200, "bye".into()).await;
                drop(permit);
            });
        }
    }
}

/// Bounds a question to the broker by [`ANSWER_TIMEOUT`].
pub(super) async fn with_timeout<T>(question: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, QueueError> {
    match timeout(ANSWER_TIMEOUT, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(QueueError("timed out waiting for the broker".to_owned())),
    }
}

impl From<lapin::Error> for QueueError {
    fn from(error: lapin::Error) -> Self {
        Self(error.to_string())
    }
}
