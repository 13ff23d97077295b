//! Whether this process runs, and whether it can do its work.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use poem::web::Data;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi, types::Example};
use serde::Serialize;
use tokio::time::timeout;

use super::{Tag, errors::INTERNAL};
use crate::{
    app::App,
    http::{json::RawJson, problem::problems},
};

/// How long a part may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What this process does, which decides what it cannot be ready without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Needs the database. Payments are accepted without the queue, and answers come without the cache.
    Serve,
    /// Needs the database and the queue.
    Work,
}

pub struct HealthApi;

/// The parts of the process, once it has connected to its database. Before that it is alive and not ready.
#[derive(Clone, Default)]
pub struct Started(Arc<OnceLock<App>>);

impl Started {
    /// To be called once.
    pub fn set(&self, app: App) {
        let _ = self.0.set(app);
    }
}

impl From<App> for Started {
    fn from(app: App) -> Self {
        Self(Arc::new(OnceLock::from(app)))
    }
}

/// Whether a part answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, Serialize)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    Up,
    Down,
}

/// The state of the parts.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
#[oai(example)]
pub struct Health {
    /// Whether this process can do its work now.
    pub ready: bool,
    /// Nothing works without it. It is up if it takes writes.
    pub database: HealthState,
    /// Payments are accepted without it, and settled once it is back.
    pub queue: HealthState,
    /// Answers come without it, more slowly.
    pub cache: HealthState,
}

#[derive(ApiResponse)]
pub enum LiveAnswer {
    /// The process answers.
    #[oai(status = 200)]
    Live(RawJson<Health>),
}

#[derive(ApiResponse)]
pub enum ReadyAnswer {
    /// Ready.
    #[oai(status = 200)]
    Ready(RawJson<Health>),
    /// Not ready: see which part is down.
    #[oai(status = 503)]
    NotReady(RawJson<Health>),
}

problems!(HealthProblem: INTERNAL);

#[OpenApi(tag = "Tag::Health")]
impl HealthApi {
    /// Is it alive?
    ///
    /// 200 as long as the process answers, with the state of its parts. Restart it when this fails.
    #[oai(path = "/healthz", method = "get", operation_id = "getHealth")]
    async fn healthz(&self, started: Data<&Started>, role: Data<&Role>) -> Result<LiveAnswer, HealthProblem> {
        let health = Box::pin(check_health(&started, *role.0)).await;

        Ok(LiveAnswer::Live(RawJson::of(&health)?))
    }

    /// Is it ready?
    ///
    /// 503 while it cannot do its work. Send it no requests then, but do not restart it.
    #[oai(path = "/readyz", method = "get", operation_id = "getReadiness")]
    async fn readyz(&self, started: Data<&Started>, role: Data<&Role>) -> Result<ReadyAnswer, HealthProblem> {
        let health = Box::pin(check_health(&started, *role.0)).await;

        let body = RawJson::of(&health)?;
        Ok(if health.ready {
            ReadyAnswer::Ready(body)
        } else {
            ReadyAnswer::NotReady(body)
        })
    }
}

async fn check_health(started: &Started, role: Role) -> Health {
    let Some(app) = started.0.get() else {
        return Health {
            ready: false,
            database: HealthState::Down,
            queue: HealthState::Down,
            cache: HealthState::Down,
        };
    };

    let (database, queue, cache) = tokio::join!(
        probe(async { app.db.timeout(PROBE_TIMEOUT, app.db.check_writable()).await.is_ok() }),
        probe(async { app.queue.ping().await.is_ok() }),
        probe(async { app.cache.ping().await.is_ok() }),
    );

    Health {
        ready: database == HealthState::Up && (role == Role::Serve || queue == HealthState::Up),
        database,
        queue,
        cache,
    }
}

async fn probe(part: impl Future<Output = bool>) -> HealthState {
    if timeout(PROBE_TIMEOUT, part).await.unwrap_or(false) {
        HealthState::Up
    } else {
        HealthState::Down
    }
}

impl Example for Health {
    fn example() -> Self {
        Self {
            ready: true,
            database: HealthState::Up,
            queue: HealthState::Up,
            cache: HealthState::Up,
        }
    }
}
