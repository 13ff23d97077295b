//! The units that came in and went out after a mark, product by product. Run it after [`join_by_index`](crate::db::join_by_index):
//! it starts from few movements and orders.

use std::collections::BTreeMap;

use sea_orm::{DatabaseTransaction, FromQueryResult};

use super::{Error, ProductId, checkpoint::Mark};
use crate::db::sql::sql;

/// Units of one product.
#[derive(Clone, Copy, Debug, Default, FromQueryResult)]
pub(super) struct Change {
    product_id: ProductId,
    pub units: i64,
    /// Those of them that lie before the mark up to which everything is closed.
    pub closed: i64,
}

pub(super) struct Changes {
    put_in: BTreeMap<ProductId, Change>,
    sold: BTreeMap<ProductId, Change>,
}

impl Changes {
    /// What was put in and sold after `base`.
    pub async fn since(txn: &DatabaseTransaction, base: Mark, closed: Mark) -> Result<Self, Error> {
        Ok(Self {
            put_in: put_in(txn, base, closed).await?,
            sold: sold(txn, base, closed).await?,
        })
    }

    /// What of a product was put in, and what was sold.
    pub fn of(&self, product_id: ProductId) -> (Change, Change) {
        let change = |changes: &BTreeMap<_, Change>| changes.get(&product_id).copied().unwrap_or_default();
        (change(&self.put_in), change(&self.sold))
    }

    pub fn products(&self) -> Vec<ProductId> {
        let mut products: Vec<ProductId> = self.put_in.keys().chain(self.sold.keys()).copied().collect();
        products.sort_unstable();
        products.dedup();
        products
    }
}

/// MATERIALIZED, so that the movements are found by their ids and not read in the order of their products.
async fn put_in(txn: &DatabaseTransaction, base: Mark, closed: Mark) -> Result<BTreeMap<ProductId, Change>, Error> {
    let changes = sql("
        WITH moved AS MATERIALIZED (
            SELECT id, product_id, delta
              FROM stock_movements
             WHERE id > :base
        )
        SELECT product_id,
               CAST(SUM(delta) AS bigint) AS units,
               CAST(SUM(CASE WHEN id <= :closed THEN delta ELSE 0 END) AS bigint) AS closed
          FROM moved
         GROUP BY product_id")
    .bind("base", base.movement_id)
    .bind("closed", closed.movement_id)
    .all(txn)
    .await?;
    Ok(by_product(changes))
}

/// MATERIALIZED, so that the orders are found by their period and not by their status.
async fn sold(txn: &DatabaseTransaction, base: Mark, closed: Mark) -> Result<BTreeMap<ProductId, Change>, Error> {
    let changes = sql("
        WITH settled AS MATERIALIZED (
            SELECT id, status, ledger_period
              FROM orders
             WHERE ledger_period >= :base
        )
        SELECT i.product_id,
               CAST(SUM(i.quantity) AS bigint) AS units,
               CAST(SUM(CASE WHEN settled.ledger_period < :closed THEN i.quantity ELSE 0 END) AS bigint) AS closed
          FROM settled
          JOIN order_items i ON i.order_id = settled.id
         WHERE settled.status = 'PAID'
         GROUP BY i.product_id")
    .bind("base", base.period)
    .bind("closed", closed.period)
    .all(txn)
    .await?;
    Ok(by_product(changes))
}

fn by_product(changes: Vec<Change>) -> BTreeMap<ProductId, Change> {
    changes.into_iter().map(|change| (change.product_id, change)).collect()
}
