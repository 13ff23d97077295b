//! Settling paid orders. [`settle`] is the transaction: it locks, reads, lets [`decide`] say what happens, and writes
//! it down.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use sea_orm::{ConnectionTrait, QueryResult};

mod decide;

pub use decide::{Claim, ClaimedLine, Decision, decide};

use super::{Error, OrderId, ProductId, UserId};
use crate::{
    db::sql::{Column, Sql},
    entities::{
        Timestamp,
        order::{Failure, OrderStatus},
    },
};

/// A settled order, as far as others want to hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub id: OrderId,
    pub user_id: UserId,
    pub status: OrderStatus,
    pub total_price: i64,
    pub currency: String,
    pub accepted_at: Timestamp,
    pub settled_at: Timestamp,
    pub failure: Option<Failure>,
    /// Settled by this call, not by an earlier one.
    pub newly_settled: bool,
}

/// A product whose stock fell to the low-stock threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LowStock {
    pub product_id: ProductId,
    /// What it fell to.
    pub stock: i64,
    pub since: Timestamp,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    pub settled: Vec<Settled>,
    /// Orders that exist and whose payment nobody accepted. They were left alone.
    pub not_accepted: Vec<OrderId>,
    /// Ids that no order has.
    pub unknown: Vec<OrderId>,
    pub low_stock: Vec<LowStock>,
}

/// Settles the accepted PENDING orders among `ids` in the caller's transaction, and reports those settled before.
/// Running it again with the same ids takes nothing a second time. `low_stock_at` is the number of units at which a
/// product counts as low.
///
/// # Errors
/// The database's.
pub async fn settle(
    txn: &impl ConnectionTrait,
    now: Timestamp,
    ids: &[OrderId],
    low_stock_at: i64,
) -> Result<Settlement, Error> {
    let (rows, lines) = lock_orders(txn, ids).await?;
    let mut settlement = Settlement::default();
    let mut open: HashMap<OrderId, OrderRow> = HashMap::new();
    let mut settled_before: HashSet<OrderId> = HashSet::new();
    settlement.unknown = ids.iter().filter(|id| !rows.contains_key(id)).copied().collect();
    for (id, row) in rows {
        match (row.status, row.accepted_at) {
            (OrderStatus::Pending, Some(_)) => {
                open.insert(id, row);
            }
            (OrderStatus::Pending, None) => settlement.not_accepted.push(id),
            _ => {
                settled_before.insert(id);
                settlement.settled.extend(row.settled_before());
            }
        }
    }
    let claims: Vec<Claim> = lines.claims(&open);
    let mut stock = lock_products(txn, &lines, &open).await?;
    let before: HashMap<ProductId, i64> = stock.iter().map(|(id, shelf)| (*id, *shelf)).collect();
    let decisions = decide(claims, &mut stock);
    let taken: BTreeMap<ProductId, i64> = before
        .iter()
        .map(|(id, shelf)| (*id, shelf - stock[id]))
        .filter(|(_, quantity)| *quantity > 0)
        .collect();
    settlement.low_stock = take_stock(txn, now, &taken, low_stock_at).await?;
    settlement
        .low_stock
        .extend(low_stock_again(txn, &lines, &settled_before).await?);
    write_decisions(txn, now, &decisions).await?;
    settlement.settled.extend(
        decisions
            .into_iter()
            .filter_map(|(id, decision)| Some(open.remove(&id)?.settled_now(now, decision))),
    );
    Ok(settlement)
}

/// The columns of an order that settling it needs.
struct OrderRow {
    id: OrderId,
    user_id: UserId,
    status: OrderStatus,
    total_price: i64,
    currency: String,
    accepted_at: Option<Timestamp>,
    settled_at: Option<Timestamp>,
    failure: Option<Failure>,
}

impl OrderRow {
    fn read(id: OrderId, row: &QueryResult) -> Result<Self, Error> {
        Ok(Self {
            id,
            user_id: row.try_get_by_index(1)?,
            status: row.try_get_by_index(2)?,
            total_price: row.try_get_by_index(3)?,
            currency: row.try_get_by_index(4)?,
            accepted_at: row.try_get_by_index(5)?,
            settled_at: row.try_get_by_index(6)?,
            failure: row.try_get_by_index(7)?,
        })
    }

    fn settled_before(self) -> Option<Settled> {
        Some(Settled {
            id: self.id,
            user_id: self.user_id,
            status: self.status,
            total_price: self.total_price,
            currency: self.currency,
            accepted_at: self.accepted_at?,
            settled_at: self.settled_at?,
            failure: self.failure,
            newly_settled: false,
        })
    }

    fn settled_now(self, now: Timestamp, decision: Decision) -> Settled {
        let (status, total_price, failure) = match decision {
            Decision::Paid { total_price } => (OrderStatus::Paid, total_price, None),
            Decision::Failed(failure) => (OrderStatus::Failed, self.total_price, Some(failure)),
        };
        Settled {
            id: self.id,
            user_id: self.user_id,
            status,
            total_price,
            currency: self.currency,
            accepted_at: self.accepted_at.unwrap_or(now),
            settled_at: now,
            failure,
            newly_settled: true,
        }
    }
}

/// The lines of the orders at hand.
struct Lines(HashMap<OrderId, Vec<ClaimedLine>>);

impl Lines {
    fn claims(&self, open: &HashMap<OrderId, OrderRow>) -> Vec<Claim> {
        let claim = |row: &OrderRow| Claim {
            id: row.id,
            accepted_at: row.accepted_at.unwrap_or(Timestamp(i64::MAX)),
            lines: self.0.get(&row.id).cloned().unwrap_or_default(),
        };
        open.values().map(claim).collect()
    }

    fn products_of<'a>(&self, orders: impl Iterator<Item = &'a OrderId>) -> Vec<ProductId> {
        let mut products: Vec<ProductId> = orders
            .filter_map(|id| self.0.get(id))
            .flatten()
            .map(|line| line.product_id)
            .collect();
        products.sort_unstable();
        products.dedup();
        products
    }
}

/// Locks the orders in id order, as everywhere, and reads them and their lines in one go.
async fn lock_orders(
    txn: &impl ConnectionTrait,
    ids: &[OrderId],
) -> Result<(HashMap<OrderId, OrderRow>, Lines), Error> {
    let select = Sql::new(
        txn.get_database_backend(),
        "SELECT o.id, o.user_id, o.status, o.total_price, o.currency, o.accepted_at, o.settled_at, o.failure, \
                i.product_id, i.quantity, i.unit_price \
         FROM orders o LEFT JOIN order_items i ON i.order_id = o.id WHERE o.id IN (SELECT t.id FROM ",
    )
    .rows("t", [("id", Column::Uuid(ids.to_vec()))])
    .push(") ORDER BY o.id, i.id")
    .for_update_of("o");
    let mut orders = HashMap::with_capacity(ids.len());
    let mut lines: HashMap<OrderId, Vec<ClaimedLine>> = HashMap::with_capacity(ids.len());
    for row in txn.query_all_raw(select.build()).await? {
        let id = row.try_get_by_index(0)?;
        if let Entry::Vacant(vacant) = orders.entry(id) {
            vacant.insert(OrderRow::read(id, &row)?);
        }
        let product_id: Option<ProductId> = row.try_get_by_index(8)?;
        if let Some(product_id) = product_id {
            lines.entry(id).or_default().push(ClaimedLine {
                product_id,
                quantity: row.try_get_by_index(9)?,
                unit_price: row.try_get_by_index(10)?,
            });
        }
    }
    Ok((orders, Lines(lines)))
}

/// Locks the products of the open orders, in id order as everywhere, and reads what is on their shelves.
async fn lock_products(
    txn: &impl ConnectionTrait,
    lines: &Lines,
    open: &HashMap<OrderId, OrderRow>,
) -> Result<HashMap<ProductId, i64>, Error> {
    let products = lines.products_of(open.keys());
    if products.is_empty() {
        return Ok(HashMap::new());
    }
    let select = Sql::new(
        txn.get_database_backend(),
        "SELECT id, stock FROM products WHERE id IN (SELECT t.id FROM ",
    )
    .rows("t", [("id", Column::BigInt(products))])
    .push(") ORDER BY id")
    .for_update();
    let rows = txn.query_all_raw(select.build()).await?;
    Ok(rows
        .iter()
        .map(QueryResult::try_get_many_by_index)
        .collect::<Result<_, _>>()?)
}

/// Takes stock relative to what is there, and answers which products this made low.
async fn take_stock(
    txn: &impl ConnectionTrait,
    now: Timestamp,
    taken: &BTreeMap<ProductId, i64>,
    low_stock_at: i64,
) -> Result<Vec<LowStock>, Error> {
    if taken.is_empty() {
        return Ok(Vec::new());
    }
    let columns = [
        ("product_id", Column::BigInt(taken.keys().copied().collect())),
        ("quantity", Column::BigInt(taken.values().copied().collect())),
    ];
    let update = Sql::new(
        txn.get_database_backend(),
        "UPDATE products SET stock = stock - t.quantity, low_since = CASE WHEN stock - t.quantity > ",
    )
    .bind(low_stock_at)
    .push(" THEN NULL ELSE COALESCE(low_since, ")
    .bind(now)
    .push(") END, low_stock = CASE WHEN stock - t.quantity > ")
    .bind(low_stock_at)
    .push(" THEN NULL WHEN low_since IS NULL THEN stock - t.quantity ELSE low_stock END FROM ")
    .rows("t", columns)
    .push(" WHERE id = t.product_id RETURNING id, COALESCE(low_stock, stock), low_since");
    let rows = txn.query_all_raw(update.build()).await?;
    let low = rows.iter().map(read_low_stock).collect::<Result<Vec<_>, Error>>()?;
    Ok(low
        .into_iter()
        .flatten()
        .filter(|product| product.since == now)
        .collect())
}

/// An order that was settled before comes back when a worker died between the commit and the acknowledgement; what it
/// had to say about low stock is said again too.
async fn low_stock_again(
    txn: &impl ConnectionTrait,
    lines: &Lines,
    settled_before: &HashSet<OrderId>,
) -> Result<Vec<LowStock>, Error> {
    let products = lines.products_of(settled_before.iter());
    if products.is_empty() {
        return Ok(Vec::new());
    }
    let select = Sql::new(
        txn.get_database_backend(),
        "SELECT id, COALESCE(low_stock, stock), low_since FROM products WHERE low_since IS NOT NULL AND id IN (SELECT t.id FROM ",
    )
    .rows("t", [("id", Column::BigInt(products))])
    .push(")");
    let rows = txn.query_all_raw(select.build()).await?;
    let low = rows.iter().map(read_low_stock).collect::<Result<Vec<_>, Error>>()?;
    Ok(low.into_iter().flatten().collect())
}

fn read_low_stock(row: &QueryResult) -> Result<Option<LowStock>, Error> {
    let since: Option<Timestamp> = row.try_get_by_index(2)?;
    let Some(since) = since else { return Ok(None) };
    Ok(Some(LowStock {
        product_id: row.try_get_by_index(0)?,
        stock: row.try_get_by_index(1)?,
        since,
    }))
}

async fn write_decisions(
    txn: &impl ConnectionTrait,
    now: Timestamp,
    decisions: &[(OrderId, Decision)],
) -> Result<(), Error> {
    let mut paid = (Vec::new(), Vec::new());
    let mut failed = (Vec::new(), Vec::new());
    for (id, decision) in decisions {
        match decision {
            Decision::Paid { total_price } => {
                paid.0.push(*id);
                paid.1.push(*total_price);
            }
            Decision::Failed(failure) => {
                failed.0.push(*id);
                let failure = serde_json::to_string(failure).map_err(|error| Error::Internal(error.to_string()))?;
                failed.1.push(failure);
            }
        }
    }
    let backend = txn.get_database_backend();
    if !paid.0.is_empty() {
        let update = Sql::new(
            backend,
            "UPDATE orders SET status = 'PAID', total_price = t.total_price, settled_at = ",
        )
        .bind(now)
        .push(" FROM ")
        .rows(
            "t",
            [("id", Column::Uuid(paid.0)), ("total_price", Column::BigInt(paid.1))],
        )
        .push(" WHERE orders.id = t.id");
        txn.execute_raw(update.build()).await?;
    }
    if !failed.0.is_empty() {
        let update = Sql::new(
            backend,
            "UPDATE orders SET status = 'FAILED', failure = t.failure, settled_at = ",
        )
        .bind(now)
        .push(" FROM ")
        .rows(
            "t",
            [("id", Column::Uuid(failed.0)), ("failure", Column::Json(failed.1))],
        )
        .push(" WHERE orders.id = t.id");
        txn.execute_raw(update.build()).await?;
    }
    Ok(())
}
