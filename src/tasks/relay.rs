//! Publishes the events of the outbox: claims a batch of them, publishes it, and deletes it once the queue has confirmed
//! all. Any number of processes share the work. If one dies before it has deleted its batch, another one publishes the
//! batch again, under the same ids.

use std::time::Duration;

use metrics::counter;
use tokio_util::sync::CancellationToken;

use super::poll::{Round, RoundError, Task, poll_until_stopped};
use crate::{
    app::App,
    domain::{Error, event::Event, outbox},
    failpoints::{self, Failpoint},
    telemetry::{metrics::OUTBOX_RELAYED, outage::DATABASE},
};

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The most events of one round.
const CLAIM_LIMIT: usize = 500;
/// How long one statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Relays every half second until `stop`, and without a pause while more events wait.
pub async fn run(app: App, stop: CancellationToken) {
    let task = Task {
        name: Some("relay"),
        action: "publish events of the outbox",
        interval: POLL_INTERVAL,
        interval_while_full: Duration::ZERO,
    };
    poll_until_stopped(&stop, task, || async { Ok(Round::of(relay(&app).await?, CLAIM_LIMIT)) }).await;
}

/// Publishes the events that are due, 500 at most, and returns how many. Claims none while the queue is unreachable.
///
/// # Errors
/// The queue's or the database's. What was not published is due again.
pub async fn relay(app: &App) -> Result<usize, RoundError> {
    let is_due = outbox::is_due(app.db.read(), app.db.time());
    if !app.db.timeout(STATEMENT_TIMEOUT, is_due).await? {
        return Ok(0);
    }
    app.queue.ping().await?;

    let (ids, events) = claim(app).await?;
    if events.is_empty() {
        return Ok(0);
    }
    if let Err(error) = app.queue.publish_events(&events).await {
        release(app, &ids).await;
        return Err(error.into());
    }
    failpoints::hit(Failpoint::Relayed);

    let delete = app.db.transaction(|txn| {
        let ids = ids.clone();
        async move { outbox::delete(&*txn, ids).await }
    });
    // They are due again after a failure, and are then published twice.
    app.db.timeout(STATEMENT_TIMEOUT, delete).await?;
    counter!(OUTBOX_RELAYED).increment(events.len() as u64);
    Ok(events.len())
}

async fn claim(app: &App) -> Result<(Vec<i64>, Vec<Event>), Error> {
    let (now, limit) = (app.db.time(), i64::try_from(CLAIM_LIMIT).unwrap_or(i64::MAX));
    let claim = app
        .db
        .transaction(|txn| async move { outbox::claim(&*txn, now, limit).await });

    let claimed: Vec<outbox::Stored> = app.db.timeout(STATEMENT_TIMEOUT, claim).await?;
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
