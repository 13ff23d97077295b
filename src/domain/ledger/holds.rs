//! Units on hold: each product counts those that are set aside, and the open holds say how many that must be.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::Serialize;

use super::{Error, MAX_LISTED, ProductId};
use crate::db::sql::{Column, sql};

/// A product whose units on hold are not those of the open holds, or are more than its stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HoldDiscrepancy {
    pub product_id: ProductId,
    /// Units on the shelf.
    pub stock: i64,
    /// Units on hold, as the product counts them.
    pub held: i64,
    /// Units in orders with an open hold.
    pub in_open_holds: i64,
}

#[derive(Clone, Copy, Debug, FromQueryResult)]
pub(super) struct Held {
    product_id: ProductId,
    stock: i64,
    /// Units on hold.
    units: i64,
}

/// The products that count units on hold. Reads all products.
pub(super) async fn held(connection: &impl ConnectionTrait) -> Result<Vec<Held>, Error> {
    let products = sql("
        SELECT id AS product_id, stock, held AS units
          FROM products
         WHERE held <> 0 OR held > stock")
    .all(connection)
    .await?;
    Ok(products)
}

/// Compares `held` with the open holds. Reads these, and nothing of what is settled.
pub(super) async fn hold_discrepancies(
    connection: &impl ConnectionTrait,
    held: Vec<Held>,
) -> Result<Vec<HoldDiscrepancy>, Error> {
    let in_open_holds = units_in_open_holds(connection).await?;
    let mut products: BTreeMap<ProductId, Held> =
        held.into_iter().map(|product| (product.product_id, product)).collect();
    let missing = in_open_holds.keys().filter(|id| !products.contains_key(id)).copied();
    let missing = find(connection, missing.collect()).await?;
    products.extend(missing.into_iter().map(|product| (product.product_id, product)));

    let compared = products.into_values().map(|product| HoldDiscrepancy {
        product_id: product.product_id,
        stock: product.stock,
        held: product.units,
        in_open_holds: in_open_holds.get(&product.product_id).copied().unwrap_or(0),
    });
    let is_wrong = |found: &HoldDiscrepancy| found.held > found.stock || found.held != found.in_open_holds;
    let limit = usize::try_from(MAX_LISTED).unwrap_or(usize::MAX);
    Ok(compared.filter(is_wrong).take(limit).collect())
}

async fn units_in_open_holds(connection: &impl ConnectionTrait) -> Result<BTreeMap<ProductId, i64>, Error> {
    // MATERIALIZED and in two parts, so that the open holds are found by the two indexes that have nothing but open orders.
    let units: Vec<(ProductId, i64)> = sql("
        WITH open_holds AS MATERIALIZED (
            SELECT id
              FROM orders
             WHERE settled_at IS NULL AND accepted_at IS NULL AND expires_at IS NOT NULL
             UNION ALL
            SELECT id
              FROM orders
             WHERE settled_at IS NULL AND accepted_at IS NOT NULL AND expires_at IS NOT NULL
        )
        SELECT i.product_id, CAST(SUM(i.quantity) AS bigint)
          FROM open_holds
          JOIN order_items i ON i.order_id = open_holds.id
         GROUP BY i.product_id")
    .tuples(connection)
    .await?;
    Ok(units.into_iter().collect())
}

async fn find(connection: &impl ConnectionTrait, products: Vec<ProductId>) -> Result<Vec<Held>, Error> {
    let products = sql("
        SELECT id AS product_id, stock, held AS units
          FROM products
         WHERE id = ANY(:products)")
    .list("products", Column::BigInt(products))
    .all(connection)
    .await?;
    Ok(products)
}
