//! Logs, metrics and traces of the process. Of the shop they know the configuration alone.

use crate::config::Config;

pub mod http_metrics;
mod logs;
pub mod metrics;
pub mod outage;
mod process;
pub mod traces;

/// Starts logs and metrics, and traces if the environment names an OTLP endpoint. Call it once, before anything is
/// logged; a second call in the same process (tests) changes nothing.
pub fn start(config: &Config) {
    metrics::recorder();
    logs::start(config);
}
