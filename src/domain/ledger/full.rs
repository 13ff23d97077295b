//! The full check: reads every movement, order and line, and nothing that an earlier check has left behind.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::{
    Error, MAX_LISTED, OrderDiscrepancy, Report, StockDiscrepancy,
    holds::hold_discrepancies,
    overdue,
    refunds::{EVER, refund_discrepancies},
};
use crate::{db::sql::sql, entities::Timestamp};

/// Checks the ledger. Run it in one snapshot of the database: only then is it right while orders are being settled.
pub async fn check(connection: &impl ConnectionTrait, now: Timestamp, max_age: Duration) -> Result<Report, Error> {
    let counted: Vec<(i64, i64)> = sql("
        SELECT (SELECT COUNT(*) FROM products),
               (SELECT COUNT(*) FROM orders)")
    .tuples(connection)
    .await?;
    let (products, orders) = counted.first().copied().unwrap_or_default();

    let mut order_discrepancies = order_discrepancies(connection).await?;
    order_discrepancies.extend(refund_discrepancies(connection, EVER).await?);

    Ok(Report {
        products,
        orders,
        stock_discrepancies: stock_discrepancies(connection).await?,
        hold_discrepancies: hold_discrepancies(connection).await?,
        order_discrepancies,
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
