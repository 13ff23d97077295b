//! Samples the gauges whose values change without an event to count, and keeps the histograms small.

use std::time::Duration;

use metrics::gauge;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    telemetry::metrics::{DATABASE_CONNECTIONS, DEAD_LETTERS_WAITING, upkeep},
};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Samples every five seconds, the first time at once, until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let mut tick = interval(SAMPLE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }

        upkeep();
        let (open, idle) = app.db.connections();
        gauge!(DATABASE_CONNECTIONS, "state" => "idle").set(idle);
        gauge!(DATABASE_CONNECTIONS, "state" => "used").set(open.saturating_sub(idle));
        tokio::select! {
            () = stop.cancelled() => return,
            () = count_dead_letters(&app) => {}
        }
    }
}

/// While the queue is unreachable, the gauge stays as it was.
#[expect(clippy::cast_precision_loss, reason = "a gauge")]
async fn count_dead_letters(app: &App) {
    match app.queue.dead_letter_depth().await {
        Ok(Some(depth)) => gauge!(DEAD_LETTERS_WAITING).set(depth as f64),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "could not count the dead letters"),
    }
}
