//! Refunds: money that is paid back for PAID orders, and units that are given up or put back on the shelf. A refund is a fact
//! of its own beside the order, which stays PAID and does not change.

use uuid::Uuid;

use super::{OrderId, ProductId, UserId};
use crate::entities::Timestamp;

mod create;
mod event;
mod find;
pub mod limit;

pub use create::create;
pub use find::list;
pub use limit::{Excess, ExcessItem};

pub type RefundId = Uuid;

/// A refund to be made. The caller chooses its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRefund {
    pub id: RefundId,
    pub order_id: OrderId,
    /// Minor units, not negative; the price of the items if it is left out.
    pub amount: Option<i64>,
    /// Units that are refunded, no product twice.
    pub items: Vec<RefundItem>,
    pub reason: String,
}

/// Units of a product that are refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefundItem {
    pub product_id: ProductId,
    /// 1 or more.
    pub quantity: i64,
    /// Whether the units are put back on the shelf.
    pub restock: bool,
}

/// A refund that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    pub id: RefundId,
    pub order_id: OrderId,
    /// Minor units of `currency`.
    pub amount: i64,
    /// ISO 4217, as of the order.
    pub currency: String,
    pub reason: String,
    /// The administrator who made it, where users are known.
    pub user_id: Option<UserId>,
    pub created_at: Timestamp,
    /// By product.
    pub items: Vec<RefundItem>,
}

/// Which refunds to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefundQuery {
    pub order_id: OrderId,
    /// 1 to [`MAX_PAGE`](super::orders::MAX_PAGE).
    pub limit: u64,
    /// Only refunds made before this one.
    pub before: Option<RefundId>,
}

/// A page of refunds, newest first, and whether more follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundPage {
    pub refunds: Vec<Refund>,
    pub more: bool,
}
