//! Settling paid orders. [`settle()`] is the transaction: it locks and reads, lets [`decide()`] say what happens, and writes
//! that.

use std::collections::{BTreeMap, HashMap};

use sea_orm::DatabaseTransaction;

use super::{
    Error, OrderId, ProductId, UserId,
    stock_level::{self, StockLevel},
    transition::{Action, Change, Refusal, transition},
};
use crate::entities::{
    Timestamp,
    order::{OrderStatus, StoredFailure},
};

mod decide;
mod events;
mod low_stock;
mod rows;
mod write;

pub use decide::{Claim, ClaimedLine, Decision, decide};
use low_stock::{Taken, low_stock_again, take_stock};
use rows::{Lines, OrderRow, lock_orders, read_lines};
use write::write_decisions;

/// The parts of a settled order that its event contains. Cancelled and expired orders are settled too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub id: OrderId,
    pub user_id: UserId,
    pub status: OrderStatus,
    pub total_price: i64,
    pub currency: String,
    /// `None` for an order that was cancelled or expired.
    pub accepted_at: Option<Timestamp>,
    pub settled_at: Timestamp,
    pub failure: Option<StoredFailure>,
    /// Settled by this call, not by an earlier one.
    pub newly_settled: bool,
}

/// A product whose stock fell to the low-stock threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LowStock {
    pub product_id: ProductId,
    /// Units that were left then.
    pub stock: i64,
    pub since: Timestamp,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlement {
    pub settled: Vec<Settled>,
    /// Orders that exist and whose payment was never accepted. They were left alone.
    pub not_accepted: Vec<OrderId>,
    /// Ids that no order has.
    pub unknown: Vec<OrderId>,
    pub low_stock: Vec<LowStock>,
}

/// Settles the accepted PENDING orders among `ids`, and reports those that were settled before. Running it again with the
/// same ids takes nothing a second time. `low_stock_at` is the number of units at which a product counts as low.
pub async fn settle(
    txn: &DatabaseTransaction,
    now: Timestamp,
    ids: &[OrderId],
    low_stock_at: i64,
) -> Result<Settlement, Error> {
    let rows = lock_orders(txn, ids).await?;
    let lines = read_lines(txn, rows.keys()).await?;
    let mut settlement = Settlement {
        unknown: ids.iter().filter(|id| !rows.contains_key(id)).copied().collect(),
        ..Settlement::default()
    };
    let mut open = sort_out(rows, now, &mut settlement);

    let settled_before: Vec<OrderId> = settlement.settled.iter().map(|order| order.id).collect();
    let levels = stock_level::lock(txn, lines.products_of(open.keys())).await?;
    let mut left = levels.clone();
    let decisions = decide(claims(&open, &lines), &mut left);

    let taken = taken_from(&levels, &left);
    settlement.low_stock = take_stock(txn, now, &taken, low_stock_at).await?;
    let again = low_stock_again(txn, lines.products_of(settled_before.iter())).await?;
    settlement.low_stock.extend(again);
    write_decisions(txn, now, &decisions).await?;

    let settled_now = |(id, decision)| Some(open.remove(&id)?.settled_now(now, decision));
    settlement.settled.extend(decisions.into_iter().filter_map(settled_now));
    Ok(settlement)
}

/// Gives back the orders that are to be settled, and notes what becomes of the others.
fn sort_out(
    rows: HashMap<OrderId, OrderRow>,
    now: Timestamp,
    settlement: &mut Settlement,
) -> HashMap<OrderId, OrderRow> {
    let mut open = HashMap::with_capacity(rows.len());
    for (id, row) in rows {
        match transition(&row.state(), Action::Settle, now) {
            Ok(Change::Settle) => {
                open.insert(id, row);
            }
            Ok(_) => settlement.settled.extend(row.settled_before()),
            Err(Refusal::UnknownStatus(status)) => {
                tracing::warn!(order_id = %id, status, "left an order alone whose status this version does not know");
            }
            Err(_) => settlement.not_accepted.push(id),
        }
    }
    open
}

fn claims(open: &HashMap<OrderId, OrderRow>, lines: &Lines) -> Vec<Claim> {
    let claim = |row: &OrderRow| Claim {
        id: row.id,
        // Never missing: `sort_out` keeps accepted orders only.
        accepted_at: row.accepted_at.unwrap_or(Timestamp(i64::MAX)),
        has_hold: row.expires_at.is_some(),
        lines: lines.of(row.id),
    };
    open.values().map(claim).collect()
}

/// Units taken of each product and no longer on hold; products that stay as they are are left out.
fn taken_from(
    levels: &HashMap<ProductId, StockLevel>,
    left: &HashMap<ProductId, StockLevel>,
) -> BTreeMap<ProductId, Taken> {
    let taken = |(id, before): (&ProductId, &StockLevel)| {
        let taken = Taken {
            stock: before.stock - left[id].stock,
            released: before.held - left[id].held,
        };
        (*id, taken)
    };
    let all = levels.iter().map(taken);
    all.filter(|(_, taken)| *taken != Taken::default()).collect()
}
