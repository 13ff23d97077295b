//! A full check that also adds up the totals which the periodic check goes on from.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::{
    Error, check,
    checkpoint::{Base, Checked, Checkpoint, Mark, Totals},
};
use crate::{db::sql::sql, entities::Timestamp};

/// Checks the whole ledger, as [`check`] does, and adds up what the next check goes on from. Run it in one snapshot.
pub async fn check_and_add_up(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    max_age: Duration,
) -> Result<Checked, Error> {
    let report = check(connection, now, max_age).await?;
    let mark = Checkpoint::read(connection).await?.closed(connection).await?;

    let totals = if report.adds_up() {
        totals(connection, mark).await?
    } else {
        Vec::new()
    };
    Ok(Checked {
        report,
        is_full: true,
        base: Base { mark, totals },
    })
}

/// Of every product, those without movements included: a total that was stored before is replaced.
async fn totals(connection: &impl ConnectionTrait, mark: Mark) -> Result<Vec<Totals>, Error> {
    let totals = sql("
        SELECT products.id AS product_id,
               CAST(COALESCE(moved.put_in, 0) AS bigint) AS put_in,
               CAST(COALESCE(paid.sold, 0) AS bigint) AS sold
          FROM products
          LEFT JOIN (SELECT product_id, SUM(delta) AS put_in
                       FROM stock_movements
                      WHERE id <= :movement_id
                      GROUP BY product_id) moved
            ON moved.product_id = products.id
          LEFT JOIN (SELECT i.product_id, SUM(i.quantity) AS sold
                       FROM order_items i
                       JOIN orders o ON o.id = i.order_id
                      WHERE o.status = 'PAID' AND COALESCE(o.ledger_period, 0) < :period
                      GROUP BY i.product_id) paid
            ON paid.product_id = products.id
         ORDER BY products.id")
    .bind("movement_id", mark.movement_id)
    .bind("period", mark.period)
    .all(connection)
    .await?;
    Ok(totals)
}
