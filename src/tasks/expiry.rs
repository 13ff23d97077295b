//! Expires the orders whose hold has ended without a payment, so that their units are available again. Any number of
//! processes share the work: each takes what no other transaction has locked.

use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, dependencies::record_database_outage};
use crate::{
    app::App,
    domain::{Error, orders},
    entities::{Timestamp, order::FailureReason},
    failpoints::{self, Failpoint},
    telemetry::metrics::{BATCH_SIZE, HOLD_EXPIRY_LAG, HOLDS_OPEN, ORDERS_FAILED},
};

/// A hold is released at the latest two seconds after its end; most of that is left for a backlog and for waiting for locks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The most orders of one transaction.
const LIMIT: usize = 1_000;
/// How long one attempt may take.
const EXPIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the open holds are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// Expires every half second until `stop`, and without a pause while more holds have ended.
pub async fn run(app: App, stop: CancellationToken) {
    let mut backoff = Backoff::new();
    let mut counted: Option<Instant> = None;

    loop {
        if counted.is_none_or(|counted| counted.elapsed() >= COUNT_INTERVAL) {
            counted = Some(Instant::now());
            count_open(&app).await;
        }

        let pause = match expire(&app).await {
            Ok(LIMIT) => Duration::ZERO,
            Ok(_) => POLL_INTERVAL,
            Err(error) => {
                if !record_database_outage(&error) {
                    tracing::warn!(%error, "could not expire orders; retrying");
                }
                if backoff.wait(&stop).await.is_err() {
                    return;
                }
                continue;
            }
        };
        backoff.reset();
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Expires the orders whose hold has ended, 1,000 at most, and answers how many.
///
/// # Errors
/// The database's.
#[expect(clippy::cast_precision_loss, reason = "batches are small")]
pub async fn expire(app: &App) -> Result<usize, Error> {
    let any_expired = orders::is_any_expired(app.db.read(), app.db.time());
    if !app.db.timeout(EXPIRE_TIMEOUT, any_expired).await? {
        return Ok(0);
    }

    let limit = i64::try_from(LIMIT).unwrap_or(i64::MAX);
    let expire = app
        .db
        .transaction(|txn| async move { orders::expire_due(&txn, app.db.time(), limit).await });
    let expired: Vec<Timestamp> = app.db.timeout(EXPIRE_TIMEOUT, expire).await?;
    failpoints::hit(Failpoint::Expired);
    if expired.is_empty() {
        return Ok(0);
    }

    app.cache.invalidate_pages_soon();
    let now = app.db.time();
    let lag = histogram!(HOLD_EXPIRY_LAG);
    for ended in &expired {
        lag.record(ended.age_at(now));
    }
    histogram!(BATCH_SIZE, "batch" => "expire").record(expired.len() as f64);
    counter!(ORDERS_FAILED, "reason" => FailureReason::Expired.as_str()).increment(expired.len() as u64);
    tracing::debug!(orders = expired.len(), "expired orders");
    Ok(expired.len())
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
async fn count_open(app: &App) {
    let open = app.db.timeout(EXPIRE_TIMEOUT, orders::count_open_holds(app.db.read()));
    match open.await {
        Ok(open) => gauge!(HOLDS_OPEN).set(open as f64),
        Err(error) => tracing::debug!(%error, "could not count the open holds"),
    }
}
