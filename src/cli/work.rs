//! `shop work`: settles paid orders from the queue. Any number of these processes share the work.

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lifecycle::{
    join_all, log_start, run_until, spawn_management_server, stop_on_signal, unless_stopped, within_grace,
};
use crate::{
    api::health::Role,
    app::App,
    config::Config,
    tasks::{auditor, database_identity, dependencies, expiry, gauges, relay, sweeper, worker},
};

/// The default port of the management server.
pub(super) const MANAGEMENT_PORT: u16 = 8082;

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    if config.queue.url == "memory:" {
        let problem = "is memory:, a queue inside `shop serve`, which settles its orders by itself; `shop work` needs \
                       a queue that other processes can reach, such as \
                       SHOP_QUEUE_URL=amqp://guest:guest@127.0.0.1:5672/%2f";
        return Err(config.invalid("queue_url", problem).into());
    }
    let management = config.management_bind(MANAGEMENT_PORT)?;

    log_start(&config, "work");
    let stop = stop_on_signal()?;
    let mut servers = JoinSet::new();
    let started = spawn_management_server(&mut servers, &config, management, Role::Work, &stop).await?;
    let Some(app) = unless_stopped(&stop, Box::pin(connect(config))).await? else {
        return Ok(());
    };
    started.set(app.clone());

    servers.spawn(gauges::run(app.clone(), true, stop.clone()));
    servers.spawn(database_identity::run(app.clone(), stop.clone()));
    servers.spawn(dependencies::run(app.clone(), stop.clone()));
    let mut settlement = spawn_settlement(&app, &stop);
    tracing::info!("working");

    let outcome = run_until(&stop, [&mut servers, &mut settlement]).await;
    within_grace(async {
        join_all(servers).await;
        join_all(settlement).await;
        app.close().await;
    })
    .await;
    outcome
}

async fn connect(config: Config) -> anyhow::Result<App> {
    let app = App::connect(config).await?;
    app.check_schema(false).await?;
    app.check_sessions().await?;
    Ok(app)
}

/// Starts the tasks of a process that settles orders: the worker, the sweeper, the expiry of holds, the relay,
/// and the auditor.
pub(super) fn spawn_settlement(app: &App, stop: &CancellationToken) -> JoinSet<()> {
    let mut settlement = JoinSet::new();
    settlement.spawn(worker::run(app.clone(), stop.clone()));
    settlement.spawn(sweeper::run(app.clone(), stop.clone()));
    settlement.spawn(expiry::run(app.clone(), stop.clone()));
    settlement.spawn(relay::run(app.clone(), stop.clone()));
    settlement.spawn(auditor::run(app.clone(), stop.clone()));
    settlement
}
