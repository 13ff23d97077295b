//! An event: something that happened, as other programs are told of it. Its id is made from the fact alone, so that the
//! same fact has the same id however often it is published, and consumers can drop what comes twice.

use std::borrow::Cow;

use serde_json::Value;

use crate::entities::Timestamp;

/// The longest id and the longest type that every queue carries, in bytes (a short string of AMQP 0-9-1).
pub const MAX_NAME: usize = 255;

/// What happened, to what, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// [`MAX_NAME`] bytes at most.
    pub id: String,
    /// Also the routing key, such as `order.paid`. [`MAX_NAME`] bytes at most.
    pub kind: Cow<'static, str>,
    /// The id of the order or product that it is about.
    pub subject: String,
    pub time: Timestamp,
    pub data: Value,
}
