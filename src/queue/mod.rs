//! Carries paid orders to the worker and announces what became of them: RabbitMQ, or a channel inside the process. A
//! message is a doorbell: it says "look at this order's row" and nothing more, so losing one costs time and no order.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::OrderId;

pub mod asyncapi;
mod memory;
mod rabbitmq;

/// A request to look at an order, with the trace it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleRequest {
    pub order_id: OrderId,
    /// W3C Trace Context `traceparent`.
    pub traceparent: String,
}

/// A message that arrived and is not acknowledged yet.
#[derive(Debug)]
pub struct Delivery {
    /// The order that it names, or why it can never be processed.
    pub order_id: Result<OrderId, String>,
    pub redelivered: bool,
    /// W3C Trace Context of whoever sent it, if it was sent along.
    pub traceparent: Option<String>,
    message_id: Option<String>,
    content_type: Option<String>,
    body: Vec<u8>,
    tag: u64,
}

/// What arrived at once. Acknowledged as a whole.
#[derive(Debug)]
pub struct MessageBatch {
    pub messages: Vec<Delivery>,
    /// Which consumer they came through: their tags mean nothing to a later one.
    session: u64,
}

/// A message that was laid aside, because it can never be processed or because its consumers crashed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub reason: String,
    /// When it was laid aside, to the second, if that is known.
    pub since: Option<OffsetDateTime>,
    pub body: Vec<u8>,
}

/// The oldest dead letters, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetters {
    pub oldest: Vec<DeadLetter>,
    pub total: usize,
}

/// Hears which orders have been settled since it began.
pub struct Listener(Listening);

enum Listening {
    Memory(memory::Listener),
    RabbitMq(Box<rabbitmq::Listener>),
}

impl Listener {
    /// Waits for at least one order that has been settled, and takes what else is there.
    ///
    /// # Errors
    /// When something may have been missed. Listen anew, and look at what matters.
    pub async fn next(&mut self) -> Result<Vec<OrderId>, QueueError> {
        match &mut self.0 {
            Listening::Memory(listener) => listener.next().await,
            Listening::RabbitMq(listener) => listener.next().await,
        }
    }
}

/// A fact to be told, as `CloudEvents` 1.0 in structured JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// The same for the same fact, however often it is told.
    pub id: String,
    pub specversion: &'static str,
    pub source: &'static str,
    /// Also the routing key: `order.paid`, `order.failed`, `stock.low`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it is about: an order's id, or a product's.
    pub subject: String,
    /// RFC 3339.
    pub time: String,
    pub datacontenttype: &'static str,
    pub data: serde_json::Value,
}

/// Why the queue could not do it. It will, later; nothing is lost meanwhile.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the queue is not available: {0}")]
pub struct QueueError(String);

/// A connection to the queue, or to several. Clones share it.
#[derive(Clone)]
pub struct Queue {
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Memory(memory::Queue),
    RabbitMq(rabbitmq::Queue),
}

impl Queue {
    /// Chooses the back end by the URL. Connects when it is first used, and again whenever that is needed.
    ///
    /// # Errors
    /// When the URL is not understood.
    pub fn new(url: &str, prefix: &str, prefetch: u16) -> Result<Self, QueueError> {
        let backend = if url.starts_with("memory:") {
            Backend::Memory(memory::Queue::new())
        } else {
            Backend::RabbitMq(rabbitmq::Queue::new(url, prefix, prefetch)?)
        };
        Ok(Self { backend })
    }

    /// Whether messages stay inside this process.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        matches!(self.backend, Backend::Memory(_))
    }

    /// Rings for orders, and comes back when the queue has taken the requests into its keeping.
    ///
    /// # Errors
    /// When it has not, or not in time; some of the requests may have been published.
    pub async fn publish_settle_requests(&self, requests: &[SettleRequest]) -> Result<(), QueueError> {
        match &self.backend {
            Backend::Memory(queue) => queue.publish_settle_requests(requests),
            Backend::RabbitMq(queue) => queue.publish_settle_requests(requests).await,
        }
    }

    /// Waits for at least one message, and takes what else is there, up to `max`.
    ///
    /// # Errors
    /// When the connection is lost. Calling again connects again.
    pub async fn next(&self, max: usize) -> Result<MessageBatch, QueueError> {
        match &self.backend {
            Backend::Memory(queue) => Ok(queue.next(max).await),
            Backend::RabbitMq(queue) => queue.next(max).await,
        }
    }

    /// Lays aside messages that can never be processed, each with the reason.
    ///
    /// # Errors
    /// When they are not safely laid aside. Do not acknowledge then.
    pub async fn dead_letter(&self, dead: &[(&Delivery, String)]) -> Result<(), QueueError> {
        match &self.backend {
            // Only this process notify_attempts there, so nothing unreadable ever arrives. What is laid aside has been logged.
            Backend::Memory(_) => Ok(()),
            Backend::RabbitMq(queue) => queue.dead_letter(dead).await,
        }
    }

    /// Tells facts to whoever listens.
    ///
    /// # Errors
    /// When they were not taken. Tell them again then, under the same ids.
    pub async fn publish_events(&self, events: &[Event]) -> Result<(), QueueError> {
        match &self.backend {
            Backend::Memory(queue) => {
                queue.publish_events(events);
                Ok(())
            }
            Backend::RabbitMq(queue) => queue.publish_events(events).await,
        }
    }

    /// Hears from now on which orders are settled, by whichever process.
    ///
    /// # Errors
    /// When the queue cannot be reached.
    pub async fn listen(&self) -> Result<Listener, QueueError> {
        Ok(Listener(match &self.backend {
            Backend::Memory(queue) => Listening::Memory(queue.listen()),
            Backend::RabbitMq(queue) => Listening::RabbitMq(Box::new(Box::pin(queue.listen()).await?)),
        }))
    }

    /// Lets the queue forget the messages. Those of a lost connection come again instead.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn acknowledge(&self, deliveries: &MessageBatch) -> Result<(), QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::RabbitMq(queue) => queue.acknowledge(deliveries).await,
        }
    }

    /// How many messages wait to be delivered.
    ///
    /// # Errors
    /// When the queue cannot be asked.
    pub async fn depth(&self) -> Result<u64, QueueError> {
        match &self.backend {
            Backend::Memory(queue) => Ok(queue.depth()),
            Backend::RabbitMq(queue) => queue.depth().await,
        }
    }

    /// The dead letters, oldest first, `limit` at most. They stay where they are; of two who look at the same time, each
    /// may see only a part. The queue inside the process keeps none.
    ///
    /// # Errors
    /// When the queue cannot be asked.
    pub async fn dead_letters(&self, limit: usize) -> Result<DeadLetters, QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(DeadLetters::default()),
            Backend::RabbitMq(queue) => queue.dead_letters(limit).await,
        }
    }

    /// Sends the dead letters of this moment to the workers again; answers how many.
    ///
    /// # Errors
    /// When the connection is lost. What was not sent again is still a dead letter.
    pub async fn replay_dead_letters(&self) -> Result<u32, QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(0),
            Backend::RabbitMq(queue) => queue.replay().await,
        }
    }

    /// Drops the dead letters; answers how many.
    ///
    /// # Errors
    /// When the queue cannot be asked.
    pub async fn purge_dead_letters(&self) -> Result<u32, QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(0),
            Backend::RabbitMq(queue) => queue.purge().await,
        }
    }

    /// Connects if that is needed, and says whether the queue can be used.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn ping(&self) -> Result<(), QueueError> {
        self.depth().await.map(drop)
    }

    /// Closes the connections. What was delivered and not acknowledged goes back to the queue.
    pub async fn close(&self) {
        if let Backend::RabbitMq(queue) = &self.backend {
            queue.close().await;
        }
    }
}

fn to_body(order_id: OrderId) -> Vec<u8> {
    format!("{{\"order_id\":\"{order_id}\"}}").into_bytes()
}

/// The order that a message names, or what is wrong with the message. Fields that are not known are let pass.
fn from_body(body: &[u8]) -> Result<OrderId, String> {
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
    let text = value
        .get("order_id")
        .ok_or_else(|| "no order id".to_owned())?
        .as_str()
        .ok_or_else(|| "the order id is not a string".to_owned())?;
    Uuid::parse_str(text).map_err(|_| "the order id is not a UUID".to_owned())
}

/// A `traceparent` that starts a new trace (W3C Trace Context, version 00, sampled).
#[must_use]
pub fn new_traceparent() -> String {
    let (trace, (_, span)) = (Uuid::new_v4().simple(), Uuid::new_v4().as_u64_pair());
    format!("00-{trace}-{span:016x}-01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_an_order_or_says_why_not() {
        let id = Uuid::now_v7();
        assert_eq!(from_body(&to_body(id)), Ok(id));
        for (body, reason) in [
            (&b"\xff\xfe"[..], "not JSON"),
            (b"{\"order\": 1}", "no order id"),
            (b"[]", "no order id"),
            (b"{\"order_id\": 7}", "not a string"),
            (b"{\"order_id\": \"seven\"}", "not a UUID"),
        ] {
            let error = from_body(body).expect_err(reason);
            assert!(error.contains(reason), "{error} does not say {reason}");
        }
    }
}
