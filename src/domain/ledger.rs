//! The ledger check, from the database alone: every unit on a shelf is explained by what was put in and what PAID orders
//! took, every settled order carries what it must, and no accepted order waits for ever.

use std::time::Duration;

use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::Serialize;

use super::{Error, OrderId, ProductId};
use crate::{db::sql::sql, entities::Timestamp};

mod holds;

pub use holds::HoldDiscrepancy;
use holds::hold_discrepancies;

/// The most discrepancies of one kind that a report lists.
pub const MAX_LISTED: i64 = 1_000;
/// How long an accepted order may be PENDING unless the caller says otherwise.
pub const MAX_AGE: Duration = Duration::from_mins(5);

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
        self.stock_discrepancies.is_empty()
            && self.hold_discrepancies.is_empty()
            && self.order_discrepancies.is_empty()
            && self.overdue.is_empty()
    }
}

/// Checks the ledger. Run it in one snapshot of the database: only then is it right while orders are being settled.
pub async fn check(connection: &impl ConnectionTrait, now: Timestamp, max_age: Duration) -> Result<Report, Error> {
    let counted: Vec<(i64, i64)> = sql("
        SELECT (SELECT COUNT(*) FROM products),
               (SELECT COUNT(*) FROM orders)")
    .tuples(connection)
    .await?;
    let (products, orders) = counted.first().copied().unwrap_or_default();

    Ok(Report {
        products,
        orders,
        stock_discrepancies: stock_discrepancies(connection).await?,
        hold_discrepancies: hold_discrepancies(connection).await?,
        order_discrepancies: order_discrepancies(connection).await?,
        overdue: overdue(connection, now, max_age).await?,
    })
}

async fn stock_discrepancies(connection: &impl ConnectionTrait) -> Result<Vec<StockDiscrepancy>, Error> {
    let found = sql("
        SELECT products.id AS product_id,
               products.stock,
               CAST(COALESCE(moved.put_in, 0) AS bigint) AS put_in,
               CAST(COALESCE(paid.sold, 0) AS bigint) AS sold
          FROM products
          LEFT JOIN (SELECT product_id, SUM(delta) AS put_in
                       FROM stock_movements
                      GROUP BY product_id) moved
            ON moved.product_id = products.id
          LEFT JOIN (SELECT i.product_id, SUM(i.quantity) AS sold
                       FROM order_items i
                       JOIN orders o ON o.id = i.order_id
                      WHERE o.status = 'PAID'
                      GROUP BY i.product_id) paid
            ON paid.product_id = products.id
         WHERE products.stock < 0
            OR products.stock <> COALESCE(moved.put_in, 0) - COALESCE(paid.sold, 0)
         ORDER BY products.id
         LIMIT :limit")
    .bind("limit", MAX_LISTED)
    .all(connection)
    .await?;
    Ok(found)
}

async fn order_discrepancies(connection: &impl ConnectionTrait) -> Result<Vec<OrderDiscrepancy>, Error> {
    let found = sql("
        SELECT id AS order_id, status, problem
          FROM (SELECT o.id,
                       o.status,
                       CASE WHEN i.order_id IS NULL
                            THEN 'has no lines'
                            WHEN o.status = 'PAID' AND o.total_price <> i.total
                            THEN 'its total is not the sum of its lines'
                            WHEN o.status = 'FAILED' AND COALESCE(o.failure ->> 'reason', '') = ''
                            THEN 'has failed without a reason'
                        END AS problem
                  FROM orders o
                  LEFT JOIN (SELECT order_id, SUM(quantity * unit_price) AS total
                               FROM order_items
                              GROUP BY order_id) i
                    ON i.order_id = o.id) checked
         WHERE problem IS NOT NULL
         ORDER BY id
         LIMIT :limit")
    .bind("limit", MAX_LISTED)
    .all(connection)
    .await?;
    Ok(found)
}

/// Orders accepted longer than `max_age` ago and still PENDING.
pub async fn overdue(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    max_age: Duration,
) -> Result<Vec<OrderDiscrepancy>, Error> {
    let found = sql("
        SELECT id AS order_id, status, 'was accepted too long ago and is not settled' AS problem
          FROM orders
         WHERE settled_at IS NULL AND accepted_at < :accepted_before
         ORDER BY id
         LIMIT :limit")
    .timestamp("accepted_before", now.minus(max_age))
    .bind("limit", MAX_LISTED)
    .all(connection)
    .await?;
    Ok(found)
}
