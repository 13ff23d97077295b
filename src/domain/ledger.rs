//! Whether the books are right, from the database alone: every unit on a shelf is explained by what was put in and
//! what PAID orders took, every settled order carries what it must, and nothing accepted waits for ever.

use std::time::Duration;

use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::Serialize;

use super::{Error, OrderId, ProductId};
use crate::{db::sql::Sql, entities::Timestamp};

/// The most faults of one kind that a report lists.
pub const MAX_LISTED: i64 = 1_000;
/// How long an accepted order may be PENDING unless told otherwise.
pub const MAX_AGE: Duration = Duration::from_mins(5);

/// A product whose shelf does not hold what the movements and the PAID orders say.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult, Serialize)]
pub struct StockDiscrepancy {
    pub product_id: ProductId,
    /// What the shelf holds.
    pub stock: i64,
    /// Everything ever put in, less what was written off.
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

/// What `shop verify` found; the books are right when all three lists are empty. Each holds [`MAX_LISTED`] at most, the
/// lowest ids first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Products that were looked at.
    pub products: i64,
    /// Orders that were looked at.
    pub orders: i64,
    pub stock_discrepancies: Vec<StockDiscrepancy>,
    /// Orders that contradict themselves.
    pub order_discrepancies: Vec<OrderDiscrepancy>,
    /// Orders accepted for payment that are PENDING for longer than they may be.
    pub overdue: Vec<OrderDiscrepancy>,
}

impl Report {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.stock_discrepancies.is_empty() && self.order_discrepancies.is_empty() && self.overdue.is_empty()
    }
}

/// Checks the books. Run it in one snapshot of the database to be right while orders are being settled.
///
/// # Errors
/// The database's.
pub async fn check(connection: &impl ConnectionTrait, now: Timestamp, max_age: Duration) -> Result<Report, Error> {
    let backend = connection.get_database_backend();
    let counts = Sql::new(
        backend,
        "SELECT (SELECT COUNT(*) FROM products), (SELECT COUNT(*) FROM orders)",
    );
    let counts = connection.query_one_raw(counts.build()).await?;
    let counts = counts.ok_or_else(|| Error::Internal("nothing was counted".to_owned()))?;
    Ok(Report {
        products: counts.try_get_by_index(0)?,
        orders: counts.try_get_by_index(1)?,
        stock_discrepancies: stock_discrepancies(connection).await?,
        order_discrepancies: order_discrepancies(connection).await?,
        overdue: overdue(connection, now, max_age).await?,
    })
}

async fn stock_discrepancies(connection: &impl ConnectionTrait) -> Result<Vec<StockDiscrepancy>, Error> {
    let select = Sql::new(
        connection.get_database_backend(),
        "SELECT p.id AS product_id, p.stock, \
                CAST(COALESCE(m.put_in, 0) AS bigint) AS put_in, CAST(COALESCE(s.sold, 0) AS bigint) AS sold \
         FROM products p \
         LEFT JOIN (SELECT product_id, SUM(delta) AS put_in FROM stock_movements GROUP BY product_id) m \
                ON m.product_id = p.id \
         LEFT JOIN (SELECT i.product_id, SUM(i.quantity) AS sold FROM order_items i \
                    JOIN orders o ON o.id = i.order_id WHERE o.status = 'PAID' GROUP BY i.product_id) s \
                ON s.product_id = p.id \
         WHERE p.stock < 0 OR p.stock <> COALESCE(m.put_in, 0) - COALESCE(s.sold, 0) ORDER BY p.id LIMIT ",
    )
    .bind(MAX_LISTED);
    Ok(StockDiscrepancy::find_by_statement(select.build())
        .all(connection)
        .await?)
}

async fn order_discrepancies(connection: &impl ConnectionTrait) -> Result<Vec<OrderDiscrepancy>, Error> {
    let select = Sql::new(
        connection.get_database_backend(),
        "SELECT id AS order_id, status, problem FROM (SELECT o.id, o.status, CASE \
           WHEN i.order_id IS NULL THEN 'has no lines' \
           WHEN o.status = 'PAID' AND o.total_price <> i.total THEN 'its total is not the sum of its lines' \
           WHEN o.status = 'FAILED' AND COALESCE(",
    )
    .json_text("o.failure", "reason")
    .push(
        ", '') = '' THEN 'has failed without a reason' \
         END AS problem FROM orders o \
         LEFT JOIN (SELECT order_id, SUM(quantity * unit_price) AS total FROM order_items GROUP BY order_id) i \
                ON i.order_id = o.id) f WHERE problem IS NOT NULL ORDER BY id LIMIT ",
    )
    .bind(MAX_LISTED);
    Ok(OrderDiscrepancy::find_by_statement(select.build())
        .all(connection)
        .await?)
}

/// Orders accepted longer than `max_age` ago and still PENDING.
///
/// # Errors
/// The database's.
pub async fn overdue(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    max_age: Duration,
) -> Result<Vec<OrderDiscrepancy>, Error> {
    let max_age = i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX);
    let select = Sql::new(
        connection.get_database_backend(),
        "SELECT id AS order_id, status, 'was accepted too long ago and is not settled' AS problem FROM orders \
         WHERE status = 'PENDING' AND accepted_at < ",
    )
    .bind(Timestamp(now.0.saturating_sub(max_age)))
    .push(" ORDER BY id LIMIT ")
    .bind(MAX_LISTED);
    Ok(OrderDiscrepancy::find_by_statement(select.build())
        .all(connection)
        .await?)
}
