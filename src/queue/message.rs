//! What travels through the queue, whichever back end carries it: settle requests, events, dead letters.

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::domain::{OrderId, event::Event};

/// A request to settle an order. It names the order and nothing more: the worker reads the order's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleRequest {
    pub order_id: OrderId,
    /// W3C Trace Context `traceparent`.
    pub traceparent: String,
}

/// A message that was delivered and is not acknowledged yet.
#[derive(Debug)]
pub struct Delivery {
    /// The order that it names, or why it can never be processed.
    pub order_id: Result<OrderId, String>,
    pub redelivered: bool,
    /// W3C Trace Context of the publisher, if the message has it. Not checked.
    pub traceparent: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) content_type: Option<String>,
    /// Present if it was a dead letter that was sent again.
    pub(super) replayed: Option<Replayed>,
    pub(super) body: Vec<u8>,
    /// The delivery tag.
    pub(super) tag: u64,
}

/// What a dead letter keeps when it is sent again, so that it is known if it comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    pub id: String,
    /// When it was dead-lettered first, in seconds since the Unix epoch.
    pub since: u64,
}

/// Messages that were delivered together, and are acknowledged together.
#[derive(Debug)]
pub struct MessageBatch {
    pub messages: Vec<Delivery>,
    /// The consumer that received them. Their delivery tags mean nothing to another one.
    pub(super) consumer_id: u64,
}

/// A message that can never be processed, or that was delivered too often without being acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The same for as long as the message exists, also when it is sent again and comes back.
    pub id: String,
    /// The order that it names, if it names one.
    pub order_id: Option<OrderId>,
    pub reason: String,
    /// When it was dead-lettered first, to the second, if that is known.
    pub since: Option<OffsetDateTime>,
    pub body: Vec<u8>,
}

/// The oldest dead letters, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetters {
    pub oldest: Vec<DeadLetter>,
    pub total: usize,
}

/// An event in the structured JSON of `CloudEvents` 1.0.
#[derive(Serialize)]
struct CloudEvent<'a> {
    id: &'a str,
    specversion: &'static str,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    /// RFC 3339.
    time: String,
    datacontenttype: &'static str,
    data: &'a serde_json::Value,
}

/// Why the queue could not do something. Nothing is lost by it: trying again later is enough.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the queue is not available: {0}")]
pub struct QueueError(pub(super) String);

/// The body of an event.
pub(super) fn to_cloud_event(event: &Event) -> Vec<u8> {
    let cloud_event = CloudEvent {
        id: &event.id,
        specversion: "1.0",
        source: "/shop",
        kind: &event.kind,
        subject: &event.subject,
        time: event.time.to_utc().format(&Rfc3339).unwrap_or_default(),
        datacontenttype: "application/json",
        data: &event.data,
    };
    serde_json::to_vec(&cloud_event).unwrap_or_default()
}

/// The body of a settle request.
pub(super) fn to_body(order_id: OrderId) -> Vec<u8> {
    format!("{{\"order_id\":\"{order_id}\"}}").into_bytes()
}

/// The order that a body names, or what is wrong with the body. Further fields are ignored.
pub(super) fn from_body(body: &[u8]) -> Result<OrderId, String> {
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
    let text = value
        .get("order_id")
        .ok_or_else(|| "no order id".to_owned())?
        .as_str()
        .ok_or_else(|| "the order id is not a string".to_owned())?;
    Uuid::parse_str(text).map_err(|_| "the order id is not a UUID".to_owned())
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
