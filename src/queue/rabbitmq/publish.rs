//! Publishing, confirmed and mandatory: a message that is in no queue has not been sent.

use futures_util::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::queue::QueueError;

/// Delivery mode 2: written to the disk.
pub(super) const PERSISTENT: u8 = 2;

/// A message on its way out.
pub(super) struct Message {
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub mandatory: bool,
    pub body: Vec<u8>,
    pub properties: BasicProperties,
}

/// All are sent before the first confirm is awaited, and all must be confirmed.
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
            .await
            .map_err(|error| QueueError(error.to_string()))?;
        confirms.push(confirm);
    }
    for confirmation in try_join_all(confirms)
        .await
        .map_err(|error| QueueError(error.to_string()))?
    {
        match confirmation {
            Confirmation::Ack(None) => {}
            // Confirmed, and yet in no queue: the queue is not there, or not bound.
            Confirmation::Ack(Some(returned)) => {
                return Err(QueueError(format!("a message was returned: {}", returned.reply_text)));
            }
            Confirmation::Nack(_) => return Err(QueueError("the broker refused a message".to_owned())),
            Confirmation::NotRequested => return Err(QueueError("the channel does not confirm".to_owned())),
        }
    }
    Ok(())
}

pub(super) fn properties(message_id: &str, content_type: &str) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id.into())
        .with_content_type(content_type.into())
        .with_timestamp(seconds_since_epoch())
}

pub(super) fn header(name: &str, value: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(name.into(), AMQPValue::LongString(value.into()));
    headers
}

pub(super) fn seconds_since_epoch() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
