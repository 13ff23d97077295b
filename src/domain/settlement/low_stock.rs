//! Takes stock, and notices which products run low. A product's row records when its stock became low and at how many units,
//! so that the event `stock.low` has the same id and says the same however often it is published.

use std::collections::BTreeMap;

use sea_orm::{DatabaseTransaction, DbErr, QueryResult};

use super::LowStock;
use crate::{
    db::sql::{Column, sql},
    domain::{Error, ProductId},
    entities::Timestamp,
};

/// What a settlement takes of one product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Units off the shelf.
    pub stock: i64,
    /// Units that are no longer on hold.
    pub released: i64,
}

/// Subtracts `taken` from stock and holds, and returns which products became low by this.
pub(super) async fn take_stock(
    txn: &DatabaseTransaction,
    now: Timestamp,
    taken: &BTreeMap<ProductId, Taken>,
    low_stock_at: i64,
) -> Result<Vec<LowStock>, Error> {
    if taken.is_empty() {
        return Ok(Vec::new());
    }

    // `= ANY(:products)` says again what the join says, so that the products are found by their index under any statistics.
    let low = sql("
        UPDATE products
           SET stock = stock - taken.quantity,
               held = held - taken.released,
               low_since = CASE WHEN stock - taken.quantity > :low_stock_at THEN NULL
                                ELSE COALESCE(low_since, :now) END,
               low_stock = CASE WHEN stock - taken.quantity > :low_stock_at THEN NULL
                                WHEN low_since IS NULL THEN stock - taken.quantity
                                ELSE low_stock END,
               updated_at = :now
          FROM :taken
         WHERE id = taken.product_id AND id = ANY(:products)
        RETURNING id, COALESCE(low_stock, stock), low_since")
    .table(
        "taken",
        [
            ("product_id", Column::BigInt(taken.keys().copied().collect())),
            (
                "quantity",
                Column::BigInt(taken.values().map(|taken| taken.stock).collect()),
            ),
            (
                "released",
                Column::BigInt(taken.values().map(|taken| taken.released).collect()),
            ),
        ],
    )
    .planner_list("products", Column::BigInt(taken.keys().copied().collect()))
    .bind("low_stock_at", low_stock_at)
    .timestamp("now", now)
    .rows(txn, read_low_stock)
    .await?;
    Ok(low
        .into_iter()
        .flatten()
        .filter(|product| product.since == now)
        .collect())
}

/// An order that was settled before is delivered again when a worker died between the commit and the acknowledgement.
/// Its event `stock.low` may not have been published, so it is published again for each of its products that is still low.
pub(super) async fn low_stock_again(
    txn: &DatabaseTransaction,
    products: Vec<ProductId>,
) -> Result<Vec<LowStock>, Error> {
    if products.is_empty() {
        return Ok(Vec::new());
    }

    let low = sql("
        SELECT id, COALESCE(low_stock, stock), low_since
          FROM products
         WHERE id = ANY(:products) AND low_since IS NOT NULL
         ORDER BY id")
    .list("products", Column::BigInt(products))
    .rows(txn, read_low_stock)
    .await?;
    Ok(low.into_iter().flatten().collect())
}

fn read_low_stock(row: &QueryResult) -> Result<Option<LowStock>, DbErr> {
    let since: Option<Timestamp> = row.try_get_by_index(2)?;
    let Some(since) = since else { return Ok(None) };

    Ok(Some(LowStock {
        product_id: row.try_get_by_index(0)?,
        stock: row.try_get_by_index(1)?,
        since,
    }))
}
