//! The flags of every command: the configuration file, and the settings that are worth a flag.

use std::path::PathBuf;

use clap::Args;

use crate::config::Overrides;

/// A flag overrides the environment, which overrides the file, which overrides the defaults.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration (also as SHOP_… in the environment; all keys: config/default.toml)")]
pub(super) struct Flags {
    /// A TOML file with keys as in config/default.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// sqlite: or postgres:
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// memory: or amqp: or amqps:
    #[arg(long, global = true, value_name = "URL")]
    queue_url: Option<String>,
    /// memory: or redis: or rediss:
    #[arg(long, global = true, value_name = "URL")]
    cache_url: Option<String>,
    /// Where the API listens.
    #[arg(long, global = true, value_name = "ADDRESS")]
    bind: Option<String>,
    /// Where /healthz, /readyz and /metrics listen, or `off`.
    #[arg(long, global = true, value_name = "ADDRESS")]
    management_bind: Option<String>,
    /// A `tracing` filter, such as info or shop=debug.
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// The currency of every price, by its ISO 4217 code.
    #[arg(long, global = true, value_name = "CODE")]
    currency: Option<String>,
    /// Who may call: none trusts everybody, jwt requires a token.
    #[arg(long, global = true, value_name = "MODE")]
    auth: Option<String>,
}

impl Flags {
    pub(super) fn overrides(&self) -> Overrides {
        let flags = [
            ("database_url", &self.database_url),
            ("queue_url", &self.queue_url),
            ("cache_url", &self.cache_url),
            ("bind", &self.bind),
            ("management_bind", &self.management_bind),
            ("log", &self.log),
            ("log_format", &self.log_format),
            ("currency", &self.currency),
            ("auth", &self.auth),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.clone()?)))
            .collect();

        Overrides {
            file: self.config.clone(),
            flags: given,
        }
    }
}
