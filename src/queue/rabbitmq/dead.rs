//! The dead letters: looked at without taking them, sent again, dropped.

use lapin::{
    BasicProperties,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    ANSWER_TIMEOUT, Queue, Session,
    consume::text_of,
    passive,
    publish::{Message, PERSISTENT, header, publish_all, seconds_since_epoch},
    within,
};
use crate::queue::{DeadLetter, DeadLetters, Delivery, QueueError};

/// The most that are taken to be looked at; of more, looking changes the order.
const TAKEN_AT_ONCE: usize = 10_000;
/// How many are sent again before they are confirmed and acknowledged.
const REPLAYED_AT_ONCE: u32 = 200;

impl Queue {
    /// They are taken and given back: the queue's delivery limit is so high that no number of looks reaches it. What is
    /// given back goes to the end of the queue, so all are taken, also those that are not shown: then their order stays.
    pub(in crate::queue) async fn dead_letters(&self, limit: usize) -> Result<DeadLetters, QueueError> {
        let session = self.open("dead letters").await?;
        let total = self.count_dead(&session).await? as usize;
        let mut oldest = Vec::new();
        let (mut last, mut taken) = (None, 0);
        while taken < total.min(TAKEN_AT_ONCE)
            && let Some(message) = self.get(&session).await?
        {
            last = Some(message.delivery.delivery_tag);
            taken += 1;
            if oldest.len() < limit {
                oldest.push(DeadLetter {
                    reason: reason(message.delivery.properties.headers().as_ref()),
                    since: since(&message.delivery.properties),
                    body: message.delivery.data,
                });
            }
        }
        if let Some(last) = last {
            let all = BasicNackOptions {
                multiple: true,
                requeue: true,
            };
            within(session.channel.basic_nack(last, all)).await?;
        }
        session.close().await;
        Ok(DeadLetters { oldest, total })
    }

    /// As many as there are at the start, so that what comes back at once is not sent in a loop. One is acknowledged
    /// when it is in the other queue for sure: killed between the two, it is in both, which does no harm.
    pub(in crate::queue) async fn replay(&self) -> Result<u32, QueueError> {
        let session = self.open("dead letters").await?;
        let total = self.count_dead(&session).await?;
        let mut sent = 0;
        while sent < total {
            let mut again = Vec::new();
            let mut last = None;
            while again.len() < (total - sent).min(REPLAYED_AT_ONCE) as usize
                && let Some(message) = self.get(&session).await?
            {
                last = Some(message.delivery.delivery_tag);
                again.push(self.as_request(message));
            }
            let Some(last) = last else { break };
            let count = u32::try_from(again.len()).unwrap_or(u32::MAX);
            let sending = timeout(ANSWER_TIMEOUT, publish_all(&session.channel, again)).await;
            sending.map_err(|_| QueueError("the broker did not confirm in time".to_owned()))??;
            within(session.channel.basic_ack(last, BasicAckOptions { multiple: true })).await?;
            sent += count;
        }
        session.close().await;
        Ok(sent)
    }

    pub(in crate::queue) async fn purge(&self) -> Result<u32, QueueError> {
        let session = self.open("dead letters").await?;
        let dead = self.shared.topology.dead.clone();
        let dropped = within(session.channel.queue_purge(dead, QueuePurgeOptions::default())).await?;
        session.close().await;
        Ok(dropped)
    }

    async fn count_dead(&self, session: &Session) -> Result<u32, QueueError> {
        let dead = self.shared.topology.dead.clone();
        let queue = within(session.channel.queue_declare(dead, passive(), FieldTable::default())).await?;
        Ok(queue.message_count())
    }

    async fn get(&self, session: &Session) -> Result<Option<BasicGetMessage>, QueueError> {
        let dead = self.shared.topology.dead.clone();
        within(session.channel.basic_get(dead, BasicGetOptions::default())).await
    }

    /// The request as it was sent, less what was said about its death.
    fn as_request(&self, message: BasicGetMessage) -> Message {
        let (properties, body) = (message.delivery.properties, message.delivery.data);
        let mut again = BasicProperties::default().with_delivery_mode(PERSISTENT);
        if let Some(id) = properties.message_id() {
            again = again.with_message_id(id.clone());
        }
        if let Some(kind) = properties.content_type() {
            again = again.with_content_type(kind.clone());
        }
        if let Some(traceparent) = text_of(properties.headers().as_ref(), "traceparent") {
            again = again.with_headers(header("traceparent", &traceparent));
        }
        Message {
            exchange: self.shared.topology.orders.clone(),
            routing_key: "settle".into(),
            mandatory: true,
            body,
            properties: again,
        }
    }
}

/// The message's own properties, and why it is laid aside.
pub(super) fn properties(delivery: &Delivery, reason: &str) -> BasicProperties {
    let mut headers = header("x-shop-reason", reason);
    if let Some(traceparent) = &delivery.traceparent {
        headers.insert("traceparent".into(), AMQPValue::LongString(traceparent.as_str().into()));
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(seconds_since_epoch())
        .with_headers(headers);
    if let Some(id) = &delivery.message_id {
        properties = properties.with_message_id(id.as_str().into());
    }
    if let Some(kind) = &delivery.content_type {
        properties = properties.with_content_type(kind.as_str().into());
    }
    properties
}

/// Ours, or the broker's own when it gave a message up.
fn reason(headers: Option<&FieldTable>) -> String {
    let brokers = || {
        let reason = text_of(headers, "x-first-death-reason")?;
        Some(format!("given up by the broker: {reason}"))
    };
    text_of(headers, "x-shop-reason")
        .or_else(brokers)
        .unwrap_or_else(|| "unknown".to_owned())
}

/// When it was laid aside; by whom decides where that stands.
fn since(properties: &BasicProperties) -> Option<OffsetDateTime> {
    let death = || {
        let AMQPValue::FieldArray(deaths) = properties.headers().as_ref()?.inner().get("x-death")? else {
            return None;
        };
        let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else {
            return None;
        };
        match latest.inner().get("time")? {
            AMQPValue::Timestamp(seconds) => Some(*seconds),
            _ => None,
        }
    };
    let seconds = death().or(*properties.timestamp())?;
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}
