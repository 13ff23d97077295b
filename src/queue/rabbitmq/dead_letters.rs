//! The dead letters: listed without being removed, published again, purged.

use lapin::{
    BasicProperties,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    consume::text_header,
    publish::{Message, PERSISTENT, header, not_confirmed, publish_all, seconds_since_epoch},
    session::{ANSWER_TIMEOUT, Broker, Purpose, Session, with_timeout},
    topology::SETTLE,
};
use crate::queue::{
    QueueError,
    message::{DeadLetter, DeadLetters, Delivery},
};

/// Why a message is a dead letter.
const REASON: &str = "x-shop-reason";
const TRACEPARENT: &str = "traceparent";
/// The most messages that listing takes from the queue. If there are more, listing changes their order.
const MAX_LISTED: usize = 10_000;
/// How many messages are published again before they are confirmed and acknowledged.
const REPLAY_BATCH: u32 = 200;

/// Takes messages from the queue and gives them back. The queue's delivery limit is so high that no number of listings
/// reaches it. Messages that are given back go to the end of the queue; so all are taken, also those beyond `limit`, and
/// their order stays.
pub(super) async fn list(broker: &Broker, limit: usize) -> Result<DeadLetters, QueueError> {
    let session = broker.open(Purpose::DeadLetters).await?;
    let total = count(&session, broker).await? as usize;

    let mut oldest = Vec::new();
    let (mut last_tag, mut taken) = (None, 0);
    while taken < total.min(MAX_LISTED)
        && let Some(message) = get(&session, broker).await?
    {
        last_tag = Some(message.delivery.delivery_tag);
        taken += 1;
        if oldest.len() < limit {
            oldest.push(DeadLetter {
                reason: reason(message.delivery.properties.headers().as_ref()),
                since: since(&message.delivery.properties),
                body: message.delivery.data,
            });
        }
    }

    if let Some(last_tag) = last_tag {
        let requeue_all = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        with_timeout(session.channel.basic_nack(last_tag, requeue_all)).await?;
    }
    session.close().await;
    Ok(DeadLetters { oldest, total })
}

/// Publishes as many as there are at the start, so that those that are dead-lettered again at once are not replayed in a
/// loop. Each is acknowledged after it is confirmed: if the process dies in between, the message is in both queues, which
/// does no harm.
pub(super) async fn replay(broker: &Broker) -> Result<u32, QueueError> {
    let session = broker.open(Purpose::DeadLetters).await?;
    let total = count(&session, broker).await?;

    let mut replayed = 0;
    while replayed < total {
        let mut requests = Vec::new();
        let mut last_tag = None;
        while requests.len() < (total - replayed).min(REPLAY_BATCH) as usize
            && let Some(message) = get(&session, broker).await?
        {
            last_tag = Some(message.delivery.delivery_tag);
            requests.push(as_request(broker, message));
        }
        let Some(last_tag) = last_tag else { break };

        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let confirmed = timeout(ANSWER_TIMEOUT, publish_all(&session.channel, requests)).await;
        confirmed.map_err(|_| not_confirmed())??;
        with_timeout(session.channel.basic_ack(last_tag, BasicAckOptions { multiple: true })).await?;
        replayed += count;
    }

    session.close().await;
    Ok(replayed)
}

pub(super) async fn purge(broker: &Broker) -> Result<u32, QueueError> {
    let session = broker.open(Purpose::DeadLetters).await?;
    let dead = broker.topology.dead.clone();
    let purged = with_timeout(session.channel.queue_purge(dead, QueuePurgeOptions::default())).await?;
    session.close().await;
    Ok(purged)
}

async fn count(session: &Session, broker: &Broker) -> Result<u32, QueueError> {
    Ok(session.queue_status(&broker.topology.dead).await?.message_count())
}

async fn get(session: &Session, broker: &Broker) -> Result<Option<BasicGetMessage>, QueueError> {
    let dead = broker.topology.dead.clone();
    with_timeout(session.channel.basic_get(dead, BasicGetOptions::default())).await
}

/// The request as it was first published, without what was added when it was dead-lettered.
fn as_request(broker: &Broker, message: BasicGetMessage) -> Message {
    let (original, body) = (message.delivery.properties, message.delivery.data);

    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(id) = original.message_id() {
        properties = properties.with_message_id(id.clone());
    }
    if let Some(content_type) = original.content_type() {
        properties = properties.with_content_type(content_type.clone());
    }
    if let Some(traceparent) = text_header(original.headers().as_ref(), TRACEPARENT) {
        properties = properties.with_headers(header(TRACEPARENT, &traceparent));
    }

    Message {
        exchange: broker.topology.orders.clone(),
        routing_key: SETTLE.into(),
        mandatory: true,
        body,
        properties,
    }
}

/// The message's own properties, and why it is dead-lettered.
pub(super) fn properties(delivery: &Delivery, reason: &str) -> BasicProperties {
    let mut headers = header(REASON, reason);
    if let Some(traceparent) = &delivery.traceparent {
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(traceparent.as_str().into()));
    }

    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(seconds_since_epoch())
        .with_headers(headers);
    if let Some(id) = &delivery.message_id {
        properties = properties.with_message_id(id.as_str().into());
    }
    if let Some(content_type) = &delivery.content_type {
        properties = properties.with_content_type(content_type.as_str().into());
    }
    properties
}

/// The worker's reason, or else the broker's.
fn reason(headers: Option<&FieldTable>) -> String {
    let from_broker = || {
        let reason = text_header(headers, "x-first-death-reason")?;
        Some(format!("dead-lettered by the broker: {reason}"))
    };
    text_header(headers, REASON)
        .or_else(from_broker)
        .unwrap_or_else(|| "unknown".to_owned())
}

/// When it was dead-lettered: the broker notes that in a header, the worker in the timestamp.
fn since(properties: &BasicProperties) -> Option<OffsetDateTime> {
    let from_broker = || {
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

    let seconds = from_broker().or(*properties.timestamp())?;
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}
