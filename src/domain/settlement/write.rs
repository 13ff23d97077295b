//! Writing what was decided: one statement for the orders that are PAID, one for those that FAILED. `= ANY(:ids)` says again
//! what the join says already, so that PostgreSQL finds the orders by their index whatever it believes about the tables.

use sea_orm::DatabaseTransaction;

use super::Decision;
use crate::{
    db::sql::{Column, sql},
    domain::{Error, OrderId},
    entities::{Timestamp, order::Failure},
};

pub(super) async fn write_decisions(
    txn: &DatabaseTransaction,
    now: Timestamp,
    decisions: &[(OrderId, Decision)],
) -> Result<(), Error> {
    let (mut paid, mut failed) = (Vec::new(), Vec::new());
    for (id, decision) in decisions {
        match decision {
            Decision::Paid { total_price } => paid.push((*id, *total_price)),
            Decision::Failed(failure) => failed.push((*id, failure)),
        }
    }

    write_paid(txn, now, paid).await?;
    write_failed(txn, now, failed).await
}

async fn write_paid(txn: &DatabaseTransaction, now: Timestamp, paid: Vec<(OrderId, i64)>) -> Result<(), Error> {
    if paid.is_empty() {
        return Ok(());
    }

    let (ids, totals): (Vec<_>, Vec<_>) = paid.into_iter().unzip();
    sql("
        UPDATE orders
           SET status = 'PAID', total_price = paid.total_price, settled_at = :now, updated_at = :now,
               ledger_period = (SELECT period FROM ledger)
          FROM :paid
         WHERE orders.id = paid.id AND orders.id = ANY(:ids)")
    .planner_list("ids", Column::Uuid(ids.clone()))
    .table(
        "paid",
        [("id", Column::Uuid(ids)), ("total_price", Column::BigInt(totals))],
    )
    .timestamp("now", now)
    .execute(txn)
    .await?;
    Ok(())
}

async fn write_failed(
    txn: &DatabaseTransaction,
    now: Timestamp,
    failed: Vec<(OrderId, &Failure)>,
) -> Result<(), Error> {
    if failed.is_empty() {
        return Ok(());
    }

    let (mut ids, mut failures) = (Vec::new(), Vec::new());
    for (id, failure) in failed {
        ids.push(id);
        failures.push(serde_json::to_string(failure).map_err(|error| Error::Internal(error.to_string()))?);
    }
    sql("
        UPDATE orders
           SET status = 'FAILED', failure = failed.failure, settled_at = :now, updated_at = :now,
               ledger_period = (SELECT period FROM ledger)
          FROM :failed
         WHERE orders.id = failed.id AND orders.id = ANY(:ids)")
    .planner_list("ids", Column::Uuid(ids.clone()))
    .table(
        "failed",
        [("id", Column::Uuid(ids)), ("failure", Column::Json(failures))],
    )
    .timestamp("now", now)
    .execute(txn)
    .await?;
    Ok(())
}
