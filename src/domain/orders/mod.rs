//! Orders before they are settled: making them, with their units set aside or without, accepting their payment, cancelling
//! and expiring them, finding them, and asking for those that nobody has settled yet. What writes takes a whole batch, so that
//! locks, round trips and the commit's fsync are paid once for all who asked meanwhile; each order is answered for itself.
//! And deleting them when they are old.

use std::time::Duration;

use serde_json::Value;

use crate::{
    domain::{Caller, OrderId, ProductId, UserId},
    entities::{Timestamp, order, order::OrderStatus, order_item},
};

mod accept;
mod charge;
mod close;
mod create;
mod find;
mod hold;
mod prune;
mod replay;
mod resend;

pub use accept::accept_payments;
pub use close::{Cancelled, Expired, cancel, count_open_holds, expire_due, is_any_expired};
pub use create::create;
pub use find::{count_known, find, find_rows, list, progress};
pub use prune::{OldOrders, PrunedBatch, count_old, delete_old};
pub use replay::find_by_key;
pub use resend::{claim_due, make_all_due, release_due};

/// The most orders on a page.
pub const MAX_PAGE: u64 = 200;
/// The sweeper publishes a settle request again for an order that was accepted this long ago and is still PENDING.
pub const NOTIFY_AFTER: Duration = Duration::from_secs(5);
/// It waits twice as long each time, up to this.
pub const MAX_NOTIFY_INTERVAL: Duration = Duration::from_secs(40);

/// A line that a customer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    pub product_id: ProductId,
    /// Units, 1 or more.
    pub quantity: i64,
}

/// An order to be made. The caller chooses its id, so that a transaction whose answer was lost can run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    pub id: OrderId,
    pub user_id: UserId,
    /// One or more, no product twice.
    pub lines: Vec<Line>,
    /// ISO 4217.
    pub currency: String,
    /// Unique for each user.
    pub idempotency_key: Option<String>,
    /// How long its units are set aside, if they are. Whole seconds.
    pub hold: Option<Duration>,
    pub labels: Labels,
    pub created_at: Timestamp,
}

/// What the shop front says of an order for its own use. It is fixed when the order is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// What the shop front calls the order: not empty, unique for each user.
    pub reference: Option<String>,
    /// An object of texts.
    pub metadata: Option<Value>,
}

/// A payment of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub caller: Caller,
    pub order_id: OrderId,
    /// The charge behind it: not empty. It pays one order only.
    pub reference: Option<String>,
}

impl From<(Caller, OrderId)> for Payment {
    fn from((caller, order_id): (Caller, OrderId)) -> Self {
        Self {
            caller,
            order_id,
            reference: None,
        }
    }
}

/// An order with its lines, in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub row: order::Model,
    pub items: Vec<order_item::Model>,
}

/// The answer to a request to make an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub order: Order,
    /// The order was made before, under the same idempotency key.
    pub replayed: bool,
}

/// Which orders to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderQuery {
    /// Only orders of this user.
    pub user_id: Option<UserId>,
    pub status: Option<OrderStatus>,
    /// Only orders that the shop front calls so.
    pub reference: Option<String>,
    /// Only orders made at this instant or later.
    pub created_from: Option<Timestamp>,
    /// Only orders made before this instant.
    pub created_to: Option<Timestamp>,
    /// 1 to [`MAX_PAGE`].
    pub limit: u64,
    /// Only orders made before this one.
    pub before: Option<OrderId>,
}

/// A page of orders, newest first, and whether more follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderPage {
    pub orders: Vec<Order>,
    pub more: bool,
}
