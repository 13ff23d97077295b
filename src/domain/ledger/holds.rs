//! Units on hold: each product counts those that are set aside, and the open holds say how many that must be.

use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::Serialize;

use super::{Error, MAX_LISTED, ProductId};
use crate::db::sql::sql;

/// A product whose units on hold are not those of the open holds, or are more than its stock.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult, Serialize)]
pub struct HoldDiscrepancy {
    pub product_id: ProductId,
    /// Units on the shelf.
    pub stock: i64,
    /// Units on hold, as the product counts them.
    pub held: i64,
    /// Units in orders with an open hold.
    pub in_open_holds: i64,
}

/// Reads the products and the open holds, and nothing of what is settled.
pub(super) async fn hold_discrepancies(connection: &impl ConnectionTrait) -> Result<Vec<HoldDiscrepancy>, Error> {
    // MATERIALIZED and in two parts, so that the open holds are found by the two indexes that have nothing but open orders.
    let found = sql("
        WITH open_holds AS MATERIALIZED (
            SELECT id
              FROM orders
             WHERE settled_at IS NULL AND accepted_at IS NULL AND expires_at IS NOT NULL
             UNION ALL
            SELECT id
              FROM orders
             WHERE settled_at IS NULL AND accepted_at IS NOT NULL AND expires_at IS NOT NULL
        )
        SELECT p.id AS product_id,
               p.stock,
               p.held,
               CAST(COALESCE(open.units, 0) AS bigint) AS in_open_holds
          FROM products p
          LEFT JOIN (SELECT i.product_id, SUM(i.quantity) AS units
                       FROM open_holds
                       JOIN order_items i ON i.order_id = open_holds.id
                      GROUP BY i.product_id) open
            ON open.product_id = p.id
         WHERE p.held < 0
            OR p.held > p.stock
            OR p.held <> COALESCE(open.units, 0)
         ORDER BY p.id
         LIMIT :limit")
    .bind("limit", MAX_LISTED)
    .all(connection)
    .await?;
    Ok(found)
}
