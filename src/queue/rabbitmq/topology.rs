//! The exchanges and queues of the shop, and how they are declared. Nothing here is refused by RabbitMQ 3.10 or 4.x, and
//! nothing is left to defaults in which they differ.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};

/// How often a message is delivered without being acknowledged before the broker dead-letters it, because its consumers
/// crash. The order's row stays as it is, and the sweeper publishes its request again.
const DELIVERY_LIMIT: i32 = 50;
/// Listing the dead letters delivers them. RabbitMQ 4 would drop them after 20 deliveries.
const NO_DELIVERY_LIMIT: i32 = i32::MAX;
/// The routing key of settle requests.
pub(super) const SETTLE: &str = "settle";

/// The names of exchanges and queues.
pub(super) struct Topology {
    /// The exchange of settle requests.
    pub orders: ShortString,
    /// The queue of settle requests.
    pub settle: ShortString,
    /// The queue of dead letters.
    pub dead: ShortString,
    /// The exchange of events.
    pub events: ShortString,
    /// Refused declarations that are in the log already. They are the same for every connection.
    logged: Mutex<HashSet<String>>,
}

impl Topology {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            orders: format!("{prefix}.orders").into(),
            settle: format!("{prefix}.orders.settle").into(),
            dead: format!("{prefix}.orders.dead").into(),
            events: format!("{prefix}.events").into(),
            logged: Mutex::default(),
        }
    }

    /// Declares everything, and returns a channel to work on.
    ///
    /// A declaration that the broker refuses is skipped: the queue may exist with other properties, from an older version
    /// or from the operator, or this user may not declare.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<Channel, lapin::Error> {
        let mut declaring = Declaring {
            connection,
            channel: connection.create_channel().await?,
            topology: self,
        };
        declaring.exchange(&self.orders, ExchangeKind::Direct).await?;
        declaring.exchange(&self.events, ExchangeKind::Topic).await?;
        declaring.queue(&self.dead, quorum_queue(NO_DELIVERY_LIMIT)).await?;
        declaring.queue(&self.settle, self.settle_queue()).await?;
        declaring.binding(&self.settle, &self.orders, SETTLE).await?;
        Ok(declaring.channel)
    }

    /// Without the strategy `at-least-once` for dead letters: in RabbitMQ 3.10, deleting the queue while the broker starts
    /// stops the supervisor of that strategy, and nobody can consume from such a queue until the next start. What may be
    /// lost without it is a request that crashed fifty consumers, which the sweeper publishes again. What the worker
    /// dead-letters is published and confirmed.
    fn settle_queue(&self) -> FieldTable {
        let mut arguments = quorum_queue(DELIVERY_LIMIT);
        let text = |value: &str| AMQPValue::LongString(value.into());
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(self.dead.as_str()));
        arguments
    }

    fn log_once(&self, name: &ShortString, reason: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.insert(format!("{name} {reason}")) {
            let name = name.as_str();
            tracing::warn!(
                name,
                reason,
                "the broker refused the declaration; what exists is used as it is"
            );
        }
    }
}

/// Declares on a channel that the broker closes with each refusal.
struct Declaring<'a> {
    connection: &'a Connection,
    channel: Channel,
    topology: &'a Topology,
}

impl Declaring<'_> {
    async fn exchange(&mut self, name: &ShortString, kind: ExchangeKind) -> Result<(), lapin::Error> {
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let declared = self
            .channel
            .exchange_declare(name.clone(), kind, durable, FieldTable::default())
            .await;
        self.skip_refused(name, declared).await
    }

    async fn queue(&mut self, name: &ShortString, arguments: FieldTable) -> Result<(), lapin::Error> {
        let declared = self
            .channel
            .queue_declare(name.clone(), QueueDeclareOptions::durable(), arguments)
            .await;
        self.skip_refused(name, declared.map(drop)).await
    }

    async fn binding(&mut self, queue: &ShortString, exchange: &ShortString, key: &str) -> Result<(), lapin::Error> {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound = self
            .channel
            .queue_bind(queue.clone(), exchange.clone(), key.into(), options, none)
            .await;
        self.skip_refused(queue, bound).await
    }

    /// Logs a refusal and goes on, on another channel.
    async fn skip_refused(
        &mut self,
        name: &ShortString,
        outcome: Result<(), lapin::Error>,
    ) -> Result<(), lapin::Error> {
        let Err(error) = outcome else { return Ok(()) };
        let Some(reason) = refusal(&error) else {
            return Err(error);
        };

        self.topology.log_once(name, reason);
        self.channel = self.connection.create_channel().await?;
        Ok(())
    }
}

/// The reason, if the broker refused to declare something that may exist.
fn refusal(error: &lapin::Error) -> Option<&str> {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return None;
    };
    let refusals = [AMQPSoftError::PRECONDITIONFAILED, AMQPSoftError::ACCESSREFUSED].map(AMQPErrorKind::Soft);
    refusals.contains(error.kind()).then(|| error.get_message().as_str())
}

/// The arguments of a quorum queue.
fn quorum_queue(delivery_limit: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(delivery_limit));
    arguments
}
