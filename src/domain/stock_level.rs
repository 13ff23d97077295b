//! How many units of a product there are, and how many of them are on hold. Whoever changes either locks the products
//! first, in id order and after any orders, so that transactions wait for each other and never in a circle.

use std::collections::{BTreeMap, HashMap};

use sea_orm::DatabaseTransaction;

use super::{Error, ProductId};
use crate::{
    db::sql::{Column, sql},
    entities::order::ShortLine,
};

/// The units of one product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StockLevel {
    /// Units on the shelf.
    pub stock: i64,
    /// Those of them that are on hold for PENDING orders.
    pub held: i64,
}

impl StockLevel {
    /// Units that nobody holds.
    #[must_use]
    pub fn available(self) -> i64 {
        self.stock - self.held
    }
}

/// Adds `units` to what is held, all of them or none, or says of which products too few are available.
///
/// # Errors
/// The products that are short.
pub fn set_aside(
    units: &BTreeMap<ProductId, i64>,
    levels: &mut HashMap<ProductId, StockLevel>,
) -> Result<(), Vec<ShortLine>> {
    let available = |product_id: &ProductId| levels.get(product_id).map_or(0, |level| level.available());
    let short: Vec<ShortLine> = units
        .iter()
        .filter(|(product_id, requested)| available(product_id) < **requested)
        .map(|(product_id, requested)| ShortLine {
            product_id: *product_id,
            requested: *requested,
            available: available(product_id),
        })
        .collect();
    if !short.is_empty() {
        return Err(short);
    }

    for (product_id, quantity) in units {
        levels.entry(*product_id).or_default().held += quantity;
    }
    Ok(())
}

/// Locks the products in id order, as everywhere, and reads their levels.
pub(super) async fn lock(
    txn: &DatabaseTransaction,
    products: Vec<ProductId>,
) -> Result<HashMap<ProductId, StockLevel>, Error> {
    if products.is_empty() {
        return Ok(HashMap::new());
    }

    let levels: Vec<(ProductId, i64, i64)> = sql("
        SELECT id, stock, held
          FROM products
         WHERE id = ANY(:products)
         ORDER BY id
           FOR NO KEY UPDATE")
    .list("products", Column::BigInt(products))
    .tuples(txn)
    .await?;
    let level = |(id, stock, held)| (id, StockLevel { stock, held });
    Ok(levels.into_iter().map(level).collect())
}

/// Sets units aside. The products must be locked.
pub(super) async fn hold(txn: &DatabaseTransaction, units: &BTreeMap<ProductId, i64>) -> Result<(), Error> {
    if units.is_empty() {
        return Ok(());
    }

    // `= ANY(:products)` says again what the join says, so that the products are found by their index under any statistics.
    sql("
        UPDATE products
           SET held = held + units.quantity
          FROM :units
         WHERE id = units.product_id AND id = ANY(:products)")
    .table(
        "units",
        [
            ("product_id", Column::BigInt(units.keys().copied().collect())),
            ("quantity", Column::BigInt(units.values().copied().collect())),
        ],
    )
    .planner_list("products", Column::BigInt(units.keys().copied().collect()))
    .execute(txn)
    .await?;
    Ok(())
}

/// Makes units available again that were set aside. Locks the products.
pub(super) async fn release(txn: &DatabaseTransaction, units: &BTreeMap<ProductId, i64>) -> Result<(), Error> {
    if units.is_empty() {
        return Ok(());
    }
    let products: Vec<ProductId> = units.keys().copied().collect();
    lock(txn, products.clone()).await?;

    // Never below zero: a count that somebody has changed by hand must not keep orders from ending.
    sql("
        UPDATE products
           SET held = CASE WHEN held > units.quantity THEN held - units.quantity ELSE 0 END
          FROM :units
         WHERE id = units.product_id AND id = ANY(:products)")
    .table(
        "units",
        [
            ("product_id", Column::BigInt(products.clone())),
            ("quantity", Column::BigInt(units.values().copied().collect())),
        ],
    )
    .planner_list("products", Column::BigInt(products))
    .execute(txn)
    .await?;
    Ok(())
}
