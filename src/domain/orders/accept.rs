//! Accepting payments: the acceptance is written to the order's own row, once, and in time if the order has a hold.

use std::collections::BTreeSet;

use sea_orm::DatabaseTransaction;

use super::{NOTIFY_AFTER, Order, close, find::find_all};
use crate::{
    db::sql::{Column, sql},
    domain::{
        Caller, Error, OrderId,
        transition::{Action, Change, transition},
    },
    entities::{Timestamp, order::FailureReason},
};

/// Accepts the payment of those orders that are PENDING and that their caller may see. The first acceptance stands,
/// however often it is asked for. An order whose hold has ended is expired instead: whoever is answered so is never
/// contradicted. Answers with each order as it is now, in the order of `asked`.
///
/// # Errors
/// For one order: [`Error::OrderNotFound`], also when the caller may not see it. For all: the database's.
pub async fn accept_payments(
    txn: &DatabaseTransaction,
    now: Timestamp,
    asked: &[(Caller, OrderId)],
) -> Result<Vec<Result<Order, Error>>, Error> {
    let ids: Vec<OrderId> = asked.iter().map(|(_, id)| *id).collect();
    let mut orders = find_all(txn, &ids).await?;

    let becomes = |change: Change| -> BTreeSet<OrderId> {
        let is_changed = |caller: &Caller, order: &Order| {
            let row = &order.row;
            caller.can_view(row.user_id) && transition(&row.into(), Action::Pay, now) == Ok(change)
        };
        let asked = asked.iter();
        let changed = asked.filter(|(caller, id)| orders.get(id).is_some_and(|order| is_changed(caller, order)));
        changed.map(|(_, id)| *id).collect()
    };
    let (payable, past) = (becomes(Change::Accept), becomes(Change::Close(FailureReason::Expired)));

    if !past.is_empty() {
        close::expire(txn, now, payable.union(&past).copied().collect()).await?;
    }
    let accepted = write_acceptance(txn, now, payable.iter().copied().collect()).await?;
    if past.is_empty() && accepted == payable.len() as u64 {
        for row in orders
            .values_mut()
            .map(|order| &mut order.row)
            .filter(|row| payable.contains(&row.id))
        {
            row.accepted_at = Some(now);
            row.notify_after = Some(now.plus(NOTIFY_AFTER));
            row.updated_at = now;
        }
    } else {
        // Another transaction was faster with some of them.
        orders = find_all(txn, &ids).await?;
    }

    let answer = |(caller, id): &(Caller, OrderId)| {
        let order = orders.get(id).filter(|order| caller.can_view(order.row.user_id));
        order.cloned().ok_or(Error::OrderNotFound(*id))
    };
    Ok(asked.iter().map(answer).collect())
}

/// Answers how many of the orders were accepted just now. Rows are locked in id order, as everywhere; an UPDATE alone
/// would lock them in the order in which it happens to find them.
async fn write_acceptance(txn: &DatabaseTransaction, now: Timestamp, ids: Vec<OrderId>) -> Result<u64, Error> {
    if ids.is_empty() {
        return Ok(0);
    }

    let accepted = sql("
        WITH payable AS (
            SELECT id
              FROM orders
             WHERE id = ANY(:ids) AND status = 'PENDING' AND accepted_at IS NULL
             ORDER BY id
               FOR NO KEY UPDATE
        )
        UPDATE orders
           SET accepted_at = :now, notify_after = :notify_after, updated_at = :now
         WHERE id IN (SELECT id FROM payable)")
    .list("ids", Column::Uuid(ids))
    .timestamp("now", now)
    .timestamp("notify_after", now.plus(NOTIFY_AFTER))
    .execute(txn)
    .await?;
    Ok(accepted)
}
