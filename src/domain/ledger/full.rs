//! The full check: reads every movement, order and line, and nothing that an earlier check has left behind.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::{
    Error, MAX_LISTED, OrderDiscrepancy, Report,
    holds::{held, hold_discrepancies},
    overdue,
    refunds::{EVER, refund_discrepancies},
    stock::{Stocked, discrepancies},
};
use crate::{db::sql::sql, entities::Timestamp};

/// Checks the ledger. Run it in one snapshot of the database: only then is it right while orders are being settled.
pub async fn check(connection: &impl ConnectionTrait, now: Timestamp, max_age: Duration) -> Result<Report, Error> {
    let (report, _) = check_products(connection, now, max_age).await?;
    Ok(report)
}

/// Checks the ledger, and returns what it has added up for each product.
pub(super) async fn check_products(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    max_age: Duration,
) -> Result<(Report, Vec<Stocked>), Error> {
    let counted: Vec<i64> = sql("SELECT COUNT(*) FROM orders").scalars(connection).await?;
    let stocked = stocked(connection).await?;
    let held = held(connection).await?;
    let mut order_discrepancies = order_discrepancies(connection).await?;
    order_discrepancies.extend(refund_discrepancies(connection, EVER).await?);

    let report = Report {
        products: i64::try_from(stocked.len()).unwrap_or(i64::MAX),
        orders: counted.first().copied().unwrap_or_default(),
        stock_discrepancies: discrepancies(stocked.iter().copied()),
        hold_discrepancies: hold_discrepancies(connection, held).await?,
        order_discrepancies,
        overdue: overdue(connection, now, max_age).await?,
    };
    Ok((report, stocked))
}

async fn stocked(connection: &impl ConnectionTrait) -> Result<Vec<Stocked>, Error> {
    let products = sql("
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
         ORDER BY products.id")
    .all(connection)
    .await?;
    Ok(products)
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
