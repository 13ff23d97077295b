//! The log: its format, what it leaves out, and panics as lines of it. It goes to standard error, so that standard
//! output holds nothing but what a command prints.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{IsTerminal as _, stderr},
    panic::{self, PanicHookInfo},
};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, filter_fn},
    fmt,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::traces;
use crate::config::{Config, LogFormat};

/// What precedes the configured filter, which can override it: `SHOP_LOG=info,lapin=warn`.
///
/// Spans of single statements belong into traces, and the database's notices into its own log. `lapin` is off because
/// the caller logs each failure of the broker once; `lapin` would log it again, and every unroutable message as well.
const DEFAULT_DIRECTIVES: &str = "sea_orm=warn,sqlx=warn,lapin=off";

/// Installs the subscriber for logs and traces, and the panic hook.
pub(super) fn start(config: &Config) {
    // The configuration has been validated, this filter included.
    let filter = EnvFilter::try_new(format!("{DEFAULT_DIRECTIVES},{}", config.log.filter))
        .unwrap_or_else(|_| EnvFilter::new("info"));

    // A second start in the same process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry()
        .with(format_layer(config.log.format).with_filter(filter.and(filter_fn(holds_no_secret))))
        .with(traces::layer())
        .try_init();

    let default_hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if tracing::enabled!(Level::ERROR) {
            log_panic(panic);
        } else {
            default_hook(panic);
        }
    }));
}

/// JSON, one object a line, or text, which has colours on a terminal.
fn format_layer<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };

    if json {
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
    }
}

/// Holds whatever the configured filter says: below these levels the libraries log URLs with their passwords.
fn holds_no_secret(metadata: &Metadata<'_>) -> bool {
    const MOST_VERBOSE: [(&str, Level); 4] = [
        ("sqlx_postgres::options", Level::ERROR),
        ("lapin", Level::INFO),
        ("amq_protocol", Level::INFO),
        ("sea_orm", Level::DEBUG),
    ];

    !MOST_VERBOSE
        .iter()
        .any(|(target, level)| metadata.target().starts_with(target) && metadata.level() > level)
}

/// Logs a panic as one line. It holds a backtrace if `RUST_BACKTRACE` asks for one.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let cause = panic.payload_as_str();
    let location = panic.location().map(ToString::to_string);

    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());

    tracing::error!(cause, location, backtrace, "panicked");
}
