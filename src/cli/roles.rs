//! The long-running roles: what each is made of, and how it stops.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, auth, desk::Desk, health::Role, server},
    app::App,
    auditor,
    config::{Auth, Bind, Config, ConfigError, reachable},
    domain::catalog::{self, ProductQuery},
    seed::{self, Plan},
    sweeper, telemetry,
    watch::Watch,
    worker,
};

const SERVE_MANAGEMENT_PORT: u16 = 8081;
const WORK_MANAGEMENT_PORT: u16 = 8082;
/// How long a role may take over what is in hand when it is told to stop, whatever that waits for. The last traces and the
/// end of the process need the rest of ten seconds.
const GRACE: Duration = Duration::from_millis(8_500);
const DEMO: Plan = Plan {
    products: 50,
    orders: 0,
    seed: 1,
};

/// The API; with the in-process queue, the worker as well.
pub(super) async fn serve(config: Config, demo: bool) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    within_grace(&stop, serve_until(&stop, config, demo)).await
}

/// The consumer and the sweeper.
pub(super) async fn work(config: Config) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    within_grace(&stop, work_until(&stop, config)).await
}

async fn serve_until(stop: &CancellationToken, config: Config, demo: bool) -> anyhow::Result<()> {
    // As many connections as the system lets this process have.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (bind, management) = (config.api_bind()?, config.management_bind(SERVE_MANAGEMENT_PORT)?);
    let Some(app) = unless_stopped(stop, Box::pin(App::connect(config))).await? else {
        return Ok(());
    };
    app.check_schema(demo).await?;
    if demo {
        fill_if_empty(&app).await?;
    }
    let bound = server::bind(bind, "bind").await?;
    let address = reachable(bound.address);
    let mut servers = JoinSet::new();
    manage(&mut servers, management, &app, Role::Serve, stop).await?;
    let (desk, ringer) = Desk::open(&app);
    servers.spawn(telemetry::run(app.clone(), stop.clone()));
    let watch = Watch::new(app.config.max_waiting, stop.clone());
    let routes = api::routes(&app, desk, watch.clone())?;
    servers.spawn(server::run(bound, routes, app.config.max_connections, stop.clone()));
    servers.spawn(watch.run(app.clone()));
    // The worker goes on until the API has let go of its last request, so that what is paid at the end is settled.
    let served = CancellationToken::new();
    let mut background = if app.queue.is_memory() {
        settle_in_background(&app, &served)
    } else {
        JoinSet::new()
    };
    tracing::info!(%address, docs = format!("http://{address}/docs"), "serving");
    if demo {
        print_demo(&app.config, address);
    }
    let outcome = run_until(stop, &mut servers, &mut background).await;
    end_of(servers).await;
    let _ = timeout(Duration::from_secs(1), ringer).await;
    served.cancel();
    end_of(background).await;
    app.close().await;
    tracing::info!("stopped");
    outcome
}

async fn work_until(stop: &CancellationToken, config: Config) -> anyhow::Result<()> {
    if config.queue_url.starts_with("memory:") {
        return Err(ConfigError::Value {
            key: "queue_url",
            problem:
                "is memory:, which `shop serve` settles by itself; `shop work` needs a queue that other processes \
                      can reach, such as SHOP_QUEUE_URL=amqp://guest:guest@127.0.0.1:5672/%2f"
                    .to_owned(),
        }
        .into());
    }
    let management = config.management_bind(WORK_MANAGEMENT_PORT)?;
    let Some(app) = unless_stopped(stop, Box::pin(App::connect(config))).await? else {
        return Ok(());
    };
    app.check_schema(false).await?;
    let mut servers = JoinSet::new();
    manage(&mut servers, management, &app, Role::Work, stop).await?;
    servers.spawn(telemetry::run(app.clone(), stop.clone()));
    let mut background = settle_in_background(&app, stop);
    tracing::info!("working");
    let outcome = run_until(stop, &mut servers, &mut background).await;
    end_of(servers).await;
    end_of(background).await;
    app.close().await;
    tracing::info!("stopped");
    outcome
}

fn settle_in_background(app: &App, stop: &CancellationToken) -> JoinSet<()> {
    let mut background = JoinSet::new();
    background.spawn(worker::run(app.clone(), stop.clone()));
    background.spawn(sweeper::run(app.clone(), stop.clone()));
    background.spawn(auditor::run(app.clone(), stop.clone()));
    background
}

async fn manage(
    servers: &mut JoinSet<()>,
    management: Bind,
    app: &App,
    role: Role,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Bind::At(address) = management else { return Ok(()) };
    let bound = server::bind(address, "management_bind").await?;
    tracing::info!(address = %bound.address, "management");
    let routes = api::management_routes(app, role);
    servers.spawn(server::run(bound, routes, app.config.max_connections, stop.clone()));
    Ok(())
}

/// Until told to stop, or until any part of the process has ended by itself, which is a fault: rather than to live on
/// without its worker, say, the process stops, to be started again by whoever looks after it.
async fn run_until(
    stop: &CancellationToken,
    servers: &mut JoinSet<()>,
    background: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        Some(ended) = servers.join_next() => ended,
        Some(ended) = background.join_next() => ended,
    };
    stop.cancel();
    ended.context("a part of the process panicked, so all of it stops")
}

async fn end_of(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// The role's own end, or [`GRACE`] after it was told to stop.
async fn within_grace(stop: &CancellationToken, role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let overdue = async {
        stop.cancelled().await;
        sleep(GRACE).await;
    };
    tokio::select! {
        ended = role => ended,
        () = overdue => {
            tracing::warn!("stopped with something still in hand; a batch that was given up will come again");
            Ok(())
        }
    }
}

fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        told.cancel();
    });
    Ok(stop)
}

async fn unless_stopped<T>(
    stop: &CancellationToken,
    starting: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        started = starting => started.map(Some),
    }
}

async fn fill_if_empty(app: &App) -> anyhow::Result<()> {
    let one = ProductQuery {
        limit: 1,
        after: 0,
        name_contains: None,
    };
    if catalog::list(app.db.read(), &one).await?.products.is_empty() {
        seed::fill(app, DEMO)
            .await
            .context("the demo catalogue could not be added")?;
    }
    Ok(())
}

fn print_demo(config: &Config, address: SocketAddr) {
    let base = format!("http://{address}");
    let (token, header) = match config.auth {
        Auth::None => (String::new(), ""),
        // Without a secret to sign with, the user puts in a token of their own.
        Auth::Jwt => {
            let token = auth::mint(config, 1, false, Duration::from_hours(1)).unwrap_or_else(|_| "…".to_owned());
            (format!("TOKEN={token}\n"), " -H \"Authorization: Bearer $TOKEN\"")
        }
    };
    println!(
        "\nTry it ({base}/docs shows the rest):\n\n\
         {token}curl -s{header} '{base}/products?limit=3'; echo\n\
         ORDER=$(curl -s{header} {base}/orders -H 'content-type: application/json' -d '{{\"user_id\":1,\"items\":[{{\"product_id\":1,\"quantity\":2}},{{\"product_id\":2,\"quantity\":1}}]}}' | sed 's/.*\"order_id\":\"\\([^\"]*\\)\".*/\\1/'); echo \"$ORDER\"\n\
         curl -s{header} -X POST {base}/orders/$ORDER/pay; echo; sleep 1; curl -s{header} {base}/orders/$ORDER; echo\n"
    );
}
