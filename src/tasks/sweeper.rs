//! Publishes settle requests again for orders that were missed: their payment was accepted, and they are still PENDING
//! after `notify_after`, because the broker was down or a process died between the commit and the request. This makes
//! the orders table its own outbox.

use std::time::Duration;

use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;

use super::poll::{Round, RoundError, Task, poll_until_stopped};
use crate::{
    app::App,
    domain::{Error, OrderId, orders},
    queue::{QueueError, SettleRequest},
    telemetry::{
        metrics::{QUEUE_DEPTH, SETTLE_REQUESTS_RESENT},
        outage::DATABASE,
        traces::new_traceparent,
    },
};

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two rounds while more orders are due.
const MORE_DUE_INTERVAL: Duration = Duration::from_millis(50);
/// The most orders claimed in one round because they are due, and as many again whose time is missing or too far ahead.
const CLAIM_LIMIT: usize = 2_000;
/// How long claiming them, or releasing them, may take.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(10);
/// How long making all orders due may take, of which a long outage may have left many.
const MAKE_ALL_DUE_TIMEOUT: Duration = Duration::from_secs(30);
/// With so many messages in the queue no requests are missing: the workers are behind.
const BUSY_QUEUE: u64 = 2_000;

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepOutcome {
    /// The requests of all due orders were published.
    Done,
    /// The round was full; more orders may be due.
    MoreDue,
    /// Nothing was published, because the queue is long enough as it is.
    QueueBusy,
}

/// Sweeps every second until `stop`, and faster while more orders are due.
pub async fn run(app: App, stop: CancellationToken) {
    if app.queue.is_memory() {
        make_all_due(&app).await;
    }

    let task = Task {
        name: Some("sweeper"),
        action: "publish settle requests again",
        interval: SWEEP_INTERVAL,
        interval_while_full: MORE_DUE_INTERVAL,
    };
    poll_until_stopped(&stop, task, || async {
        Ok(match sweep(&app).await? {
            SweepOutcome::MoreDue => Round::Full,
            SweepOutcome::Done | SweepOutcome::QueueBusy => Round::Done,
        })
    })
    .await;
}

/// Claims up to 2,000 orders that are due, and as many again whose time is missing or too far ahead, and publishes their
/// settle requests. Claims none while the queue is unreachable, and releases those that could not be published, so that
/// only a published request delays the next one.
///
/// # Errors
/// The queue's, or the error of the claim.
pub async fn sweep(app: &App) -> Result<SweepOutcome, RoundError> {
    let depth = queue_depth(app).await?;
    if depth >= BUSY_QUEUE {
        return Ok(SweepOutcome::QueueBusy);
    }

    let due = claim_due(app).await?;
    if due.is_empty() {
        return Ok(SweepOutcome::Done);
    }

    tracing::info!(orders = due.len(), "publishing settle requests again");
    let request = |order_id: &OrderId| SettleRequest {
        order_id: *order_id,
        traceparent: new_traceparent(),
    };
    let requests: Vec<SettleRequest> = due.iter().map(request).collect();
    if let Err(error) = app.queue.publish_settle_requests(&requests).await {
        release_due(app, &due).await;
        return Err(error.into());
    }

    counter!(SETTLE_REQUESTS_RESENT).increment(requests.len() as u64);
    Ok(if requests.len() >= CLAIM_LIMIT {
        SweepOutcome::MoreDue
    } else {
        SweepOutcome::Done
    })
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
async fn queue_depth(app: &App) -> Result<u64, QueueError> {
    let depth = app.queue.depth().await?;
    gauge!(QUEUE_DEPTH).set(depth as f64);
    Ok(depth)
}

async fn claim_due(app: &App) -> Result<Vec<OrderId>, Error> {
    let (now, limit) = (app.db.time(), i64::try_from(CLAIM_LIMIT).unwrap_or(i64::MAX));
    let claim = app
        .db
        .transaction(|txn| async move { orders::claim_due(&*txn, now, limit).await });
    app.db.timeout(CLAIM_TIMEOUT, claim).await
}

async fn release_due(app: &App, orders: &[OrderId]) {
    let now = app.db.time();
    let release = app
        .db
        .transaction(|txn| async move { orders::release_due(&*txn, now, orders).await });

    if let Err::<_, Error>(error) = app.db.timeout(CLAIM_TIMEOUT, release).await
        && !DATABASE.count_failure()
    {
        tracing::warn!(%error, "could not release claimed orders; they become due again by themselves");
    }
}

/// The queue inside the process starts empty, so at the start every accepted order is due at once.
async fn make_all_due(app: &App) {
    let now = app.db.time();
    let make_due = app
        .db
        .transaction(|txn| async move { orders::make_all_due(&*txn, now).await });

    match app.db.timeout(MAKE_ALL_DUE_TIMEOUT, make_due).await {
        Ok(0) => {}
        Ok(orders) => tracing::info!(
            orders,
            "accepted orders were waiting when the process ended; publishing their settle requests again"
        ),
        Err::<_, Error>(error) => {
            tracing::warn!(%error, "could not make the waiting orders due; they become due by themselves");
        }
    }
}
