//! What is where on the broker: the hosts of the cluster, and the exchanges and queues that the shop declares.

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

use crate::queue::QueueError;

/// A broker that is silent for this long is given up.
const HEARTBEAT_SECONDS: u32 = 10;
/// The client keeps room for 64 frames a connection. What is sent from here is small, and a larger body is split.
pub(super) const SMALL_FRAMES: u32 = 16_384;
/// What others send comes with headers of any size, which are never split: as large as the broker itself lets them be.
pub(super) const LARGE_FRAMES: u32 = 131_072;
/// How often a quorum queue delivers a message whose consumers crash before it moves it to the dead letters. The
/// order's row is not touched by that, and the sweeper notify_attempts for it again.
const DELIVERY_LIMIT: i32 = 50;
/// Dead letters may be looked at as often as anybody likes; RabbitMQ 4 would drop them after 20 looks.
const NO_LIMIT: i32 = i32::MAX;

/// The exchanges and queues.
pub(super) struct Topology {
    pub orders: ShortString,
    pub settle: ShortString,
    pub dead: ShortString,
    pub events: ShortString,
    /// What has been told of already: it is the same at every connection.
    told: Mutex<HashSet<String>>,
}

impl Topology {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            orders: format!("{prefix}.orders").into(),
            settle: format!("{prefix}.orders.settle").into(),
            dead: format!("{prefix}.orders.dead").into(),
            events: format!("{prefix}.events").into(),
            told: Mutex::default(),
        }
    }

    /// Declares everything, and gives a channel to work on. Nothing here that RabbitMQ 3.10 or 4.x refuses, and nothing
    /// left to defaults that differ between them.
    ///
    /// What is there already with other properties is used as it is: an older version may have declared it, or the
    /// operator. So is what this user may not declare.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<Channel, lapin::Error> {
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let none = FieldTable::default;
        let mut declaring = Declaring::on(connection, &self.told).await?;
        let orders = declaring
            .channel
            .exchange_declare(self.orders.clone(), ExchangeKind::Direct, durable, none());
        let orders = orders.await;
        declaring.done(&self.orders, orders).await?;
        let events = declaring
            .channel
            .exchange_declare(self.events.clone(), ExchangeKind::Topic, durable, none());
        let events = events.await;
        declaring.done(&self.events, events).await?;
        let dead = declaring
            .channel
            .queue_declare(self.dead.clone(), QueueDeclareOptions::durable(), quorum(NO_LIMIT));
        let dead = dead.await;
        declaring.done(&self.dead, dead).await?;
        let settle =
            declaring
                .channel
                .queue_declare(self.settle.clone(), QueueDeclareOptions::durable(), self.settling());
        let settle = settle.await;
        declaring.done(&self.settle, settle).await?;
        let bound = declaring.channel.queue_bind(
            self.settle.clone(),
            self.orders.clone(),
            "settle".into(),
            QueueBindOptions::default(),
            none(),
        );
        let bound = bound.await;
        declaring.done(&self.settle, bound).await?;
        Ok(declaring.channel)
    }

    /// Not the strategy `at-least-once`: in RabbitMQ 3.10, deleting the queue while the broker starts takes the
    /// supervisor of that strategy down, and nothing can consume from such a queue until the next start. What is lost
    /// without it is a request that fifty consumers died of, and the sweeper notify_attempts again; what the worker lays aside itself
    /// is published and confirmed.
    fn settling(&self) -> FieldTable {
        let mut arguments = quorum(DELIVERY_LIMIT);
        let text = |value: &str| AMQPValue::LongString(value.into());
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(self.dead.as_str()));
        arguments
    }
}

/// A broker closes the channel on which it refuses something.
struct Declaring<'a> {
    connection: &'a Connection,
    channel: Channel,
    told: &'a Mutex<HashSet<String>>,
}

impl<'a> Declaring<'a> {
    async fn on(connection: &'a Connection, told: &'a Mutex<HashSet<String>>) -> Result<Self, lapin::Error> {
        let channel = connection.create_channel().await?;
        Ok(Self {
            connection,
            channel,
            told,
        })
    }

    async fn done<T>(&mut self, name: &ShortString, outcome: Result<T, lapin::Error>) -> Result<(), lapin::Error> {
        let Err(error) = outcome else { return Ok(()) };
        let Some(reason) = refusal(&error) else {
            return Err(error);
        };
        self.tell_once(name, reason);
        self.channel = self.connection.create_channel().await?;
        Ok(())
    }

    fn tell_once(&self, name: &ShortString, reason: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(format!("{name} {reason}")) {
            let name = name.as_str();
            tracing::warn!(name, reason, "it was not declared anew, and is used as it is");
        }
    }
}

/// Why the broker would not declare something that may well be there.
fn refusal(error: &lapin::Error) -> Option<&str> {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return None;
    };
    let soft = |kind: AMQPSoftError| AMQPErrorKind::Soft(kind);
    let refused = [
        soft(AMQPSoftError::PRECONDITIONFAILED),
        soft(AMQPSoftError::ACCESSREFUSED),
    ];
    refused.contains(error.kind()).then(|| error.get_message().as_str())
}

fn quorum(delivery_limit: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(delivery_limit));
    arguments
}

/// The URL, or its end, with a parameter that it may have already.
pub(super) fn with_parameter(url: &str, name: &str, default: u32) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    if url.contains(&format!("{joint}{name}=")) || url.contains(&format!("?{name}=")) {
        return url.to_owned();
    }
    format!("{url}{joint}{name}={default}")
}

/// One URL for each host of `amqp://user:password@one:5672,two:5672/vhost?…`.
pub(super) fn hosts(url: &str) -> Result<Vec<String>, QueueError> {
    let malformed = || QueueError("the URL is not of the form amqp://user:password@host:5672/vhost".to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority
        .rsplit_once('@')
        .map_or((String::new(), authority), |(user, hosts)| (format!("{user}@"), hosts));
    let tail = with_parameter(tail, "heartbeat", HEARTBEAT_SECONDS);
    let urls: Vec<String> = hosts
        .split(',')
        .map(|host| format!("{scheme}://{user}{host}{tail}"))
        .collect();
    for url in &urls {
        url.parse::<lapin::uri::AMQPUri>().map_err(|_| malformed())?;
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_several_hosts_becomes_one_url_a_host() {
        assert_eq!(
            hosts("amqp://u:p@one:5672,two:5673/shop?frame_max=8192").expect("well formed"),
            [
                "amqp://u:p@one:5672/shop?frame_max=8192&heartbeat=10",
                "amqp://u:p@two:5673/shop?frame_max=8192&heartbeat=10",
            ]
        );
        assert_eq!(hosts("amqp://one").expect("well formed"), ["amqp://one?heartbeat=10"]);
        assert_eq!(
            with_parameter("amqp://one?heartbeat=10", "frame_max", SMALL_FRAMES),
            "amqp://one?heartbeat=10&frame_max=16384"
        );
        let error = hosts("amqp://u:hunter2@host:port").expect_err("not a port").to_string();
        assert!(!error.contains("hunter2"));
    }
}
