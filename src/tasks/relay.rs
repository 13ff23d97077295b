//! Publishes the events of the outbox: claims a batch of them, publishes it, and deletes it once the queue has confirmed
//! all. Any number of processes share the work. If one dies before it has deleted its batch, another one publishes the
//! batch again, under the same ids.

use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, dependencies::record_database_outage};
use crate::{
    app::App,
    domain::{Error, event::Event, outbox},
    failpoints::{self, Failpoint},
    telemetry::{
        metrics::{OUTBOX_DEPTH, OUTBOX_RELAYED},
        outage::{DATABASE, QUEUE},
    },
};

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The most events of one round.
const CLAIM_LIMIT: usize = 500;
/// How long one statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the events that wait are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// Relays every half second until `stop`, and without a pause while more events wait.
pub async fn run(app: App, stop: CancellationToken) {
    let mut backoff = Backoff::new();
    let mut counted: Option<Instant> = None;

    loop {
        if counted.is_none_or(|counted| counted.elapsed() >= COUNT_INTERVAL) {
            counted = Some(Instant::now());
            count(&app).await;
        }

        let pause = match relay(&app).await {
            Ok(CLAIM_LIMIT) => Duration::ZERO,
            Ok(_) => POLL_INTERVAL,
            Err(_) => {
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

/// Publishes the events that are due, 500 at most, and answers how many. Claims none while the queue is unreachable.
///
/// # Errors
/// [`Error::Unavailable`] when the queue is unreachable; else the database's. What was not published is due again.
pub async fn relay(app: &App) -> Result<usize, Error> {
    let is_due = outbox::is_due(app.db.read(), app.db.time());
    if !app.db.timeout(STATEMENT_TIMEOUT, is_due).await? {
        return Ok(0);
    }
    let unreachable = |error: crate::queue::QueueError| Error::Unavailable(error.to_string());
    app.queue.ping().await.map_err(unreachable)?;

    let (ids, events) = claim(app).await?;
    if events.is_empty() {
        return Ok(0);
    }
    if let Err(error) = app.queue.publish_events(&events).await {
        QUEUE.record_failure(&error);
        release(app, &ids).await;
        return Err(unreachable(error));
    }
    failpoints::hit(Failpoint::Relayed);

    let delete = app.db.transaction(|txn| {
        let ids = ids.clone();
        async move { outbox::delete(&*txn, ids).await }
    });
    app.db
        .timeout(STATEMENT_TIMEOUT, delete)
        .await
        .inspect_err(|error: &Error| {
            tracing::warn!(%error, "could not delete published events; they are published again");
        })?;
    counter!(OUTBOX_RELAYED).increment(events.len() as u64);
    Ok(events.len())
}

async fn claim(app: &App) -> Result<(Vec<i64>, Vec<Event>), Error> {
    let (now, limit) = (app.db.time(), i64::try_from(CLAIM_LIMIT).unwrap_or(i64::MAX));
    let claim = app
        .db
        .transaction(|txn| async move { outbox::claim(&*txn, now, limit).await });

    let claimed: Vec<outbox::Stored> =
        app.db
            .timeout(STATEMENT_TIMEOUT, claim)
            .await
            .inspect_err(|error: &Error| {
                if !record_database_outage(error) {
                    tracing::warn!(%error, "could not claim events of the outbox; retrying");
                }
            })?;
    Ok(claimed.into_iter().map(|stored| (stored.id, stored.event)).unzip())
}

async fn release(app: &App, ids: &[i64]) {
    let now = app.db.time();
    let release = app.db.transaction(|txn| {
        let ids = ids.to_vec();
        async move { outbox::release(&*txn, now, ids).await }
    });

    if let Err::<(), Error>(error) = app.db.timeout(STATEMENT_TIMEOUT, release).await
        && !DATABASE.count_failure()
    {
        tracing::warn!(%error, "could not release events of the outbox; they become due again by themselves");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
async fn count(app: &App) {
    let len = app.db.timeout(STATEMENT_TIMEOUT, outbox::len(app.db.read())).await;
    match len {
        Ok(len) => gauge!(OUTBOX_DEPTH).set(len as f64),
        Err(error) => tracing::debug!(%error, "could not count the events of the outbox"),
    }
}
