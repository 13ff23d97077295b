//! Accepting payments: the acceptance is written to the order's own row, once, and in time if the order has a hold.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::DatabaseTransaction;

use super::{NOTIFY_AFTER, Order, Payment, charge::Charges, close, find::find_all};
use crate::{
    db::{
        self,
        sql::{Column, sql},
    },
    domain::{
        Error, OrderId,
        transition::{Action, Change, transition},
    },
    entities::{
        Timestamp,
        order::{FailureReason, OrderStatus},
    },
};

/// The orders to accept, each with the charge that pays it, if that is known.
type Accepted<'a> = BTreeMap<OrderId, Option<&'a String>>;

/// Accepts the payment of those orders that are PENDING and that their caller may see. The first acceptance stands,
/// however often it is asked for. An order whose hold has ended is expired instead: whoever is answered so is never
/// contradicted. Returns each order as it is now, in the order of `asked`.
///
/// # Errors
/// For one order: [`Error::OrderNotFound`], also when the caller may not see it, and [`Error::PaymentReferenceUsed`]. For
/// all: the database's.
pub async fn accept_payments(
    txn: &DatabaseTransaction,
    now: Timestamp,
    asked: &[Payment],
) -> Result<Vec<Result<Order, Error>>, Error> {
    let ids: Vec<OrderId> = asked.iter().map(|payment| payment.order_id).collect();
    let mut orders = find_all(txn, &ids).await?;
    let mut charges = Charges::read(txn, asked).await?;

    let becomes = |change: Change| {
        let is_changed = move |payment: &Payment, order: &Order| {
            let row = &order.row;
            payment.caller.can_view(row.user_id) && transition(&row.into(), Action::Pay, now) == Ok(change)
        };
        let orders = &orders;
        asked.iter().filter(move |payment| {
            let order = orders.get(&payment.order_id);
            order.is_some_and(|order| is_changed(payment, order))
        })
    };
    let payable: Accepted = charges.assign(becomes(Change::Accept));
    let past = becomes(Change::Close(FailureReason::Expired)).map(|payment| payment.order_id);
    let past: BTreeSet<OrderId> = past.collect();

    if !past.is_empty() {
        let ids = payable.keys().chain(&past).copied().collect::<BTreeSet<OrderId>>();
        close::expire(txn, now, ids.into_iter().collect()).await?;
    }
    let accepted = write(txn, now, &payable).await?;
    if past.is_empty() && accepted == payable.len() as u64 {
        for (id, charge) in &payable {
            if let Some(order) = orders.get_mut(id) {
                order.row.accepted_at = Some(now);
                order.row.payment_reference = charge.cloned();
                order.row.notify_after = Some(now.plus(NOTIFY_AFTER));
                order.row.updated_at = now;
            }
        }
    } else {
        // Another transaction was faster with some of them.
        orders = find_all(txn, &ids).await?;
    }

    let answer = |payment: &Payment| {
        let order = orders.get(&payment.order_id);
        let order = order.filter(|order| payment.caller.can_view(order.row.user_id));
        let order = order.ok_or(Error::OrderNotFound(payment.order_id))?;
        let is_failed = !matches!(order.row.status, OrderStatus::Pending | OrderStatus::Paid);
        match &payment.reference {
            Some(reference) if charges.is_used_up(payment) && !is_failed => {
                Err(Error::PaymentReferenceUsed(reference.clone()))
            }
            _ => Ok(order.clone()),
        }
    };
    Ok(asked.iter().map(answer).collect())
}

/// Returns how many of the orders were accepted just now.
async fn write(txn: &DatabaseTransaction, now: Timestamp, accepted: &Accepted<'_>) -> Result<u64, Error> {
    if accepted.is_empty() {
        return Ok(0);
    }
    match accepted.values().flatten().next() {
        None => write_acceptance(txn, now, accepted.keys().copied().collect()).await,
        Some(charge) => write_with_charges(txn, now, accepted)
            .await
            .map_err(|error| match error {
                // Another transaction has used it since it was read. Alone, each payment finds out which one it is.
                error if db::is_unique_violation(&error) => Error::PaymentReferenceUsed((*charge).clone()),
                error => error.into(),
            }),
    }
}

/// Rows are locked in id order, as everywhere; an UPDATE alone would lock them in the order in which it happens to find
/// them.
async fn write_acceptance(txn: &DatabaseTransaction, now: Timestamp, ids: Vec<OrderId>) -> Result<u64, Error> {
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

/// As [`write_acceptance`], and writes the charges.
async fn write_with_charges(
    txn: &DatabaseTransaction,
    now: Timestamp,
    accepted: &Accepted<'_>,
) -> Result<u64, sea_orm::DbErr> {
    let ids: Vec<OrderId> = accepted.keys().copied().collect();
    let charges = accepted.values().map(|charge| charge.cloned().unwrap_or_default());

    sql("
        WITH payable AS (
            SELECT id
              FROM orders
             WHERE id = ANY(:ids) AND status = 'PENDING' AND accepted_at IS NULL
             ORDER BY id
               FOR NO KEY UPDATE
        )
        UPDATE orders
           SET accepted_at = :now, payment_reference = NULLIF(charges.reference, ''), notify_after = :notify_after,
               updated_at = :now
          FROM :charges
         WHERE orders.id = charges.order_id AND orders.id = ANY(:locked) AND orders.id IN (SELECT id FROM payable)")
    .list("ids", Column::Uuid(ids.clone()))
    .planner_list("locked", Column::Uuid(ids.clone()))
    .table(
        "charges",
        [
            ("order_id", Column::Uuid(ids)),
            ("reference", Column::Text(charges.collect())),
        ],
    )
    .timestamp("now", now)
    .timestamp("notify_after", now.plus(NOTIFY_AFTER))
    .execute(txn)
    .await
}
