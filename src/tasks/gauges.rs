//! Samples the gauges whose values change without an event to count, and keeps the histograms small. Counting takes time, so no
//! task that works for customers does it.

use std::time::Duration;

use metrics::gauge;
use tokio_util::sync::CancellationToken;

use super::poll::{Round, RoundError, Task, poll_until_stopped};
use crate::{
    app::App,
    domain::{Error, orders, outbox},
    telemetry::metrics::{
        DATABASE_CONNECTIONS, DEAD_LETTERS_WAITING, HOLDS_OPEN, OUTBOX_DEPTH, OUTBOX_OLDEST_AGE, upkeep,
    },
};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the database may take to count.
const COUNT_TIMEOUT: Duration = Duration::from_secs(10);

/// Samples every five seconds, the first time at once, until `stop`. What the database holds is counted by the processes
/// that settle orders.
pub async fn run(app: App, settles_orders: bool, stop: CancellationToken) {
    let task = Task {
        name: None,
        action: "sample the gauges",
        interval: SAMPLE_INTERVAL,
        interval_while_full: SAMPLE_INTERVAL,
    };
    poll_until_stopped(&stop, task, || async {
        tokio::select! {
            () = stop.cancelled() => Ok(Round::Done),
            sampled = sample(&app, settles_orders) => sampled.map(|()| Round::Done),
        }
    })
    .await;
}

/// While the queue or the database is unreachable, its gauges stay as they were.
async fn sample(app: &App, settles_orders: bool) -> Result<(), RoundError> {
    upkeep();
    let (open, idle) = app.db.connections();
    gauge!(DATABASE_CONNECTIONS, "state" => "idle").set(idle);
    gauge!(DATABASE_CONNECTIONS, "state" => "used").set(open.saturating_sub(idle));

    let (dead_letters, backlog) = tokio::join!(count_dead_letters(app), async {
        if settles_orders {
            app.db.timeout(COUNT_TIMEOUT, count_backlog(app)).await?;
        }
        Ok(())
    });
    dead_letters.and(backlog)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge")]
async fn count_dead_letters(app: &App) -> Result<(), RoundError> {
    if let Some(depth) = app.queue.dead_letter_depth().await? {
        gauge!(DEAD_LETTERS_WAITING).set(depth as f64);
    }
    Ok(())
}

/// Counts the open holds, and the events of the outbox.
#[expect(clippy::cast_precision_loss, reason = "gauges")]
async fn count_backlog(app: &App) -> Result<(), Error> {
    let holds = orders::count_open_holds(app.db.read()).await?;
    gauge!(HOLDS_OPEN).set(holds as f64);

    let events = outbox::len(app.db.read()).await?;
    gauge!(OUTBOX_DEPTH).set(events as f64);
    let oldest = outbox::oldest(app.db.read()).await?;
    let age = oldest.map(|oldest| oldest.age_at(app.db.time()));
    gauge!(OUTBOX_OLDEST_AGE).set(age.unwrap_or_default());
    Ok(())
}
