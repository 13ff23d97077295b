//! Watches what the process depends on: the database, the queue and the cache, as far as they are outside of the process. Each
//! is asked once a second whether it does what the shop needs of it, so that an outage shows although nobody orders.

use std::{fmt::Display, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    domain::Error,
    telemetry::outage::{CACHE, DATABASE, Outage, QUEUE},
};

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the database may take to say that it takes writes.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process that has just started has for its connection to Redis, before it counts as an outage that there is none.
const CACHE_WAIT: Duration = Duration::from_secs(2);

/// Watches until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let watching = async {
        tokio::join!(
            watch(&DATABASE, || async {
                let probe = app.db.timeout(DATABASE_TIMEOUT, app.db.check_writable());
                probe.await.map_err(Error::from)
            }),
            async {
                if !app.queue.is_memory() {
                    watch(&QUEUE, || app.queue.ping()).await;
                }
            },
            async {
                if !app.cache.is_memory() {
                    app.cache.until_connected(CACHE_WAIT).await;
                    watch(&CACHE, || app.cache.ping()).await;
                }
            },
        )
    };

    tokio::select! {
        () = stop.cancelled() => {}
        _ = watching => {}
    }
}

async fn watch<E: Display, F: Future<Output = Result<(), E>>>(outage: &Outage, probe: impl Fn() -> F) {
    let mut tick = interval(PROBE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

    loop {
        tick.tick().await;
        outage.record_probe(probe().await);
    }
}

/// Records that work failed, if that is because the database is not available. Returns whether it is: then the failure is a
/// part of the outage, and the log needs nothing else.
pub(super) fn record_database_outage(error: &Error) -> bool {
    if error.is_outage() {
        DATABASE.record_failure(error);
    }
    error.is_outage()
}
