//! What the process says about itself: logs, figures and traces.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{IsTerminal as _, stderr},
    panic::{self, PanicHookInfo},
    time::Duration,
};

use ::metrics::gauge;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, filter_fn},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    app::App,
    config::{Config, LogFormat},
};

pub mod metrics;
pub mod traces;

/// How often figures that nobody pushes are taken.
const EVERY: Duration = Duration::from_secs(5);
/// Spans of single statements belong to traces and would only clutter the log, as would the notices of the database.
/// What goes wrong with the broker is logged once, by whoever asked; `lapin` would log it again, and a line for every
/// message that could not be routed. `SHOP_LOG=info,lapin=warn` shows them.
const QUIET: &str = "sea_orm=warn,sqlx=warn,lapin=off";

/// Starts logging to standard error, so that standard output stays for what a command was asked for; and figures, and
/// traces if an OTLP endpoint is named in the environment.
pub fn start(config: &Config) {
    // The filter has been checked with the rest of the configuration.
    let filter =
        EnvFilter::try_new(format!("{QUIET},{}", config.log.filter)).unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match config.log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let log = if json {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(stderr)
            .boxed()
    } else {
        fmt::layer()
            .with_ansi(stderr().is_terminal())
            .with_writer(stderr)
            .boxed()
    };
    metrics::recorder();
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(log.with_filter(filter.and(filter_fn(tells_no_secret))))
        .with(traces::layer())
        .try_init();
    let unlogged = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if tracing::enabled!(Level::ERROR) {
            log_panic(panic);
        } else {
            unlogged(panic);
        }
    }));
}

/// Whatever a filter asks for: below these levels the libraries speak of URLs and passwords.
fn tells_no_secret(metadata: &Metadata<'_>) -> bool {
    const LIMITS: [(&str, Level); 4] = [
        ("sqlx_postgres::options", Level::ERROR),
        ("lapin", Level::INFO),
        ("amq_protocol", Level::INFO),
        ("sea_orm", Level::DEBUG),
    ];
    let speaks_of_them =
        |(target, level): &(&str, Level)| metadata.target().starts_with(target) && metadata.level() > level;
    !LIMITS.iter().any(speaks_of_them)
}

/// A panic is one line of the log like any other.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let (cause, location) = (panic.payload_as_str(), panic.location().map(ToString::to_string));
    // As everywhere in Rust: only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(cause, location, backtrace, "panicked");
}

/// Takes the figures that nobody pushes, until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        metrics::upkeep();
        let (open, idle) = app.db.connections();
        gauge!(metrics::DATABASE_CONNECTIONS, "state" => "idle").set(idle);
        gauge!(metrics::DATABASE_CONNECTIONS, "state" => "used").set(open.saturating_sub(idle));
    }
}
