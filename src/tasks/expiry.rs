//! Expires the orders whose hold has ended without a payment, so that their units are available again. Any number of
//! processes share the work: each takes what no other transaction has locked.

use std::time::Duration;

use metrics::{counter, histogram};
use tokio_util::sync::CancellationToken;

use super::poll::{Round, Task, poll_until_stopped};
use crate::{
    app::App,
    domain::{
        Error, OrderId,
        orders::{self, Expired},
    },
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
    poll_until_stopped(&stop, task, || async {
        let is_full = expire(&app, LIMIT).await?;
        Ok(if is_full { Round::Full } else { Round::Done })
    })
    .await;
}

/// Expires the orders whose hold has ended, up to `limit` of them. Returns whether more may have ended.
///
/// Those that cannot be expired stay the first for ever. When they are most of what a transaction has read, the next one passes
/// them over.
pub async fn expire(app: &App, limit: usize) -> Result<bool, Error> {
    let any_expired = orders::is_any_expired(app.db.read(), app.db.time());
    if !app.db.timeout(EXPIRE_TIMEOUT, any_expired).await? {
        return Ok(false);
    }

    let mut passed_over = Vec::new();
    loop {
        let Expired { ended, left_alone } = expire_once(app, limit, &passed_over).await?;
        record_expired(app, &ended);

        let is_full = ended.len() + left_alone.len() >= limit;
        if !is_full || ended.len() >= left_alone.len() {
            return Ok(is_full);
        }
        passed_over.extend(left_alone);
    }
}

async fn expire_once(app: &App, limit: usize, passed_over: &[OrderId]) -> Result<Expired, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let expire = app
        .db
        .transaction(|txn| async move { orders::expire_due(&txn, app.db.time(), limit, passed_over).await });
    let expired: Result<Expired, Error> = app.db.timeout(EXPIRE_TIMEOUT, expire).await;
    failpoints::hit(Failpoint::Expired);

    // Also when nothing was found or it is not known what came of it: a commit whose answer is late or lost has released
    // units too.
    let has_released = |expired: &Expired| !expired.ended.is_empty() || expired.left_alone.is_empty();
    if expired.as_ref().map_or(true, has_released) {
        app.cache.invalidate_pages_soon();
    }
    expired
}

#[expect(clippy::cast_precision_loss, reason = "batches are small")]
fn record_expired(app: &App, ended: &[Timestamp]) {
    if ended.is_empty() {
        return;
    }

    let now = app.db.time();
    let lag = histogram!(HOLD_EXPIRY_LAG);
    for ended in ended {
        lag.record(ended.age_at(now));
    }
    histogram!(BATCH_SIZE, "batch" => "expire").record(ended.len() as f64);
    counter!(ORDERS_FAILED, "reason" => FailureReason::Expired.as_str()).increment(ended.len() as u64);
    tracing::debug!(orders = ended.len(), "expired orders");
}
