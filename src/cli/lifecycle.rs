//! The life of a long-running process. It starts, runs until a signal comes or one of its parts ends, and then stops:
//! it takes on nothing new, and finishes what it has begun within a time limit.

use std::{future::poll_fn, task::Poll, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        self,
        health::{Role, Started},
    },
    config::{Bind, Config},
    server,
};

/// How long a process may take to finish what it has begun. It has ten seconds from the signal to its end; the rest is
/// for exporting the last traces.
const GRACE: Duration = Duration::from_millis(8_500);

/// The exit code of a process that a signal ended, as shells report it for SIGINT: 128 + 2.
const INTERRUPTED: i32 = 130;

/// A token that the first SIGTERM or SIGINT cancels. A second SIGINT ends the process at once: what is accepted is stored,
/// and the next start goes on with it.
pub(super) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        on_signal.cancel();

        interrupt.recv().await;
        tracing::warn!("SIGINT again: ending at once");
        std::process::exit(INTERRUPTED);
    });
    Ok(stop)
}

/// The first line of the log: which version, with which back ends.
pub(super) fn log_start(config: &Config, role: &str) {
    // What stands behind the scheme may be a password.
    let scheme = |url: &str| url.split(':').next().unwrap_or_default().to_owned();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        role,
        database = scheme(&config.database.url),
        queue = scheme(&config.queue.url),
        cache = scheme(&config.cache.url),
        "starting"
    );
}

/// Starts something that may take long, such as connecting to a database that is not up yet. `None` if `stop` came
/// first.
pub(super) async fn unless_stopped<T>(
    stop: &CancellationToken,
    starting: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        started = starting => started.map(Some),
    }
}

/// Starts the server of `/healthz`, `/readyz` and `/metrics`, unless it is switched off. It answers while the process still
/// waits for its database; what this returns is to be set after that.
pub(super) async fn spawn_management_server(
    servers: &mut JoinSet<()>,
    config: &Config,
    management: Bind,
    role: Role,
    stop: &CancellationToken,
) -> anyhow::Result<Started> {
    let started = Started::default();
    let Bind::At(address) = management else {
        return Ok(started);
    };

    let bound = server::bind(address, "management_bind").await?;
    tracing::info!(address = %bound.address, "management");
    let routes = api::management_routes(config, started.clone(), role);
    servers.spawn(server::run(bound, routes, server::Settings::of(config), stop.clone()));
    Ok(started)
}

/// Waits for `stop`. If a part of the process ends before that, which it never should, this cancels `stop` and fails:
/// the process does not go on without its worker, say, but ends, so that whatever supervises it starts it again.
pub(super) async fn run_until<const N: usize>(
    stop: &CancellationToken,
    mut parts: [&mut JoinSet<()>; N],
) -> anyhow::Result<()> {
    let any_end = poll_fn(|context| {
        let mut polls = parts.iter_mut().map(|part| part.poll_join_next(context));
        let end = polls.find_map(|poll| match poll {
            Poll::Ready(Some(end)) => Some(end),
            // A part without tasks, or one whose tasks all run.
            Poll::Ready(None) | Poll::Pending => None,
        });
        end.map_or(Poll::Pending, Poll::Ready)
    });
    let end = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        end = any_end => end,
    };

    stop.cancel();
    end.context("a part of the process panicked, so the whole process stops")?;
    bail!("a part of the process ended before it was asked to, so the whole process stops")
}

/// Waits until all tasks have ended.
pub(super) async fn join_all(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Waits until the parts of the process have stopped, for [`GRACE`] at most.
pub(super) async fn within_grace(stopping: impl Future<Output = ()>) {
    if timeout(GRACE, stopping).await.is_ok() {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopping timed out; a batch that was not finished is delivered again");
    }
}
