//! Where the periodic check goes on: the row of the table `ledger`, and the units that clean checks have added up, in the table
//! `ledger_totals`.
//!
//! Settlement writes the number of the current *period* to each order that it settles, and a trigger writes it to each refund. A
//! check opens the next period first. The earlier ones are *closed* when every transaction has ended that may have read an
//! earlier number: nothing is added to them any more, and a clean check adds them to the totals. docs/adr/0021 proves that
//! no order is counted twice or never.

use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, FromQueryResult};

use super::{Error, Lease, ProductId, Report};
use crate::{
    db::{
        in_flight,
        sql::{Column, sql},
    },
    entities::Timestamp,
};

/// What the last check found, whichever process made it.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct LastCheck {
    /// `None` before the first.
    pub checked_at: Option<Timestamp>,
    pub stock_discrepancies: i64,
    pub hold_discrepancies: i64,
    pub order_discrepancies: i64,
    pub overdue: i64,
}

/// A check that was made, and what the next one can go on from if it was clean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub report: Report,
    /// Whether it read everything, or only what has changed since the last clean check.
    pub is_full: bool,
    pub(super) base: Base,
}

/// Sums up to a mark before which nothing is added any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub mark: Mark,
    /// Of the products whose totals are not stored yet.
    pub totals: Vec<Totals>,
}

/// The PAID orders of all periods before `period`, and the stock movements up to `movement_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub period: i64,
    pub movement_id: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub(super) struct Totals {
    pub product_id: ProductId,
    pub put_in: i64,
    pub sold: i64,
}

/// The marks of the row `ledger`.
#[derive(Debug, FromQueryResult)]
pub(super) struct Checkpoint {
    period: i64,
    period_xid: Option<i64>,
    period_movement_id: Option<i64>,
    base_period: i64,
    base_movement_id: i64,
    /// Whether a check can go on from the base.
    pub is_clean: bool,
}

impl Checkpoint {
    pub async fn read(connection: &impl ConnectionTrait) -> Result<Self, Error> {
        let checkpoint = sql("
            SELECT period, period_xid, period_movement_id, base_period, base_movement_id, is_clean
              FROM ledger")
        .one(connection)
        .await?;
        checkpoint.ok_or_else(|| Error::Internal("the table `ledger` has lost its row".to_owned()))
    }

    /// What the totals hold now.
    pub fn base(&self) -> Mark {
        Mark {
            period: self.base_period,
            movement_id: self.base_movement_id,
        }
    }

    /// The latest mark before which nothing is added any more, as far as the snapshot of `connection` shows.
    pub async fn closed(&self, connection: &impl ConnectionTrait) -> Result<Mark, Error> {
        if let (Some(xid), Some(movement_id)) = (self.period_xid, self.period_movement_id)
            && in_flight::all_ended_below(connection, xid).await?
        {
            let period = self.period;
            return Ok(Mark { period, movement_id });
        }
        Ok(self.base())
    }
}

pub async fn last_check(connection: &impl ConnectionTrait) -> Result<LastCheck, Error> {
    let last = sql("
        SELECT checked_at, stock_discrepancies, hold_discrepancies, order_discrepancies, overdue
          FROM ledger")
    .one(connection)
    .await?;
    last.ok_or_else(|| Error::Internal("the table `ledger` has lost its row".to_owned()))
}

/// Opens the next period, unless the one before it is not closed yet. Each statement commits by itself: what is read after
/// the new number has been committed tells which transactions may have read the old one.
pub async fn open_period(connection: &DatabaseConnection, lease: &Lease) -> Result<(), Error> {
    let checkpoint = Checkpoint::read(connection).await?;
    if let Some(xid) = checkpoint.period_xid {
        if !in_flight::all_ended_below(connection, xid).await? {
            return Ok(());
        }
        sql("
            UPDATE ledger
               SET period = period + 1, period_xid = NULL, period_movement_id = NULL
             WHERE lease_holder = :holder")
        .bind("holder", lease.holder)
        .execute(connection)
        .await?;
    }

    // In this order: whoever has taken a lower id for a movement has had its transaction's id before that.
    let movement_id: Vec<i64> = sql("SELECT COALESCE(MAX(id), 0) FROM stock_movements")
        .scalars(connection)
        .await?;
    let xid = in_flight::next_id(connection).await?;
    sql("
        UPDATE ledger
           SET period_xid = :xid, period_movement_id = :movement_id
         WHERE lease_holder = :holder AND period_xid IS NULL")
    .bind("xid", xid)
    .bind("movement_id", movement_id.first().copied().unwrap_or(0))
    .bind("holder", lease.holder)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether nothing is added any more to the periods before the current one.
pub async fn period_is_closed(connection: &impl ConnectionTrait) -> Result<bool, Error> {
    let checkpoint = Checkpoint::read(connection).await?;
    Ok(checkpoint.closed(connection).await?.period == checkpoint.period)
}

/// Stores the result for all processes, and gives the lease back. After a clean check the totals go on to its mark. After a
/// full one that was not, the next check reads everything as well, until one is clean again. Returns false, and stores
/// nothing, if another process has taken the lease over.
pub async fn record(
    txn: &DatabaseTransaction,
    now: Timestamp,
    lease: &Lease,
    checked: &Checked,
) -> Result<bool, Error> {
    let count = |found: usize| i64::try_from(found).unwrap_or(i64::MAX);
    let (report, is_clean) = (&checked.report, checked.report.adds_up());
    let mark = is_clean.then_some(checked.base.mark);

    let recorded = sql("
        UPDATE ledger
           SET base_period = COALESCE(:base_period, base_period),
               base_movement_id = COALESCE(:base_movement_id, base_movement_id),
               is_clean = CASE WHEN :is_full THEN :found_nothing ELSE is_clean END,
               checked_at = :now,
               stock_discrepancies = :stock_discrepancies,
               hold_discrepancies = :hold_discrepancies,
               order_discrepancies = :order_discrepancies,
               overdue = :overdue,
               attempted_at = :now,
               lease_holder = NULL,
               lease_until = NULL
         WHERE lease_holder = :holder")
    .bind("base_period", mark.map(|mark| mark.period))
    .bind("base_movement_id", mark.map(|mark| mark.movement_id))
    .bind("is_full", checked.is_full)
    .bind("found_nothing", is_clean)
    .timestamp("now", now)
    .bind("stock_discrepancies", count(report.stock_discrepancies.len()))
    .bind("hold_discrepancies", count(report.hold_discrepancies.len()))
    .bind("order_discrepancies", count(report.order_discrepancies.len()))
    .bind("overdue", count(report.overdue.len()))
    .bind("holder", lease.holder)
    .execute(txn)
    .await?;

    if recorded == 1 && is_clean {
        write_totals(txn, &checked.base.totals).await?;
    }
    Ok(recorded == 1)
}

async fn write_totals(txn: &DatabaseTransaction, totals: &[Totals]) -> Result<(), Error> {
    if totals.is_empty() {
        return Ok(());
    }

    let column = |value: fn(&Totals) -> i64| Column::BigInt(totals.iter().map(value).collect());
    // SQLite needs `WHERE true` to tell ON CONFLICT from the ON of a join.
    sql("
        INSERT INTO ledger_totals (product_id, put_in, sold)
        SELECT product_id, put_in, sold
          FROM :totals
         WHERE true
            ON CONFLICT (product_id) DO UPDATE SET put_in = excluded.put_in, sold = excluded.sold")
    .table(
        "totals",
        [
            ("product_id", column(|totals| totals.product_id)),
            ("put_in", column(|totals| totals.put_in)),
            ("sold", column(|totals| totals.sold)),
        ],
    )
    .execute(txn)
    .await?;
    Ok(())
}
