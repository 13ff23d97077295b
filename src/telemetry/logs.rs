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

/// What the libraries log unless the filter names them, as in `SHOP_LOG=info,lapin=warn`. Spans of single statements belong
/// into traces, and the database's notices into its own log. `lapin`, `fred` and `sqlx` are off because each outage is logged
/// once, by [`super::outage`].
const LIBRARIES: &str = "lapin=off,fred=off,sqlx=off";

/// The libraries' level, however verbose the shop is to be.
const LIBRARIES_LEVEL: &str = "warn";

/// Installs the subscriber for logs and traces, and the panic hook.
pub(super) fn start(config: &Config) {
    // The configuration has been validated, this filter included.
    let filter = EnvFilter::try_new(directives(&config.log.filter)).unwrap_or_else(|_| EnvFilter::new("info"));

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

/// The configured filter, in which a level alone is the shop's own: `debug` shows what the shop does, not what its libraries
/// do.
fn directives(filter: &str) -> String {
    let own = |directive: &str| {
        let directive = directive.trim();
        match directive {
            _ if directive.contains('=') => directive.to_owned(),
            _ if directive.eq_ignore_ascii_case("off") || directive.eq_ignore_ascii_case("error") => {
                directive.to_owned()
            }
            level => format!("{LIBRARIES_LEVEL},shop={level}"),
        }
    };
    let own: Vec<String> = filter.split(',').map(own).collect();
    format!("{LIBRARIES},{}", own.join(","))
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
            .with_ansi(stderr().is_terminal() && !is_colour_refused())
            .with_writer(stderr)
            .boxed()
    }
}

/// Whether the user wants no colours anywhere: <https://no-color.org>.
fn is_colour_refused() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_alone_is_the_shops_own() {
        assert_eq!(directives("debug"), "lapin=off,fred=off,sqlx=off,warn,shop=debug");
        assert_eq!(
            directives("info, lapin=warn"),
            "lapin=off,fred=off,sqlx=off,warn,shop=info,lapin=warn"
        );
        assert_eq!(directives("off"), "lapin=off,fred=off,sqlx=off,off");
        assert!(EnvFilter::try_new(directives("trace,hyper=debug")).is_ok());
    }
}
