//! Ending an order without a payment: it is cancelled, or its hold has expired. In one transaction the order becomes FAILED,
//! its units are available again, and its event is stored. Pay, cancel and expiry race for the row: whoever locks it first
//! and finds it open wins, and the others answer what they then see.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};

use super::{
    Order,
    find::{add_items, read_order},
};
use crate::{
    db::sql::{Column, sql},
    domain::{
        Caller, Error, OrderId, ProductId, outbox,
        settlement::Settled,
        stock_level,
        transition::{Action, Change, Refusal, transition},
    },
    entities::{
        Timestamp,
        order::{self, Failure, FailureReason, OrderStatus},
    },
};

/// The most orders that are logged because they cannot be read.
const MAX_LOGGED: usize = 1_000;

/// The answer to a request to cancel an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancelled {
    pub order: Order,
    /// Cancelled by this request, not by an earlier one.
    pub newly_cancelled: bool,
}

/// What became of orders whose hold has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// When the hold of each order ended that is expired now.
    pub ended: Vec<Timestamp>,
    /// Orders that cannot be expired.
    pub left_alone: Vec<OrderId>,
}

/// Cancels those orders that no payment was accepted for and that their caller may see. Returns results in the order of `asked`.
///
/// # Errors
/// For one order: [`Error::OrderNotFound`], also when the caller may not see it, [`Error::PaymentAccepted`],
/// [`Error::OrderPaid`], [`Error::OrderFailed`] for another reason. For all: the database's.
pub async fn cancel(
    txn: &DatabaseTransaction,
    now: Timestamp,
    asked: &[(Caller, OrderId)],
) -> Result<Vec<Result<Cancelled, Error>>, Error> {
    let mut rows = lock(txn, asked.iter().map(|(_, id)| *id).collect()).await?;

    let may_cancel = |row: &order::Model| {
        let mut callers = asked.iter().filter(|(_, id)| *id == row.id).map(|(caller, _)| caller);
        callers.any(|caller| caller.can_view(row.user_id))
    };
    let cancels = |row: &order::Model| {
        may_cancel(row) && transition(&row.into(), Action::Cancel, now) == Ok(Change::Close(FailureReason::Cancelled))
    };
    let open: Vec<&mut order::Model> = rows.iter_mut().filter(|row| cancels(row)).collect();
    close(txn, now, open, FailureReason::Cancelled).await?;

    let orders = add_items(txn, rows).await?;
    let answer = |(caller, id): &(Caller, OrderId)| {
        let order = orders.get(id).filter(|order| caller.can_view(order.row.user_id));
        let order = order.cloned().ok_or(Error::OrderNotFound(*id))?;
        refuse(&order, now)?;
        let newly_cancelled = order.row.settled_at == Some(now);
        Ok(Cancelled { order, newly_cancelled })
    };
    Ok(asked.iter().map(answer).collect())
}

/// Why an order was not cancelled, if it was not.
fn refuse(order: &Order, now: Timestamp) -> Result<(), Error> {
    let (id, failure) = (order.row.id, &order.row.failure);
    match transition(&(&order.row).into(), Action::Cancel, now) {
        Ok(_) => Ok(()),
        Err(Refusal::PaymentAccepted) => Err(Error::PaymentAccepted(id)),
        Err(Refusal::Paid) => Err(Error::OrderPaid(id)),
        Err(_) => Err(Error::OrderFailed(id, failure.clone())),
    }
}

/// Whether any hold has ended at `now` without a payment. Locks nothing.
pub async fn is_any_expired(connection: &impl ConnectionTrait, now: Timestamp) -> Result<bool, Error> {
    let ended: Vec<OrderId> = sql("
        SELECT id
          FROM orders
         WHERE settled_at IS NULL AND accepted_at IS NULL AND expires_at <= :now
         ORDER BY expires_at
         LIMIT 1")
    .timestamp("now", now)
    .scalars(connection)
    .await?;
    Ok(!ended.is_empty())
}

/// How many holds wait for a payment or for their end.
pub async fn count_open_holds(connection: &impl ConnectionTrait) -> Result<i64, Error> {
    let counted: Vec<i64> = sql("
        SELECT COUNT(*)
          FROM orders
         WHERE settled_at IS NULL AND accepted_at IS NULL AND expires_at IS NOT NULL")
    .scalars(connection)
    .await?;
    Ok(counted.first().copied().unwrap_or_default())
}

/// Expires up to `limit` orders whose hold has ended at `now` without a payment. Orders that another transaction has locked are
/// left to the next call. What cannot be read, or has a status that this version does not know, is left alone, so that it keeps
/// nobody else's units on hold. It stays among the first whose hold has ended: `passed_over` are such orders of earlier calls.
pub async fn expire_due(
    txn: &DatabaseTransaction,
    now: Timestamp,
    limit: i64,
    passed_over: &[OrderId],
) -> Result<Expired, Error> {
    let due = sql("
        SELECT id, user_id, status, total_price, currency, idempotency_key, expires_at, accepted_at, notify_after,
               CAST(notify_attempts AS bigint), settled_at, failure, reference, metadata, payment_reference,
               created_at, updated_at
          FROM orders
         WHERE settled_at IS NULL AND accepted_at IS NULL AND expires_at <= :now AND NOT id = ANY(:passed_over)
         ORDER BY expires_at
         LIMIT :limit
           FOR NO KEY UPDATE SKIP LOCKED")
    .timestamp("now", now)
    .bind("limit", limit)
    .list("passed_over", Column::Uuid(passed_over.to_vec()))
    .rows(txn, |row| Ok((row.try_get_by_index(0)?, read_order(row, 0))))
    .await?;

    let (mut rows, mut left_alone) = (Vec::with_capacity(due.len()), Vec::new());
    for (id, read) in due {
        match read {
            Ok(row) if transition(&(&row).into(), Action::Expire, now) == Ok(Change::Close(FailureReason::Expired)) => {
                rows.push(row);
            }
            Ok(_) => left_alone.push(id),
            Err(error) => {
                log_unreadable(id, &error);
                left_alone.push(id);
            }
        }
    }

    close(txn, now, rows.iter_mut().collect(), FailureReason::Expired).await?;
    Ok(Expired {
        ended: rows.iter().filter_map(|row| row.expires_at).collect(),
        left_alone,
    })
}

/// Logs an order that cannot be read, once: the expiry finds it twice a second.
fn log_unreadable(id: OrderId, error: &DbErr) {
    static LOGGED: Mutex<BTreeSet<OrderId>> = Mutex::new(BTreeSet::new());
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);

    if logged.len() < MAX_LOGGED && logged.insert(id) {
        tracing::error!(%error, what = "orders", order_id = %id, "left out a row that cannot be read");
    } else {
        tracing::debug!(%error, what = "orders", order_id = %id, "still left out a row that cannot be read");
    }
}

/// Expires those of `ids` whose hold has ended at `now` without a payment. Locks all of `ids`, which may hold further orders
/// that the transaction goes on to change: locks are taken in id order once.
pub(super) async fn expire(txn: &DatabaseTransaction, now: Timestamp, ids: Vec<OrderId>) -> Result<(), Error> {
    let mut rows = lock(txn, ids).await?;
    let is_past =
        |row: &order::Model| transition(&row.into(), Action::Expire, now) == Ok(Change::Close(FailureReason::Expired));

    let past: Vec<&mut order::Model> = rows.iter_mut().filter(|row| is_past(row)).collect();
    close(txn, now, past, FailureReason::Expired).await
}

/// Locks the orders in id order, as everywhere, and reads them.
async fn lock(txn: &DatabaseTransaction, ids: Vec<OrderId>) -> Result<Vec<order::Model>, Error> {
    let rows = sql("
        SELECT id, user_id, status, total_price, currency, idempotency_key, expires_at, accepted_at, notify_after,
               CAST(notify_attempts AS bigint), settled_at, failure, reference, metadata, payment_reference,
               created_at, updated_at
          FROM orders
         WHERE id = ANY(:ids)
         ORDER BY id
           FOR NO KEY UPDATE")
    .list("ids", Column::Uuid(ids))
    .rows(txn, |row| read_order(row, 0))
    .await?;
    Ok(rows)
}

/// Makes locked orders that are open FAILED.
async fn close(
    txn: &DatabaseTransaction,
    now: Timestamp,
    mut rows: Vec<&mut order::Model>,
    reason: FailureReason,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let failure = Failure {
        reason,
        lines: Vec::new(),
    };
    for row in &mut rows {
        row.status = OrderStatus::Failed;
        row.failure = Some(failure.clone().into());
        row.settled_at = Some(now);
        row.updated_at = now;
    }

    write_failure(txn, now, &rows, &failure).await?;
    let held = rows.iter().filter(|row| row.expires_at.is_some());
    let units = held_units(txn, held.map(|row| row.id).collect()).await?;
    stock_level::release(txn, &units).await?;

    let events = rows.iter().map(|row| closed(row, now).event());
    outbox::store(txn, now, &events.collect::<Vec<_>>()).await
}

async fn write_failure(
    txn: &DatabaseTransaction,
    now: Timestamp,
    rows: &[&mut order::Model],
    failure: &Failure,
) -> Result<(), Error> {
    let failure = serde_json::to_value(failure).map_err(|error| Error::Internal(error.to_string()))?;

    let written = sql("
        UPDATE orders
           SET status = 'FAILED', failure = :failure, settled_at = :now, updated_at = :now,
               ledger_period = (SELECT period FROM ledger)
         WHERE id = ANY(:ids) AND status = 'PENDING' AND accepted_at IS NULL")
    .bind("failure", failure)
    .timestamp("now", now)
    .list("ids", Column::Uuid(rows.iter().map(|row| row.id).collect()))
    .execute(txn)
    .await?;

    if written == rows.len() as u64 {
        return Ok(());
    }
    Err(Error::Internal("an order changed although it was locked".to_owned()))
}

/// The units that these orders hold, by product.
async fn held_units(txn: &DatabaseTransaction, orders: Vec<OrderId>) -> Result<BTreeMap<ProductId, i64>, Error> {
    if orders.is_empty() {
        return Ok(BTreeMap::new());
    }

    let units: Vec<(ProductId, i64)> = sql("
        SELECT product_id, CAST(SUM(quantity) AS bigint)
          FROM order_items
         WHERE order_id = ANY(:orders)
         GROUP BY product_id
         ORDER BY product_id")
    .list("orders", Column::Uuid(orders))
    .tuples(txn)
    .await?;
    Ok(units.into_iter().collect())
}

fn closed(row: &order::Model, now: Timestamp) -> Settled {
    Settled {
        id: row.id,
        user_id: row.user_id,
        status: row.status,
        total_price: row.total_price,
        currency: row.currency.clone(),
        accepted_at: None,
        settled_at: now,
        failure: row.failure.clone(),
        newly_settled: true,
    }
}
