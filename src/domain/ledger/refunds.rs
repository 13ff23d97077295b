//! The check of refunds: of PAID orders only, no more money than was paid, no more units than were ordered, and a stock
//! movement for all that went back on the shelf.

use sea_orm::ConnectionTrait;

use super::{Error, MAX_LISTED, OrderDiscrepancy};
use crate::db::sql::sql;

/// Before every period.
pub(super) const EVER: i64 = 0;

/// The orders whose refunds do not add up, among those that were refunded in the period `since` or a later one. Orders, lines and
/// movements are looked up by subqueries, which no planner turns into joins.
pub(super) async fn refund_discrepancies(
    connection: &impl ConnectionTrait,
    since: i64,
) -> Result<Vec<OrderDiscrepancy>, Error> {
    let found = sql("
        WITH refunded AS MATERIALIZED (
            SELECT DISTINCT order_id
              FROM refunds
             WHERE ledger_period >= :since
        ), paid_back AS MATERIALIZED (
            SELECT r.id, r.order_id, r.amount
              FROM refunds r
             WHERE r.order_id IN (SELECT order_id FROM refunded)
        ), units AS MATERIALIZED (
            SELECT paid_back.order_id, i.product_id, i.quantity, i.movement_id
              FROM paid_back
              JOIN refund_items i ON i.refund_id = paid_back.id
        ), too_many AS (
            SELECT order_id
              FROM units
             GROUP BY order_id, product_id
            HAVING SUM(quantity) > COALESCE((SELECT ordered.quantity
                                               FROM order_items ordered
                                              WHERE ordered.order_id = units.order_id
                                                AND ordered.product_id = units.product_id), 0)
        ), moved_otherwise AS (
            SELECT order_id
              FROM units
             WHERE movement_id IS NOT NULL
               AND NOT EXISTS (SELECT 1
                                 FROM stock_movements m
                                WHERE m.id = units.movement_id
                                  AND m.product_id = units.product_id
                                  AND m.delta = units.quantity)
        ), total AS (
            SELECT order_id, SUM(amount) AS amount,
                   (SELECT status FROM orders WHERE id = order_id) AS status,
                   (SELECT total_price FROM orders WHERE id = order_id) AS total_price
              FROM paid_back
             GROUP BY order_id
        )
        SELECT order_id, status, problem
          FROM (SELECT order_id, status,
                       CASE WHEN status <> 'PAID'
                            THEN 'is refunded and was not paid'
                            WHEN amount > total_price
                            THEN 'its refunds are more than was paid'
                            WHEN order_id IN (SELECT order_id FROM too_many)
                            THEN 'its refunds have more units than were ordered'
                            WHEN order_id IN (SELECT order_id FROM moved_otherwise)
                            THEN 'its refunds put other units on the shelf than they say'
                        END AS problem
                  FROM total) checked
         WHERE problem IS NOT NULL
         ORDER BY order_id
         LIMIT :limit")
    .bind("since", since)
    .bind("limit", MAX_LISTED)
    .all(connection)
    .await?;
    Ok(found)
}
