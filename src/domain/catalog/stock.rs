//! Changing stock: putting units on the shelf, writing them off, or setting what was counted. A change of many products is
//! made whole or not at all.

use std::collections::HashMap;

use sea_orm::DatabaseTransaction;

use super::{
    MAX_STOCK,
    movements::{Origin, Recorded, record},
    product,
};
use crate::{
    db::sql::{Column, sql},
    domain::{Error, ProductId},
    entities::Timestamp,
};

/// What a change does to the units on the shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StockTarget {
    /// Adds units, or writes them off if negative.
    Delta(i64),
    /// Sets the units to what was counted.
    SetTo(i64),
}

/// A change of a product's stock, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockChange {
    pub product_id: ProductId,
    pub target: StockTarget,
    /// The change is made only if the stock is this.
    pub expected_stock: Option<i64>,
    pub reason: String,
}

impl StockChange {
    /// Adds `delta` units, or writes them off if negative, whatever the stock is.
    pub fn by(product_id: ProductId, delta: i64, reason: impl Into<String>) -> Self {
        Self {
            product_id,
            target: StockTarget::Delta(delta),
            expected_stock: None,
            reason: reason.into(),
        }
    }
}

/// Changes the stock of a product.
///
/// # Errors
/// [`Error::ProductNotFound`], [`Error::StockChanged`], [`Error::StockOutOfRange`].
pub async fn change_stock(
    txn: &DatabaseTransaction,
    now: Timestamp,
    change: &StockChange,
    origin: &Origin,
    low_stock_at: i64,
) -> Result<product::Model, Error> {
    let changed = change_stocks(txn, now, std::slice::from_ref(change), origin, low_stock_at).await;
    match changed {
        Err(Error::StockChangesRefused(mut refused)) if refused.len() == 1 => Err(refused.swap_remove(0).1),
        changed => {
            let product = changed?.pop();
            product.ok_or_else(|| Error::Internal("a changed product was not returned".to_owned()))
        }
    }
}

/// Changes the stock of several products, each of which `changes` names once. Returns the products in the order of the
/// changes. No movement is recorded where the stock is as it is to be already.
///
/// # Errors
/// [`Error::StockChangesRefused`], which names every change that cannot be made; then none is.
pub async fn change_stocks(
    txn: &DatabaseTransaction,
    now: Timestamp,
    changes: &[StockChange],
    origin: &Origin,
    low_stock_at: i64,
) -> Result<Vec<product::Model>, Error> {
    let mut made = make(txn, now, changes, origin, low_stock_at).await?;

    let in_order = changes
        .iter()
        .filter_map(|change| made.products.remove(&change.product_id));
    Ok(in_order.collect())
}

/// What changes have made.
#[derive(Default)]
pub(in crate::domain) struct Made {
    pub products: HashMap<ProductId, product::Model>,
    /// The movement of each product whose stock moved.
    pub movements: HashMap<ProductId, i64>,
}

/// As [`change_stocks`].
pub(in crate::domain) async fn make(
    txn: &DatabaseTransaction,
    now: Timestamp,
    changes: &[StockChange],
    origin: &Origin,
    low_stock_at: i64,
) -> Result<Made, Error> {
    if changes.is_empty() {
        return Ok(Made::default());
    }

    let shelves = lock_shelves(txn, changes.iter().map(|change| change.product_id).collect()).await?;
    let deltas = deltas(changes, &shelves)?;
    let products = apply(txn, now, &deltas, low_stock_at).await?;

    let moved = changes.iter().zip(&deltas).filter(|(_, (_, delta))| *delta != 0);
    let moved: Vec<Recorded> = moved
        .map(|(change, (product_id, delta))| Recorded {
            product_id: *product_id,
            delta: *delta,
            reason: &change.reason,
        })
        .collect();
    let ids = record(txn, now, &moved, origin).await?;

    let movements = moved.iter().map(|movement| movement.product_id).zip(ids);
    Ok(Made {
        products,
        movements: movements.collect(),
    })
}

/// The units of a product on the shelf, and how many of them are on hold.
#[derive(Clone, Copy)]
struct Shelf {
    stock: i64,
    held: i64,
}

/// Locks the products in id order, as everywhere, and reads their stock.
async fn lock_shelves(txn: &DatabaseTransaction, products: Vec<ProductId>) -> Result<HashMap<ProductId, Shelf>, Error> {
    let shelves: Vec<(ProductId, i64, i64)> = sql("
        SELECT id, stock, held
          FROM products
         WHERE id = ANY(:products)
         ORDER BY id
           FOR NO KEY UPDATE")
    .list("products", Column::BigInt(products))
    .tuples(txn)
    .await?;

    let shelf = |(id, stock, held)| (id, Shelf { stock, held });
    Ok(shelves.into_iter().map(shelf).collect())
}

/// By how much each change moves the stock that was read under the lock.
fn deltas(changes: &[StockChange], shelves: &HashMap<ProductId, Shelf>) -> Result<Vec<(ProductId, i64)>, Error> {
    let (mut deltas, mut refused) = (Vec::with_capacity(changes.len()), Vec::new());
    for (index, change) in changes.iter().enumerate() {
        match delta(change, shelves.get(&change.product_id).copied()) {
            Ok(delta) => deltas.push((change.product_id, delta)),
            Err(error) => refused.push((index, error)),
        }
    }

    if refused.is_empty() {
        return Ok(deltas);
    }
    Err(Error::StockChangesRefused(refused))
}

/// Units on hold stay on the shelf.
fn delta(change: &StockChange, shelf: Option<Shelf>) -> Result<i64, Error> {
    let id = change.product_id;
    let Shelf { stock, held } = shelf.ok_or(Error::ProductNotFound(id))?;
    if let Some(expected) = change.expected_stock.filter(|expected| *expected != stock) {
        return Err(Error::StockChanged { id, stock, expected });
    }

    let delta = match change.target {
        StockTarget::Delta(delta) => delta,
        StockTarget::SetTo(units) => units - stock,
    };
    if !(held..=MAX_STOCK).contains(&(stock + delta)) {
        return Err(Error::StockOutOfRange { id, stock, held, delta });
    }
    Ok(delta)
}

/// Adds the deltas to the stock of locked products, and returns the products as they are then. Each change is relative, so
/// that it adds up with the orders that were settled before the lock.
async fn apply(
    txn: &DatabaseTransaction,
    now: Timestamp,
    deltas: &[(ProductId, i64)],
    low_stock_at: i64,
) -> Result<HashMap<ProductId, product::Model>, Error> {
    let (products, units): (Vec<ProductId>, Vec<i64>) = deltas.iter().copied().unzip();

    // A product that is low again after this is reported by the settlement that finds it so. `= ANY(:products)` says again
    // what the join says, so that the products are found by their index under any statistics.
    let changed: Vec<product::Model> = sql("
        UPDATE products
           SET stock = stock + changes.delta,
               low_since = CASE WHEN stock + changes.delta > :low_stock_at THEN NULL ELSE low_since END,
               low_stock = CASE WHEN stock + changes.delta > :low_stock_at THEN NULL ELSE low_stock END,
               updated_at = :now
          FROM :changes
         WHERE id = changes.product_id AND id = ANY(:products)
        RETURNING id, name, sku, active, price, currency, stock, held, low_since, low_stock,
                  created_at, updated_at")
    .table(
        "changes",
        [
            ("product_id", Column::BigInt(products.clone())),
            ("delta", Column::BigInt(units)),
        ],
    )
    .planner_list("products", Column::BigInt(products))
    .bind("low_stock_at", low_stock_at)
    .timestamp("now", now)
    .all(txn)
    .await?;
    Ok(changed.into_iter().map(|product| (product.id, product)).collect())
}
