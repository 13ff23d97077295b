//! Keeps the cache to the database that it was filled from: one that is made anew or restored under a running process must not
//! be answered from what was there before.

use std::time::Duration;

use sea_orm::DbErr;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// For how long answers of a database that is gone may be given.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the database may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks every second for the identity of the database, until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }

        match app.db.timeout(TIMEOUT, app.db.database_identity()).await {
            Ok(identity) => {
                if app.cache.set_database_identity(identity) {
                    tracing::info!(
                        "the database was restarted, restored or made anew; what was cached of it is not used any more"
                    );
                }
            }
            Err::<_, DbErr>(error) => tracing::debug!(%error, "the database does not say which one it is; retrying"),
        }
    }
}
