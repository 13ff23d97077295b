//! Keeps the cache to the database that it was filled from: one that is made anew or restored under a running process must not
//! be answered from what was there before.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::poll::{Round, RoundError, Task, poll_until_stopped};
use crate::{app::App, domain::Error};

/// For how long answers of a database that is gone may be given.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the database may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks every second for the identity of the database, until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let task = Task {
        name: Some("database_identity"),
        action: "ask for the identity of the database",
        interval: INTERVAL,
        interval_while_full: INTERVAL,
    };
    poll_until_stopped(&stop, task, || ask(&app)).await;
}

async fn ask(app: &App) -> Result<Round, RoundError> {
    let identity = app.db.timeout(TIMEOUT, app.db.database_identity()).await;

    if app.cache.set_database_identity(identity.map_err(Error::from)?) {
        tracing::info!("the database was restarted, restored or made anew; what was cached of it is not used any more");
    }
    Ok(Round::Done)
}
