//! Rings again for what was missed: orders whose payment was accepted and that are still PENDING after a while,
//! because the broker was away or a process died between the commit and the bell.

use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    domain::{Error, OrderId, orders},
    entities::Micros,
    queue::{Bell, new_traceparent},
    telemetry::figures,
};

const EVERY: Duration = Duration::from_secs(1);
/// Between two rounds while there is more to ring for.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(50);
/// The most orders rung for at once.
const AT_ONCE: usize = 2_000;
/// With this many messages waiting the bells are not lost, the workers are only behind.
const BUSY_QUEUE: u64 = 2_000;

/// What a round of sweeping came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Every order that was due has been rung for.
    All,
    /// There may be more: the round was full.
    Some,
    /// The queue has enough as it is.
    Nothing,
}

/// Sweeps every second until `stop`, and faster while there is much to ring for.
pub async fn run(app: App, stop: CancellationToken) {
    if app.queue.is_memory() {
        recall(&app).await;
    }
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = match sweep(&app).await {
            Ok(Swept::Some) => BETWEEN_ROUNDS,
            Ok(Swept::All | Swept::Nothing) | Err(_) => EVERY,
        };
    }
}

/// Rings for the orders that are due, [`AT_ONCE`] at most. Does nothing while the queue cannot be reached, and puts back
/// what it could not ring for, so that nothing is put off for a bell that did not ring.
///
/// # Errors
/// When the database or the queue could not be asked.
pub async fn sweep(app: &App) -> Result<Swept, Error> {
    let waiting = app
        .queue
        .depth()
        .await
        .map_err(|error| Error::Unavailable(error.to_string()))?;
    #[expect(clippy::cast_precision_loss, reason = "a figure")]
    gauge!(figures::QUEUE_DEPTH).set(waiting as f64);
    if waiting >= BUSY_QUEUE {
        return Ok(Swept::Nothing);
    }
    let (now, limit) = (Micros::now(), i64::try_from(AT_ONCE).unwrap_or(i64::MAX));
    let overdue = app
        .db
        .transaction(move |txn| Box::pin(async move { orders::take_overdue(txn, now, limit).await }))
        .await
        .inspect_err(|error: &Error| tracing::warn!(%error, "could not look for orders to ring for"))?;
    if overdue.is_empty() {
        return Ok(Swept::All);
    }
    tracing::info!(orders = overdue.len(), "ringing again");
    let bell = |order_id: &OrderId| Bell {
        order_id: *order_id,
        traceparent: new_traceparent(),
    };
    let bells: Vec<Bell> = overdue.iter().map(bell).collect();
    if let Err(error) = app.queue.ring(&bells).await {
        tracing::warn!(%error, "could not ring again; the next round will");
        put_back(app, overdue).await;
        return Err(Error::Unavailable(error.to_string()));
    }
    counter!(figures::RINGS_AGAIN).increment(bells.len() as u64);
    Ok(if bells.len() == AT_ONCE {
        Swept::Some
    } else {
        Swept::All
    })
}

async fn put_back(app: &App, orders: Vec<OrderId>) {
    let now = Micros::now();
    let put_back = app.db.transaction(move |txn| {
        let orders = orders.clone();
        Box::pin(async move { orders::put_back(txn, now, &orders).await })
    });
    if let Err::<_, Error>(error) = put_back.await {
        tracing::warn!(%error, "could not put back orders to ring for; they will be due again by themselves");
    }
}

/// The queue inside the process has forgotten everything, so at the start every order that waits is due at once.
async fn recall(app: &App) {
    let now = Micros::now();
    let recalled = app
        .db
        .transaction(move |txn| Box::pin(async move { orders::recall(txn, now).await }));
    match recalled.await {
        Ok(0) => {}
        Ok(orders) => tracing::info!(
            orders,
            "accepted orders were waiting when the process ended; ringing for them"
        ),
        Err::<_, Error>(error) => tracing::warn!(%error, "could not look for orders that waited; the rounds will"),
    }
}
