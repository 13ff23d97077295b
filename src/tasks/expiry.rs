//! Expires the orders whose hold has ended without a payment, so that their units are available again. Any number of
//! processes share the work: each takes what no other transaction has locked.

use std::time::Duration;

use metrics::{counter, histogram};
use tokio_util::sync::CancellationToken;

use super::poll::{Round, Task, poll_until_stopped};
use crate::{
    app::App,
    domain::{Error, orders},
    entities::{Timestamp, order::FailureReason},
    failpoints::{self, Failpoint},
    telemetry::metrics::{BATCH_SIZE, HOLD_EXPIRY_LAG, ORDERS_FAILED},
};

/// A hold is released at the latest two seconds after its end; most of that is left for a backlog and for waiting for locks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The most orders of one transaction.
const LIMIT: usize = 1_000;
/// How long one attempt may take.
const EXPIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Expires every half second until `stop`, and without a pause while more holds have ended.
pub async fn run(app: App, stop: CancellationToken) {
    let task = Task {
        name: Some("expiry"),
        action: "expire orders",
        interval: POLL_INTERVAL,
        interval_while_full: Duration::ZERO,
    };
    poll_until_stopped(&stop, task, || async { Ok(Round::of(expire(&app).await?, LIMIT)) }).await;
}

/// Expires the orders whose hold has ended, 1,000 at most, and returns how many.
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
