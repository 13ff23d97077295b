//! Rings again for what was missed: orders whose payment was accepted and that are still PENDING after a while,
//! because the broker was away or a process died between the commit and the request.

use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    domain::{Error, OrderId, orders},
    entities::Timestamp,
    queue::{SettleRequest, new_traceparent},
    telemetry::metrics::{QUEUE_DEPTH, SETTLE_REQUESTS_RESENT},
};

const EVERY: Duration = Duration::from_secs(1);
/// Between two rounds while there is more to ring for.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(50);
/// The most orders rung for at once.
const AT_ONCE: usize = 2_000;
/// With this many messages waiting the requests are not lost, the workers are only behind.
const BUSY_QUEUE: u64 = 2_000;

/// What a round of sweeping came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepOutcome {
    /// Every order that was due has been rung for.
    Done,
    /// There may be more: the round was full.
    MoreDue,
    /// The queue has enough as it is.
    QueueBusy,
}

/// Sweeps every second until `stop`, and faster while there is much to ring for.
pub async fn run(app: App, stop: CancellationToken) {
    if app.queue.is_memory() {
        make_all_due(&app).await;
    }
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = match sweep(&app).await {
            Ok(SweepOutcome::MoreDue) => BETWEEN_ROUNDS,
            Ok(SweepOutcome::Done | SweepOutcome::QueueBusy) | Err(_) => EVERY,
        };
    }
}

/// Rings for the orders that are due, [`AT_ONCE`] at most. Does nothing while the queue cannot be reached, and puts back
/// what it could not ring for, so that nothing is put off for a request that did not ring.
///
/// # Errors
/// When the database or the queue could not be asked.
pub async fn sweep(app: &App) -> Result<SweepOutcome, Error> {
    let waiting = app
        .queue
        .depth()
        .await
        .map_err(|error| Error::Unavailable(error.to_string()))?;
    #[expect(clippy::cast_precision_loss, reason = "a figure")]
    gauge!(QUEUE_DEPTH).set(waiting as f64);
    if waiting >= BUSY_QUEUE {
        return Ok(SweepOutcome::QueueBusy);
    }
    let (now, limit) = (Timestamp::now(), i64::try_from(AT_ONCE).unwrap_or(i64::MAX));
    let overdue = app
        .db
        .transaction(|txn| async move { orders::claim_due(&*txn, now, limit).await })
        .await
        .inspect_err(|error: &Error| tracing::warn!(%error, "could not look for orders to ring for"))?;
    if overdue.is_empty() {
        return Ok(SweepOutcome::Done);
    }
    tracing::info!(orders = overdue.len(), "ringing again");
    let request = |order_id: &OrderId| SettleRequest {
        order_id: *order_id,
        traceparent: new_traceparent(),
    };
    let requests: Vec<SettleRequest> = overdue.iter().map(request).collect();
    if let Err(error) = app.queue.publish_settle_requests(&requests).await {
        tracing::warn!(%error, "could not ring again; the next round will");
        release_due(app, &overdue).await;
        return Err(Error::Unavailable(error.to_string()));
    }
    counter!(SETTLE_REQUESTS_RESENT).increment(requests.len() as u64);
    Ok(if requests.len() == AT_ONCE {
        SweepOutcome::MoreDue
    } else {
        SweepOutcome::Done
    })
}

async fn release_due(app: &App, orders: &[OrderId]) {
    let now = Timestamp::now();
    let release_due = app
        .db
        .transaction(|txn| async move { orders::release_due(&*txn, now, orders).await });
    if let Err::<_, Error>(error) = release_due.await {
        tracing::warn!(%error, "could not put back orders to ring for; they will be due again by themselves");
    }
}

/// The queue inside the process has forgotten everything, so at the start every order that waits is due at once.
async fn make_all_due(app: &App) {
    let now = Timestamp::now();
    let recalled = app
        .db
        .transaction(|txn| async move { orders::make_all_due(&*txn, now).await });
    match recalled.await {
        Ok(0) => {}
        Ok(orders) => tracing::info!(
            orders,
            "accepted orders were waiting when the process ended; ringing for them"
        ),
        Err::<_, Error>(error) => tracing::warn!(%error, "could not look for orders that waited; the rounds will"),
    }
}
