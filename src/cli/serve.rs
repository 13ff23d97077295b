//! `shop serve`: the HTTP API. With the queue inside the process, it settles the orders as well.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    lifecycle::{
        join_all, log_start, run_until, spawn_management_server, stop_on_signal, unless_stopped, within_grace,
    },
    output::print_line,
    work::spawn_settlement,
};
use crate::{
    api::{self, auth::jwt, health::Role},
    app::App,
    config::{AuthMode, Config, reachable},
    domain::catalog::{self, ProductQuery},
    intake::OrderIntake,
    seed::{self, Plan},
    server,
    tasks::{database_identity, dependencies, gauges, order_watch::OrderWatch},
};

/// The default port of the management server.
pub(super) const MANAGEMENT_PORT: u16 = 8081;
/// How long publishing the last settle requests may take when the process stops, so that time is left for the worker.
/// The sweeper of another process, or of the next start, publishes the rest.
const LAST_PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a start waits for Redis, so that the first requests find their carts. Without Redis it goes on.
const CACHE_WAIT: Duration = Duration::from_millis(500);
/// The catalogue of `--demo`.
const DEMO: Plan = Plan {
    products: 50,
    orders: 0,
    seed: 1,
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Bring the schema up to date, fill an empty catalogue, and print curl lines to try.
    #[arg(long)]
    demo: bool,
}

impl Serve {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        // Every connection takes a file descriptor: have as many as the system allows.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let bind = config.api_bind()?;
        let management = config.management_bind(MANAGEMENT_PORT)?;

        log_start(&config, "serve");
        let stop = stop_on_signal()?;
        let mut servers = JoinSet::new();
        let started = spawn_management_server(&mut servers, &config, management, Role::Serve, &stop).await?;
        let Some(app) = unless_stopped(&stop, Box::pin(self.connect(config))).await? else {
            return Ok(());
        };
        started.set(app.clone());

        let bound = server::bind(bind, "bind").await?;
        let (address, local) = (bound.address, reachable(bound.address));
        servers.spawn(gauges::run(app.clone(), app.queue.is_memory(), stop.clone()));
        servers.spawn(database_identity::run(app.clone(), stop.clone()));
        servers.spawn(dependencies::run(app.clone(), stop.clone()));

        let (intake, mut publishing) = OrderIntake::start(&app);
        let watch = OrderWatch::new(app.config.limits.max_waiting, stop.clone());
        let routes = api::routes(&app, intake, watch.clone())?;
        servers.spawn(server::run(
            bound,
            routes,
            server::Settings::of(&app.config),
            stop.clone(),
        ));
        servers.spawn(watch.run(app.clone()));

        // Settlement has its own stop: it ends after the last settle requests are published.
        let stop_settlement = CancellationToken::new();
        let mut settlement = if app.queue.is_memory() {
            spawn_settlement(&app, &stop_settlement)
        } else {
            JoinSet::new()
        };

        tracing::info!(%address, docs = format!("http://{local}/docs"), "serving");
        if self.demo {
            print_demo(&app.config, local)?;
        }

        let outcome = run_until(&stop, [&mut servers, &mut publishing, &mut settlement]).await;
        within_grace(async {
            join_all(servers).await;
            let _ = timeout(LAST_PUBLISH_TIMEOUT, join_all(publishing)).await;
            stop_settlement.cancel();
            join_all(settlement).await;
            app.close().await;
        })
        .await;
        outcome
    }

    async fn connect(&self, config: Config) -> anyhow::Result<App> {
        let app = App::connect(config).await?;
        app.check_schema(self.demo).await?;
        app.check_sessions().await?;
        app.db
            .transaction(|txn| async move { catalog::fill_search_names(&txn).await })
            .await
            .context("products without a search name could not be given one")?;
        app.cache.until_connected(CACHE_WAIT).await;
        if self.demo {
            fill_if_empty(&app).await?;
        }
        Ok(app)
    }
}

async fn fill_if_empty(app: &App) -> anyhow::Result<()> {
    let any_product = ProductQuery {
        limit: 1,
        after: 0,
        name_contains: None,
        sku: None,
        active: None,
    };
    let is_empty = catalog::list(app.db.read(), &any_product).await?.products.is_empty();

    if is_empty {
        seed::fill(app, DEMO)
            .await
            .context("the demo catalogue could not be added")?;
    }
    Ok(())
}

/// Prints `curl` lines that list products, create an order whose units are set aside, pay it, and refund one unit of it.
fn print_demo(config: &Config, address: SocketAddr) -> anyhow::Result<()> {
    let base = format!("http://{address}");
    let (tokens, user, admin) = match config.auth.mode {
        AuthMode::None => (String::new(), "", ""),
        AuthMode::Jwt => {
            // Without a secret to sign with, users put in tokens of their own.
            let token =
                |is_admin| jwt::mint(config, 1, is_admin, Duration::from_hours(1)).unwrap_or_else(|_| "…".to_owned());
            (
                format!("TOKEN={}\nADMIN={}\n", token(false), token(true)),
                " -H \"Authorization: Bearer $TOKEN\"",
                " -H \"Authorization: Bearer $ADMIN\"",
            )
        }
    };
    let json = "-H 'content-type: application/json'";

    print_line(format_args!(
        "\nTry it ({base}/docs shows the rest):\n\n\
         {tokens}curl -s{user} '{base}/products?limit=3'; echo\n\
         ORDER=$(curl -s{user} {base}/orders {json} -d '{{\"user_id\":1,\"items\":[{{\"product_id\":1,\"quantity\":2}},{{\"product_id\":2,\"quantity\":1}}],\"hold_seconds\":600}}' | sed 's/.*\"order_id\":\"\\([^\"]*\\)\".*/\\1/'); echo \"$ORDER\"\n\
         curl -s{user} -X POST -H 'Prefer: wait=10' {base}/orders/$ORDER/pay; echo\n\
         curl -s{admin} {base}/orders/$ORDER/refunds {json} -H \"Idempotency-Key: $ORDER\" -d '{{\"items\":[{{\"product_id\":1,\"quantity\":1,\"restock\":true}}],\"reason\":\"returned\"}}'; echo\n"
    ))
}
