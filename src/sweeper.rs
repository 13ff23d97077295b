//! Rings again for what was missed: orders whose payment was accepted and that are still PENDING after a while,
//! because the broker was away or a process died between the commit and the bell.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    domain::{Error, orders},
    entities::Micros,
    queue::{Bell, new_traceparent},
};

const EVERY: Duration = Duration::from_secs(1);
/// The most orders rung for at once.
const AT_ONCE: usize = 1_000;
/// With this many messages waiting the bells are not lost, the workers are only behind.
const BUSY_QUEUE: u64 = 1_000;

/// Sweeps every second until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    if app.queue.is_memory() {
        recall(&app).await;
    }
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        while let Ok(rung) = sweep(&app, Micros::now()).await
            && rung == AT_ONCE
            && !stop.is_cancelled()
        {}
    }
}

/// Rings for the orders due at `due`, [`AT_ONCE`] at most, and answers how many there were. Does nothing while the
/// queue cannot be reached, so that nothing is put off for a bell that cannot ring.
///
/// # Errors
/// When the database or the queue could not be asked.
pub async fn sweep(app: &App, due: Micros) -> Result<usize, Error> {
    let waiting = app
        .queue
        .depth()
        .await
        .map_err(|error| Error::Unavailable(error.to_string()))?;
    if waiting >= BUSY_QUEUE {
        return Ok(0);
    }
    let (now, limit) = (Micros::now(), i64::try_from(AT_ONCE).unwrap_or(i64::MAX));
    let overdue = app
        .db
        .transaction(move |txn| Box::pin(async move { orders::take_overdue(txn, now, due, limit).await }))
        .await
        .inspect_err(|error: &Error| tracing::warn!(%error, "could not look for orders to ring for"))?;
    let bells: Vec<Bell> = overdue
        .into_iter()
        .map(|order_id| Bell {
            order_id,
            traceparent: new_traceparent(),
        })
        .collect();
    if !bells.is_empty() {
        tracing::info!(orders = bells.len(), "ringing again");
    }
    if let Err(error) = app.queue.ring(&bells).await {
        tracing::warn!(%error, "could not ring again; the next round will");
    }
    Ok(bells.len())
}

/// The queue inside the process has forgotten everything, so at the start every order that waits is rung for, due or
/// not. Bounded by the queue: it ends when the queue is busy, and the rounds go on from there.
async fn recall(app: &App) {
    while let Ok(rung) = sweep(app, Micros(i64::MAX)).await
        && rung == AT_ONCE
    {}
}
