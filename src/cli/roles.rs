//! The long-running roles: what each is made of, and how it stops.

use std::{future::poll_fn, net::SocketAddr, task::Poll, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::print::print_line;
use crate::{
    api::{self, auth::jwt, health::Role},
    app::App,
    config::{Auth, Bind, Config, ConfigError, reachable},
    domain::catalog::{self, ProductQuery},
    http::server,
    intake::OrderIntake,
    seed::{self, Plan},
    tasks::order_watch::OrderWatch,
    tasks::{auditor, sweeper, worker},
    telemetry,
};

const SERVE_MANAGEMENT_PORT: u16 = 8081;
const WORK_MANAGEMENT_PORT: u16 = 8082;
/// How long a role may take over what is in hand when it is told to stop, whatever that waits for. The last traces and the
/// end of the process need the rest of ten seconds.
const GRACE: Duration = Duration::from_millis(8_500);
/// How long the last requests may take, so that the worker still has time; the sweeper notify_attempts for what is left.
const LAST_PUBLISH: Duration = Duration::from_secs(1);
const DEMO: Plan = Plan {
    products: 50,
    orders: 0,
    seed: 1,
};

/// The API; with the in-process queue, the worker as well.
pub(super) async fn serve(config: Config, demo: bool) -> anyhow::Result<()> {
    // As many connections as the system lets this process have.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let (bind, management) = (config.api_bind()?, config.management_bind(SERVE_MANAGEMENT_PORT)?);
    let stop = stop_on_signal()?;
    let Some(app) = unless_stopped(&stop, Box::pin(connect(config, demo))).await? else {
        return Ok(());
    };
    let bound = server::bind(bind, "bind").await?;
    let address = reachable(bound.address);
    let mut servers = JoinSet::new();
    manage(&mut servers, management, &app, Role::Serve, &stop).await?;
    let (desk, mut ringing) = OrderIntake::start(&app);
    servers.spawn(telemetry::run(app.clone(), stop.clone()));
    let watch = OrderWatch::new(app.config.max_waiting, stop.clone());
    let routes = api::routes(&app, desk, watch.clone())?;
    servers.spawn(server::run(bound, routes, app.config.max_connections, stop.clone()));
    servers.spawn(watch.run(app.clone()));
    // The worker goes on until the API has let go of its last request and rung for it.
    let served = CancellationToken::new();
    let mut background = if app.queue.is_memory() {
        settle_in_background(&app, &served)
    } else {
        JoinSet::new()
    };
    tracing::info!(%address, docs = format!("http://{address}/docs"), "serving");
    if demo {
        print_demo(&app.config, address)?;
    }
    let outcome = run_until(&stop, [&mut servers, &mut ringing, &mut background]).await;
    within_grace(async {
        end_of(servers).await;
        let _ = timeout(LAST_PUBLISH, end_of(ringing)).await;
        served.cancel();
        end_of(background).await;
        app.close().await;
    })
    .await;
    outcome
}

/// The consumer and the sweeper.
pub(super) async fn work(config: Config) -> anyhow::Result<()> {
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
    let stop = stop_on_signal()?;
    let Some(app) = unless_stopped(&stop, Box::pin(connect(config, false))).await? else {
        return Ok(());
    };
    let mut servers = JoinSet::new();
    manage(&mut servers, management, &app, Role::Work, &stop).await?;
    servers.spawn(telemetry::run(app.clone(), stop.clone()));
    let mut background = settle_in_background(&app, &stop);
    tracing::info!("working");
    let outcome = run_until(&stop, [&mut servers, &mut background]).await;
    within_grace(async {
        end_of(servers).await;
        end_of(background).await;
        app.close().await;
    })
    .await;
    outcome
}

/// The parts that every role is made of, on a schema that is up to date.
async fn connect(config: Config, demo: bool) -> anyhow::Result<App> {
    let app = App::connect(config).await?;
    app.check_schema(demo).await?;
    if demo {
        fill_if_empty(&app).await?;
    }
    Ok(app)
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
/// without its worker, print_line, the process stops, to be started again by whoever looks after it.
async fn run_until<const N: usize>(stop: &CancellationToken, mut parts: [&mut JoinSet<()>; N]) -> anyhow::Result<()> {
    let any_end = poll_fn(|context| {
        let mut ends = parts.iter_mut().map(|part| part.poll_join_next(context));
        let end = ends.find_map(|end| match end {
            Poll::Ready(Some(end)) => Some(end),
            Poll::Ready(None) | Poll::Pending => None,
        });
        end.map_or(Poll::Pending, Poll::Ready)
    });
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ended = any_end => ended,
    };
    stop.cancel();
    ended.context("a part of the process panicked, so all of it stops")?;
    bail!("a part of the process ended before it was told to, so all of it stops")
}

async fn end_of(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Waits for what is in hand, for [`GRACE`] at most.
async fn within_grace(ending: impl Future<Output = ()>) {
    if timeout(GRACE, ending).await.is_ok() {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopped with something still in hand; a batch that was given up will come again");
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

fn print_demo(config: &Config, address: SocketAddr) -> anyhow::Result<()> {
    let base = format!("http://{address}");
    let (token, header) = match config.auth {
        Auth::None => (String::new(), ""),
        // Without a secret to sign with, the user puts in a token of their own.
        Auth::Jwt => {
            let token = jwt::mint(config, 1, false, Duration::from_hours(1)).unwrap_or_else(|_| "…".to_owned());
            (format!("TOKEN={token}\n"), " -H \"Authorization: Bearer $TOKEN\"")
        }
    };
    print_line(format_args!(
        "\nTry it ({base}/docs shows the rest):\n\n\
         {token}curl -s{header} '{base}/products?limit=3'; echo\n\
         ORDER=$(curl -s{header} {base}/orders -H 'content-type: application/json' -d '{{\"user_id\":1,\"items\":[{{\"product_id\":1,\"quantity\":2}},{{\"product_id\":2,\"quantity\":1}}]}}' | sed 's/.*\"order_id\":\"\\([^\"]*\\)\".*/\\1/'); echo \"$ORDER\"\n\
         curl -s{header} -X POST {base}/orders/$ORDER/pay; echo; sleep 1; curl -s{header} {base}/orders/$ORDER; echo\n"
    ))
}
