//! Checks the books now and then, and shows what it found as figures, so that an alarm can be put on it.

use std::time::Duration;

use metrics::gauge;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    domain::{
        Error,
        ledger::{self, MAX_AGE, Report},
    },
    entities::Timestamp,
    telemetry::metrics::{LEDGER_CHECKED, LEDGER_ORDER_DISCREPANCIES, LEDGER_OVERDUE, LEDGER_STOCK_DISCREPANCIES},
};

/// A check that takes longer is given up; the figures stay as they were.
const LONGEST: Duration = Duration::from_mins(5);

/// Checks every `books_every_seconds`, the first time at once, until `stop`. Zero checks never, and waits.
pub async fn run(app: App, stop: CancellationToken) {
    let every = app.config.ledger.check_every;
    if every.is_zero() {
        return stop.cancelled().await;
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = audit(&app) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(every) => {}
        }
    }
}

async fn audit(app: &App) {
    let check = app.db.snapshot(Some(LONGEST), |txn| async move {
        ledger::check(&*txn, Timestamp::now(), MAX_AGE).await
    });
    match app.db.timeout(LONGEST, check).await {
        Ok(report) => show(&report),
        Err::<_, Error>(error) => tracing::warn!(%error, "the ledger check failed"),
    }
}

fn show(report: &Report) {
    let count = |faults: usize| f64::from(u32::try_from(faults).unwrap_or(u32::MAX));
    gauge!(LEDGER_STOCK_DISCREPANCIES).set(count(report.stock_discrepancies.len()));
    gauge!(LEDGER_ORDER_DISCREPANCIES).set(count(report.order_discrepancies.len()));
    gauge!(LEDGER_OVERDUE).set(count(report.overdue.len()));
    gauge!(LEDGER_CHECKED).set(Timestamp::now().to_seconds());
    if !report.is_clean() {
        tracing::error!(
            stock_discrepancies = report.stock_discrepancies.len(),
            order_discrepancies = report.order_discrepancies.len(),
            overdue = report.overdue.len(),
            "the books do not add up: run `shop verify`"
        );
    }
}
