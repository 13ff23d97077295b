//! What a shop knows: catalogue, orders, settlement, ledger. Functions here take a connection and the time; they name no
//! database product, no queue, no cache and no web framework.

use sea_orm::DbErr;
use uuid::Uuid;

use crate::{
    db::{self, Transient},
    entities::order::{FailureReason, ShortLine, StoredFailure},
};

mod caller;
pub mod carts;
pub mod catalog;
pub mod event;
pub mod idempotency;
pub mod ids;
pub mod ledger;
pub mod money;
pub mod orders;
pub mod outbox;
pub mod refunds;
pub mod settlement;
pub mod shop;
pub mod stock_level;
pub mod transition;

pub use caller::Caller;

pub type OrderId = Uuid;
pub type ProductId = i64;
pub type UserId = i64;

/// Every way in which a request to the shop can fail.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no product {0}")]
    ProductNotFound(ProductId),
    /// The product is another one than the caller knows: somebody changed it meanwhile.
    #[error("product {0} has changed since you read it")]
    ProductChanged(ProductId),
    #[error("another product has the SKU {0}")]
    SkuTaken(String),
    #[error("there are {stock} units of product {id}, not {expected}")]
    StockChanged { id: ProductId, stock: i64, expected: i64 },
    /// Every change that cannot be made, with its index in the request and why; none was made.
    #[error("stock changes that cannot be made: {}; none was made", .0.len())]
    StockChangesRefused(Vec<(usize, Error)>),
    /// A change that would leave less than what is on hold, or more than [`catalog::MAX_STOCK`], on the shelf.
    #[error("there are {stock} units of product {id}, {held} of them on hold, so its stock cannot change by {delta}")]
    StockOutOfRange {
        id: ProductId,
        stock: i64,
        held: i64,
        delta: i64,
    },
    #[error("there is no order {0}")]
    OrderNotFound(OrderId),
    /// Each with its index among the lines of the request.
    #[error("ordered products that do not exist: {}", .0.len())]
    UnknownProducts(Vec<(usize, ProductId)>),
    #[error("the order's total is larger than a 64-bit amount")]
    TotalTooLarge,
    #[error("the idempotency key was used before, with another body")]
    IdempotencyKeyReused,
    /// Units are to be set aside, and these lines are short.
    #[error("not enough units are available to set aside: {} short", .0.len())]
    InsufficientStock(Vec<ShortLine>),
    /// The order that has the reference belongs to the same user.
    #[error("order {0} has this reference")]
    ReferenceTaken(OrderId),
    #[error("the charge {0} has paid another order")]
    PaymentReferenceUsed(String),
    #[error("the payment was declined; the order can still be paid")]
    PaymentDeclined,
    #[error("order {id} has failed: {reason}", id = .0, reason = reason_of(.1.as_ref()))]
    OrderFailed(OrderId, Option<StoredFailure>),
    /// An order that cannot be cancelled any more.
    #[error("the payment of order {0} was accepted, so the order will be settled")]
    PaymentAccepted(OrderId),
    /// An order that cannot be cancelled any more.
    #[error("order {0} is paid")]
    OrderPaid(OrderId),
    /// There is none, it has expired, or it is somebody else's. Its id is a secret and stands in no message.
    #[error("there is no such cart")]
    CartNotFound,
    #[error("a cart has {} lines at most", carts::MAX_LINES)]
    CartFull,
    #[error("the cart is empty, so there is nothing to order")]
    CartEmpty,
    /// It became an order, or is about to.
    #[error("the cart is checked out, or is being checked out, and cannot be changed")]
    CartCheckedOut,
    #[error("the cart is checked out, or is being checked out, for another user")]
    CartOfAnotherOrder,
    /// A product to be put into a cart.
    #[error("there is no product {0}")]
    UnknownProduct(ProductId),
    /// Products of a cart that have left the catalogue since they were put in.
    #[error("the cart holds products that do not exist any more: {}", .0.len())]
    ProductsGone(Vec<ProductId>),
    /// Redis cannot be reached, or did not answer in time.
    #[error("carts are not available: {0}")]
    CartsUnavailable(String),
    /// Only what was paid can be paid back.
    #[error("order {0} is not paid")]
    OrderNotPaid(OrderId),
    #[error("order {} has {} left to refund", .0.order_id, .0.refundable)]
    RefundExceedsPayment(Box<refunds::Excess>),
    /// The caller is known and may not do this.
    #[error("not allowed: {0}")]
    Forbidden(String),
    /// More is waiting than can be served soon.
    #[error("the shop is busy")]
    Overloaded,
    /// The database cannot be reached, or did not answer in time.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The connection was of no more use. What was done on it was not committed, unless it was lost while it committed.
    #[error("the connection to the database is lost: {0}")]
    Reconnect(String),
    /// The transaction met another one; it was rolled back and may be run again.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// A mistake of the program.
    #[error("unexpected: {0}")]
    Internal(String),
}

fn reason_of(failure: Option<&StoredFailure>) -> &'static str {
    let reason = failure.and_then(StoredFailure::reason);
    reason.map_or("the reason is not known", FailureReason::as_str)
}

impl Error {
    /// Whether the request was refused for good, so that nothing of it is stored or will be.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Unavailable(_) | Self::Reconnect(_) | Self::Busy(_) | Self::Internal(_) | Self::CartsUnavailable(_)
        )
    }

    /// Whether the database is not available, to anybody or to this process.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Reconnect(_))
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        let text = db::describe(&error);
        match db::classify(&error) {
            db::DbErrorClass::Retryable => Self::Busy(text),
            db::DbErrorClass::Reconnect => Self::Reconnect(text),
            db::DbErrorClass::Unavailable | db::DbErrorClass::AccessDenied => Self::Unavailable(text),
            db::DbErrorClass::Permanent => Self::Internal(text),
        }
    }
}

impl Transient for Error {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::Reconnect(_) | Self::Unavailable(_))
    }

    fn needs_reconnect(&self) -> bool {
        matches!(self, Self::Reconnect(_))
    }
}
