//! Checks the ledger at regular intervals and shows the result as gauges, so that an alert can watch them.

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
    telemetry::metrics::{
        LEDGER_CHECKED, LEDGER_HOLD_DISCREPANCIES, LEDGER_ORDER_DISCREPANCIES, LEDGER_OVERDUE,
        LEDGER_STOCK_DISCREPANCIES,
    },
};

/// How long a check may take. One that times out leaves the gauges as they are.
const CHECK_TIMEOUT: Duration = Duration::from_mins(5);

/// Checks every `books_every_seconds`, the first time at once, until `stop`. With 0 it never checks.
pub async fn run(app: App, stop: CancellationToken) {
    let interval = app.config.ledger.check_every;
    if interval.is_zero() {
        return stop.cancelled().await;
    }

    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = check(&app) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(interval) => {}
        }
    }
}

async fn check(app: &App) {
    let check = app.db.report(Some(CHECK_TIMEOUT), |txn| async move {
        ledger::check(&*txn, Timestamp::now(), MAX_AGE).await
    });

    match app.db.timeout(CHECK_TIMEOUT, check).await {
        Ok(report) => show(&report),
        Err::<_, Error>(error) => tracing::warn!(%error, "could not check the ledger"),
    }
}

fn show(report: &Report) {
    let count = |discrepancies: usize| f64::from(u32::try_from(discrepancies).unwrap_or(u32::MAX));
    gauge!(LEDGER_STOCK_DISCREPANCIES).set(count(report.stock_discrepancies.len()));
    gauge!(LEDGER_HOLD_DISCREPANCIES).set(count(report.hold_discrepancies.len()));
    gauge!(LEDGER_ORDER_DISCREPANCIES).set(count(report.order_discrepancies.len()));
    gauge!(LEDGER_OVERDUE).set(count(report.overdue.len()));
    gauge!(LEDGER_CHECKED).set(Timestamp::now().to_seconds());

    if !report.is_clean() {
        tracing::error!(
            stock_discrepancies = report.stock_discrepancies.len(),
            hold_discrepancies = report.hold_discrepancies.len(),
            order_discrepancies = report.order_discrepancies.len(),
            overdue = report.overdue.len(),
            "the ledger check found discrepancies: run `shop verify`"
        );
    }
}
