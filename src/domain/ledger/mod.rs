//! The ledger check, from the database alone: every unit on a shelf is explained by what was put in and what PAID orders
//! took, every settled order carries what it must, no refund is more than what was paid, and no accepted order waits for
//! ever.
//!
//! [`check()`] reads everything. [`check_since_clean()`] goes on from the last clean check.

use std::time::Duration;

use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::Serialize;

use super::{Error, OrderId, ProductId};
use crate::{db::sql::sql, entities::Timestamp};

mod checkpoint;
mod full;
mod holds;
mod lease;
mod refunds;
mod since;
mod totals;

pub use checkpoint::{Checked, LastCheck, last_check, open_period, period_is_closed, record};
pub use full::check;
pub use holds::HoldDiscrepancy;
pub use lease::{LEASE, Lease};
pub use since::check_since_clean;
pub use totals::check_and_add_up;

/// The most discrepancies of one kind that a report lists.
pub const MAX_LISTED: i64 = 1_000;
/// How long an accepted order may be PENDING unless the caller says otherwise.
pub const MAX_AGE: Duration = Duration::from_mins(5);

/// How much the clocks of two machines may differ before an order counts as accepted in the future.
const MAX_SKEW: Duration = Duration::from_mins(1);

/// A product whose stock is not what the movements and the PAID orders say.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult, Serialize)]
pub struct StockDiscrepancy {
    pub product_id: ProductId,
    /// Units on the shelf.
    pub stock: i64,
    /// Units ever put in, less those written off.
    pub put_in: i64,
    /// Units in PAID orders.
    pub sold: i64,
}

/// An order whose row contradicts itself or waits too long.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult, Serialize)]
pub struct OrderDiscrepancy {
    pub order_id: OrderId,
    pub status: String,
    pub problem: String,
}

/// What the check found. Each list holds [`MAX_LISTED`] at most, the lowest ids first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Products that were checked.
    pub products: i64,
    /// Orders that were checked.
    pub orders: i64,
    pub stock_discrepancies: Vec<StockDiscrepancy>,
    /// Products whose units on hold are not those of the open holds.
    pub hold_discrepancies: Vec<HoldDiscrepancy>,
    /// Orders that contradict themselves.
    pub order_discrepancies: Vec<OrderDiscrepancy>,
    /// Orders accepted for payment that are PENDING for longer than they may be.
    pub overdue: Vec<OrderDiscrepancy>,
}

impl Report {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.adds_up() && self.overdue.is_empty()
    }

    /// Whether stock and settled orders are right, even if an order waits for too long.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.stock_discrepancies.is_empty() && self.hold_discrepancies.is_empty() && self.order_discrepancies.is_empty()
    }
}

/// Orders accepted longer than `max_age` ago and still PENDING; or accepted later than `now`, by a clock that was ahead.
pub async fn overdue(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    max_age: Duration,
) -> Result<Vec<OrderDiscrepancy>, Error> {
    // MATERIALIZED, so that they are found by the index of the few that wait, and not among all that nobody has paid.
    let found = sql("
        WITH waiting AS MATERIALIZED (
            SELECT id, status, accepted_at
              FROM orders
             WHERE settled_at IS NULL AND accepted_at IS NOT NULL
        )
        SELECT id AS order_id, status,
               CASE WHEN accepted_at < :accepted_before
                    THEN 'was accepted too long ago and is not settled'
                    ELSE 'was accepted at a time that is still to come, and is not settled'
               END AS problem
          FROM waiting
         WHERE accepted_at < :accepted_before OR accepted_at > :accepted_after
         ORDER BY id
         LIMIT :limit")
    .timestamp("accepted_before", now.minus(max_age))
    .timestamp("accepted_after", now.plus(MAX_SKEW))
    .bind("limit", MAX_LISTED)
    .all(connection)
    .await?;
    Ok(found)
}
