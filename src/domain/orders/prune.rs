//! Deleting old orders, so that the database need not keep them for ever. The ledger stays provable: what deleted PAID orders
//! have sold becomes a stock movement, in the transaction that deletes them.

use std::{collections::BTreeSet, ops::AddAssign};

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use crate::{
    db::sql::{Column, sql},
    domain::{Error, OrderId, ids::first_id_at},
    entities::{Timestamp, order::OrderStatus},
};

/// The most orders that one transaction deletes, so that it takes a fraction of a second.
const BATCH: i64 = 1_000;

/// What is old: orders that were settled and made before `:cutoff`, unless they were refunded since, and orders that were made
/// before it and that nobody has paid. An order that was accepted and is not settled, or that has an open hold, is
/// never old. Nor is one whose status this version does not know. It is left out after it was read: by a condition on the status
/// both databases would look orders up by their status, and read all old ones for each batch.
macro_rules! is_old {
    () => {
        "id < :cutoff_id
         AND (settled_at < :cutoff OR (settled_at IS NULL AND accepted_at IS NULL AND expires_at IS NULL))
         AND NOT EXISTS (SELECT 1 FROM refunds WHERE refunds.order_id = orders.id AND refunds.created_at >= :cutoff)"
    };
}

/// Old orders by their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldOrders {
    pub paid: u64,
    pub failed: u64,
    /// PENDING, and never paid.
    pub unpaid: u64,
}

impl OldOrders {
    fn add(&mut self, status: OrderStatus, orders: u64) {
        match status {
            OrderStatus::Paid => self.paid += orders,
            OrderStatus::Failed => self.failed += orders,
            OrderStatus::Pending => self.unpaid += orders,
            OrderStatus::Other(_) => {}
        }
    }
}

impl AddAssign for OldOrders {
    fn add_assign(&mut self, more: Self) {
        self.paid += more.paid;
        self.failed += more.failed;
        self.unpaid += more.unpaid;
    }
}

/// What one transaction has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrunedBatch {
    pub deleted: OldOrders,
    /// The next transaction goes on after this order.
    pub last: OrderId,
}

/// How many orders are older than `cutoff`. Reads all orders.
pub async fn count_old(connection: &impl ConnectionTrait, cutoff: Timestamp) -> Result<OldOrders, Error> {
    let orders: Vec<(OrderStatus, i64)> = sql(concat!(
        "SELECT status, COUNT(*) FROM orders WHERE ",
        is_old!(),
        " GROUP BY status"
    ))
    .timestamp("cutoff", cutoff)
    .bind("cutoff_id", first_id_at(cutoff))
    .tuples(connection)
    .await?;

    let mut old = OldOrders::default();
    for (status, orders) in orders {
        old.add(status, u64::try_from(orders).unwrap_or_default());
    }
    Ok(old)
}

/// Deletes orders that are older than `cutoff`: the first thousand with an id above `after`. `None` if there are none. Leaves
/// the ledger as right as it was.
pub async fn delete_old(
    txn: &DatabaseTransaction,
    now: Timestamp,
    cutoff: Timestamp,
    after: OrderId,
) -> Result<Option<PrunedBatch>, Error> {
    let mut orders: Vec<(OrderId, OrderStatus)> = sql(concat!(
        "SELECT id, status FROM orders WHERE id > :after AND ",
        is_old!(),
        " ORDER BY id LIMIT :limit FOR NO KEY UPDATE"
    ))
    .bind("after", after)
    .bind("limit", BATCH)
    .timestamp("cutoff", cutoff)
    .bind("cutoff_id", first_id_at(cutoff))
    .tuples(txn)
    .await?;
    let Some((last, _)) = orders.last().copied() else {
        return Ok(None);
    };
    let refunded = refunded_since(txn, cutoff, &orders).await?;
    orders.retain(|(id, status)| !matches!(status, OrderStatus::Other(_)) && !refunded.contains(id));

    let ids = |status: Option<OrderStatus>| {
        let matching = orders
            .iter()
            .filter(|(_, own)| status.is_none_or(|status| *own == status));
        Column::Uuid(matching.map(|(id, _)| *id).collect())
    };
    carry_over(txn, now, ids(Some(OrderStatus::Paid))).await?;
    for delete in [
        "DELETE FROM refund_items WHERE refund_id IN (SELECT id FROM refunds WHERE order_id = ANY(:ids))",
        "DELETE FROM refunds WHERE order_id = ANY(:ids)",
        "DELETE FROM order_items WHERE order_id = ANY(:ids)",
        "DELETE FROM orders WHERE id = ANY(:ids)",
    ] {
        sql(delete).list("ids", ids(None)).execute(txn).await?;
    }

    let mut deleted = OldOrders::default();
    for (_, status) in &orders {
        deleted.add(*status, 1);
    }
    Ok(Some(PrunedBatch { deleted, last }))
}

/// Those of these locked orders that have a young refund after all. A refund locks its order and does not change it, so
/// PostgreSQL does not look again at an order whose lock it has waited for; only a later statement sees that refund. None is
/// made from now on.
async fn refunded_since(
    txn: &DatabaseTransaction,
    cutoff: Timestamp,
    locked: &[(OrderId, OrderStatus)],
) -> Result<BTreeSet<OrderId>, Error> {
    let refunded: Vec<OrderId> = sql("
        SELECT order_id
          FROM refunds
         WHERE order_id = ANY(:ids) AND created_at >= :cutoff")
    .list("ids", Column::Uuid(locked.iter().map(|(id, _)| *id).collect()))
    .timestamp("cutoff", cutoff)
    .scalars(txn)
    .await?;
    Ok(refunded.into_iter().collect())
}

/// What these orders have sold is from now on a movement of its products. The totals of the last periodic check count it
/// as sold, so the next check reads everything. Orders that have sold nothing are in no totals, and the check goes on from them.
async fn carry_over(txn: &DatabaseTransaction, now: Timestamp, paid: Column) -> Result<(), Error> {
    let carried_over = sql("
        INSERT INTO stock_movements (product_id, delta, reason, created_at)
        SELECT product_id, CAST(-SUM(quantity) AS bigint), 'sold in old orders that were deleted', :now
          FROM order_items
         WHERE order_id = ANY(:paid)
         GROUP BY product_id")
    .timestamp("now", now)
    .list("paid", paid)
    .execute(txn)
    .await?;

    if carried_over > 0 {
        sql("UPDATE ledger SET is_clean = false").execute(txn).await?;
    }
    Ok(())
}
