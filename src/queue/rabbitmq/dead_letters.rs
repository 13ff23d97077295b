//! The dead letters: listed without being removed, published again, purged.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use lapin::{
    BasicProperties,
    message::BasicGetMessage,
    options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use time::OffsetDateTime;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    headers::{header, text_header},
    publish::{Message, PERSISTENT, not_confirmed, publish_all, seconds_since_epoch},
    session::{ANSWER_TIMEOUT, Broker, Purpose, Session, with_timeout},
    topology::SETTLE,
};
use crate::queue::{
    QueueError,
    message::{DeadLetter, DeadLetters, Delivery, Replayed, from_body},
};

/// Why a message is a dead letter.
const REASON: &str = "x-shop-reason";
/// What a dead letter is called, and when it became one. Both go with it when it is sent again.
const ID: &str = "x-shop-dead-letter-id";
const SINCE: &str = "x-shop-dead-letter-since";
const TRACEPARENT: &str = "traceparent";
/// The most messages that listing takes from the queue. If there are more, listing changes their order.
const MAX_LISTED: usize = 10_000;
const REQUEUE_ALL: BasicNackOptions = BasicNackOptions {
    multiple: true,
    requeue: true,
};
/// How many messages are published again before they are confirmed and acknowledged.
const REPLAY_BATCH: u32 = 200;

/// Takes messages from the queue and gives them back. The queue's delivery limit is so high that no number of listings
/// reaches it. Messages that are given back go to the end of the queue; so all are taken, also those beyond `limit`, and
/// their order stays. With a `limit` of 0 they are counted, and none is taken.
pub(super) async fn list(broker: &Broker, limit: usize) -> Result<DeadLetters, QueueError> {
    let session = broker.open(Purpose::DeadLetters).await?;
    let total = count(&session, broker).await? as usize;

    let mut oldest = Vec::new();
    let (mut last_tag, mut taken) = (None, 0);
    let taken_at_most = if limit == 0 { 0 } else { total.min(MAX_LISTED) };
    while taken < taken_at_most
        && let Some(message) = get(&session, broker).await?
    {
        last_tag = Some(message.delivery.delivery_tag);
        taken += 1;
        if oldest.len() < limit {
            oldest.push(dead_letter(message));
        }
    }

    if let Some(last_tag) = last_tag {
        with_timeout(session.channel.basic_nack(last_tag, REQUEUE_ALL)).await?;
    }
    session.close().await;
    Ok(DeadLetters { oldest, total })
}

/// Publishes those with these ids, or all, of as many as there are at the start, so that those that are dead-lettered again
/// at once are not replayed in a loop. Each is acknowledged after it is confirmed: if the process dies in between, the
/// message is in both queues, which does no harm.
pub(super) async fn replay(broker: &Broker, ids: Option<&[String]>) -> Result<Vec<String>, QueueError> {
    let session = broker.open(Purpose::DeadLetters).await?;
    let is_wanted = |id: &String| ids.is_none_or(|ids| ids.contains(id));
    let (mut left, mut replayed) = (count(&session, broker).await?, Vec::new());
    let mut last_kept = None;

    while left > 0 {
        let (mut requests, mut tags) = (Vec::new(), Vec::new());
        for _ in 0..left.min(REPLAY_BATCH) {
            let Some(message) = get(&session, broker).await? else {
                break;
            };
            let (tag, id) = (message.delivery.delivery_tag, id(&message));
            if is_wanted(&id) {
                requests.push(as_request(broker, message, &id));
                tags.push(tag);
                replayed.push(id);
            } else {
                last_kept = Some(tag);
            }
        }

        let confirmed = timeout(ANSWER_TIMEOUT, publish_all(&session.channel, requests)).await;
        confirmed.map_err(|_| not_confirmed())??;
        for tag in tags {
            with_timeout(session.channel.basic_ack(tag, BasicAckOptions::default())).await?;
        }
        left -= left.min(REPLAY_BATCH);
    }

    // The others go back once all have been looked at, so that none is seen twice.
    if let Some(last_kept) = last_kept {
        with_timeout(session.channel.basic_nack(last_kept, REQUEUE_ALL)).await?;
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

fn dead_letter(message: BasicGetMessage) -> DeadLetter {
    let properties = &message.delivery.properties;
    DeadLetter {
        id: id(&message),
        order_id: from_body(&message.delivery.data).ok(),
        reason: reason(properties.headers().as_ref()),
        since: since(properties).and_then(|since| OffsetDateTime::from_unix_timestamp(i64::try_from(since).ok()?).ok()),
        body: message.delivery.data,
    }
}

/// The id that the worker gave it. A message that the broker dead-lettered, or that somebody else put there, has one that is
/// made from what it holds: the same each time, and the same for messages that cannot be told apart.
fn id(message: &BasicGetMessage) -> String {
    let (properties, body) = (&message.delivery.properties, &message.delivery.data);
    text_header(properties.headers().as_ref(), ID).unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        let message_id = properties.message_id().as_ref().map(ShortString::as_str);
        (message_id, since(properties), body).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    })
}

/// What a message says of the dead letter that it was.
pub(super) fn replayed(headers: Option<&FieldTable>) -> Option<Replayed> {
    Some(Replayed {
        id: text_header(headers, ID)?,
        since: text_header(headers, SINCE)?.parse().ok()?,
    })
}

/// The request as it was first published, and which dead letter it was.
fn as_request(broker: &Broker, message: BasicGetMessage, id: &str) -> Message {
    let since = since(&message.delivery.properties).unwrap_or_else(seconds_since_epoch);
    let (original, body) = (message.delivery.properties, message.delivery.data);

    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(id) = original.message_id() {
        properties = properties.with_message_id(id.clone());
    }
    if let Some(content_type) = original.content_type() {
        properties = properties.with_content_type(content_type.clone());
    }
    let mut headers = header(ID, id);
    headers.insert(SINCE.into(), AMQPValue::LongString(since.to_string().into()));
    if let Some(traceparent) = text_header(original.headers().as_ref(), TRACEPARENT) {
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(traceparent.into()));
    }
    properties = properties.with_headers(headers);

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
    let (id, since) = match &delivery.replayed {
        Some(replayed) => (replayed.id.clone(), replayed.since),
        None => (Uuid::now_v7().to_string(), seconds_since_epoch()),
    };
    headers.insert(ID.into(), AMQPValue::LongString(id.into()));
    if let Some(traceparent) = &delivery.traceparent {
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(traceparent.as_str().into()));
    }

    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(since)
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

/// When it was dead-lettered first, in seconds since the Unix epoch: the broker notes that in a header, the worker in the
/// timestamp.
fn since(properties: &BasicProperties) -> Option<u64> {
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

    let replayed = replayed(properties.headers().as_ref()).map(|replayed| replayed.since);
    replayed.or_else(from_broker).or(*properties.timestamp())
}
