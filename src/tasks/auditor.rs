//! Checks the ledger at regular intervals, in one process at a time, and shows the last result as gauges in every process, so
//! that an alert can watch them. A check reads what has changed since the last clean one. When that is not right or cannot be
//! read in time, or when there is none, it reads everything.

use std::{
    pin::pin,
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

use metrics::gauge;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    db::{self, Txn},
    domain::{
        Error,
        ledger::{self, Checked, LEASE, LastCheck, Lease, MAX_AGE},
    },
    failpoints::{self, Failpoint},
    telemetry::{
        metrics::{
            LEDGER_CHECKED, LEDGER_HOLD_DISCREPANCIES, LEDGER_ORDER_DISCREPANCIES, LEDGER_OVERDUE,
            LEDGER_STOCK_DISCREPANCIES,
        },
        outage::{DATABASE, milliseconds},
    },
};

/// How long the check of what has changed may take. While it runs, and while the check of everything does, the server is asked
/// every five seconds whether it still has the session that reads: so one whose server has vanished ends long before.
const CHECK_TIMEOUT: Duration = Duration::from_mins(5);
/// How long the check of everything may take, which reads all orders that are stored.
const FULL_CHECK_TIMEOUT: Duration = Duration::from_mins(30);
/// How long storing the result may take, the totals of all products with it.
const RECORD_TIMEOUT: Duration = Duration::from_mins(1);
/// How often a process asks what the last check found, and whether the next one is due.
const POLL: Duration = Duration::from_secs(5);
/// How long the database may take to answer that, and for each other step that reads or writes a row.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the database could not be asked, at most.
const RETRY: Duration = Duration::from_mins(1);
/// How long a check waits for the transactions that have not noticed yet that a new period has begun.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);
const CLOSING_POLL: Duration = Duration::from_millis(10);

/// Keeps the gauges up to date until `stop`, and checks when `books_every_seconds` have passed since the last check of any
/// process. With 0 it does neither.
pub async fn run(app: App, stop: CancellationToken) {
    let every = app.config.ledger.check_every;
    if every.is_zero() {
        return stop.cancelled().await;
    }

    loop {
        // Recorded before the check is dropped, or closing the pool would wait for the statement that it has left running.
        let mut checking = pin!(check_and_set_gauges(&app, every));
        let checked = tokio::select! {
            () = stop.cancelled() => return app.db.record_abandoned(),
            checked = &mut checking => checked,
        };
        let pause = match checked {
            Ok(()) => every.min(POLL),
            Err(error) => {
                if !DATABASE.count_failure() {
                    tracing::warn!(%error, "could not check the ledger; retrying");
                }
                every.min(RETRY)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

async fn check_and_set_gauges(app: &App, every: Duration) -> Result<(), Error> {
    let checked = check_if_due(app, every).await;
    if let Ok(Some(Checked { report, .. })) = &checked
        && !report.is_clean()
    {
        tracing::error!(
            stock_discrepancies = report.stock_discrepancies.len(),
            hold_discrepancies = report.hold_discrepancies.len(),
            order_discrepancies = report.order_discrepancies.len(),
            overdue = report.overdue.len(),
            "the ledger check found discrepancies: run `shop verify`"
        );
    }

    // Also when this process could not check: another one may have.
    let last = ledger::last_check(app.db.read());
    set_gauges(&app.db.timeout(STEP_TIMEOUT, last).await?);
    checked.map(drop)
}

/// Checks the ledger if the last check of any process is `every` ago, and no other process is checking.
///
/// # Errors
/// The database's; [`Error::Busy`] if another process has taken over meanwhile.
pub async fn check_if_due(app: &App, every: Duration) -> Result<Option<Checked>, Error> {
    let claim = Lease::claim(app.db.write(), app.db.time(), every);
    let Some(lease) = app.db.timeout(STEP_TIMEOUT, claim).await? else {
        return Ok(None);
    };

    let (started, session) = (Instant::now(), ReadingSession::default());
    let checked = {
        let mut checking = pin!(check(app, &lease, &session));
        tokio::select! {
            checked = &mut checking => checked,
            lost = renew_until_lost(app, &lease, &session) => {
                // Before the check is dropped, so that its connection is cleaned up.
                app.db.record_abandoned();
                Err(lost)
            }
        }
    };
    match checked {
        Ok(checked) => {
            let (orders, is_full, duration_ms) =
                (checked.report.orders, checked.is_full, milliseconds(started.elapsed()));
            tracing::debug!(orders, is_full, duration_ms, "checked the ledger");
            Ok(Some(checked))
        }
        Err(error) => {
            release(app, &lease).await;
            Err(error)
        }
    }
}

async fn check(app: &App, lease: &Lease, session: &ReadingSession) -> Result<Checked, Error> {
    let open = ledger::open_period(app.db.write(), lease);
    app.db.timeout(STEP_TIMEOUT, open).await?;
    wait_until_closed(app).await?;

    let now = app.db.time();
    let since = app.db.snapshot(Some(CHECK_TIMEOUT), |txn| async move {
        session.begin(&txn).await?;
        ledger::check_since_clean(&txn, now, MAX_AGE).await
    });
    let since = app.db.timeout(CHECK_TIMEOUT, since).await;
    session.end();
    let checked = match since {
        Ok(Some(clean)) if clean.report.adds_up() => clean,
        Ok(since) => check_everything(app, since, session).await?,
        // What has changed may be too much to read it in time, and would be more the next time.
        Err(error) if error.is_outage() => {
            tracing::debug!(%error, "could not check what has changed; checking the whole ledger");
            check_everything(app, None, session).await?
        }
        Err(error) => return Err(error),
    };
    failpoints::hit(Failpoint::LedgerRead);

    let (now, result) = (app.db.time(), &checked);
    let record = app
        .db
        .transaction_once(|txn| async move { ledger::record(&txn, now, lease, result).await });
    let recorded = app.db.timeout(RECORD_TIMEOUT, record).await?;
    if recorded { Ok(checked) } else { Err(taken_over()) }
}

/// A full check, which has the last word. If it fails, what is known is `since`.
async fn check_everything(app: &App, since: Option<Checked>, session: &ReadingSession) -> Result<Checked, Error> {
    let now = app.db.time();
    let full = app.db.report(Some(FULL_CHECK_TIMEOUT), |txn| async move {
        session.begin(&txn).await?;
        ledger::check_and_add_up(&txn, now, MAX_AGE).await
    });
    let full = app.db.timeout(FULL_CHECK_TIMEOUT, full).await;
    session.end();

    match (full, since) {
        (Ok(full), _) => Ok(full),
        (Err(error), Some(since)) => {
            tracing::warn!(%error, "could not check the whole ledger; only what has changed was checked");
            Ok(since)
        }
        (Err(error), None) => Err(error),
    }
}

/// Waits for transactions that began before the new period did. They take milliseconds. One that takes longer only makes this
/// check read more.
async fn wait_until_closed(app: &App) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let is_closed = ledger::period_is_closed(app.db.read());
        if app.db.timeout(STEP_TIMEOUT, is_closed).await? || started.elapsed() >= CLOSING_TIMEOUT {
            return Ok(());
        }
        sleep(CLOSING_POLL).await;
    }
}

/// The session that reads the ledger, while it does.
#[derive(Default)]
struct ReadingSession(AtomicI32);

impl ReadingSession {
    /// No session of PostgreSQL has it.
    const NONE: i32 = 0;

    async fn begin(&self, txn: &Txn) -> Result<(), Error> {
        let id = db::session_id(txn).await?;
        self.0.store(id.unwrap_or(Self::NONE), Ordering::Relaxed);
        Ok(())
    }

    fn end(&self) {
        self.0.store(Self::NONE, Ordering::Relaxed);
    }

    /// Whether the server has it no more, so that no answer will come.
    async fn is_lost(&self, app: &App) -> Result<bool, Error> {
        let id = self.0.load(Ordering::Relaxed);
        let is_there = id == Self::NONE || db::session_exists(app.db.read(), id).await?;
        // It may have ended meanwhile.
        Ok(!is_there && self.0.load(Ordering::Relaxed) == id)
    }
}

/// Renews the lease until it is lost, or until the session that reads is gone.
async fn renew_until_lost(app: &App, lease: &Lease, session: &ReadingSession) -> Error {
    loop {
        sleep(LEASE / 3).await;

        // While the database cannot be asked, nobody can take over either.
        let renew = lease.renew(app.db.write(), app.db.time());
        if let Ok(false) = app.db.timeout(STEP_TIMEOUT, renew).await {
            return taken_over();
        }
        if let Ok(true) = app.db.timeout(STEP_TIMEOUT, session.is_lost(app)).await {
            return Error::Reconnect("the session that reads the ledger is gone".to_owned());
        }
    }
}

async fn release(app: &App, lease: &Lease) {
    let release = lease.release(app.db.write(), app.db.time());
    if let Err::<(), Error>(error) = app.db.timeout(STEP_TIMEOUT, release).await {
        tracing::debug!(%error, "could not give back the lease of the ledger check; it runs out by itself");
    }
}

fn taken_over() -> Error {
    Error::Busy("another process has taken the ledger check over".to_owned())
}

/// The same in every process, whichever made the check.
fn set_gauges(last: &LastCheck) {
    let Some(checked_at) = last.checked_at else { return };
    let count = |discrepancies: i64| f64::from(u32::try_from(discrepancies).unwrap_or(u32::MAX));

    gauge!(LEDGER_STOCK_DISCREPANCIES).set(count(last.stock_discrepancies));
    gauge!(LEDGER_HOLD_DISCREPANCIES).set(count(last.hold_discrepancies));
    gauge!(LEDGER_ORDER_DISCREPANCIES).set(count(last.order_discrepancies));
    gauge!(LEDGER_OVERDUE).set(count(last.overdue));
    gauge!(LEDGER_CHECKED).set(checked_at.to_seconds());
}
