//! The command line. Each command is a few lines that call one function.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    api,
    app::{self, App},
    config::{Config, Overrides},
    db::schema::{self, Change},
    domain::catalog,
    queue::asyncapi,
    seed::{self, Plan},
    telemetry,
};

mod dead_letters;
mod health;
mod print;
mod roles;
mod token;
mod verify;

use print::print_line;

/// Ended with an answer that has been printed already; exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub struct Failed;

/// A headless order service: never a unit sold twice, never an accepted order lost.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    about,
    max_term_width = 110,
    after_help = "Example, without any server:\n  shop serve --demo\n\nOn PostgreSQL, RabbitMQ and Redis:\n  \
                  export SHOP_DATABASE_URL=postgres://shop:secret@127.0.0.1/shop\n  \
                  export SHOP_QUEUE_URL=amqp://guest:guest@127.0.0.1:5672/%2f SHOP_CACHE_URL=redis://127.0.0.1:6379\n  \
                  shop migrate && shop seed\n  shop serve     # and, in another terminal:\n  shop work"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer HTTP: the API, with Swagger UI at /docs.
    #[command(after_help = "Example:\n  shop serve --bind 127.0.0.1:8080")]
    Serve(Serve),
    /// Settle paid orders from the queue. Run as many as you like.
    #[command(after_help = "Example:\n  shop work --queue-url amqp://guest:guest@127.0.0.1:5672/%2f")]
    Work,
    /// Change the database's schema; `up` when nothing is said.
    #[command(after_help = "Example:\n  shop migrate status")]
    Migrate(Migrate),
    /// Fill the catalogue with believable products, and orders if wanted. Adds nothing twice.
    #[command(after_help = "Example:\n  shop seed --products 200 --orders 1000 --seed 7")]
    Seed(Seed),
    /// Check the books; exit code 1 and a table when something does not add up.
    #[command(after_help = "Example:\n  shop verify --max-age 10m")]
    Verify(verify::Verify),
    /// Look at what could not be processed, send it again, or drop it; `list` when nothing is said.
    #[command(after_help = "Example:\n  shop dead-letters list")]
    DeadLetters(dead_letters::DeadLetters),
    /// Print the OpenAPI document, or the AsyncAPI document.
    #[command(
        after_help = "Example:\n  shop openapi --yaml > openapi.yaml\n  shop openapi --async --yaml > asyncapi.yaml"
    )]
    Openapi(Openapi),
    /// Mint a token for trying the API out when authentication is on.
    #[command(after_help = "Example:\n  shop token --user 1 --admin --ttl 1h")]
    Token(token::Token),
    /// Ask a running `serve` or `work` whether it is ready; exit code 0 or 1.
    #[command(after_help = "Example:\n  shop health --management-bind 127.0.0.1:8082")]
    Health,
}

#[derive(Debug, Args)]
struct Serve {
    /// Bring the schema up to date, fill an empty catalogue, and print curl lines to try.
    #[arg(long)]
    demo: bool,
}

#[derive(Debug, Args)]
struct Migrate {
    #[arg(value_enum, default_value_t = MigrateTo::Up)]
    to: MigrateTo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MigrateTo {
    /// Apply what is pending.
    Up,
    /// Take the newest step back.
    Down,
    /// Say what is applied and what is pending.
    Status,
    /// Take every step back and apply all again. Everything stored is lost.
    Fresh,
}

#[derive(Debug, Args)]
struct Seed {
    /// Products to add, 0 to 1,000,000.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    products: u32,
    /// Orders to add, 0 to 1,000,000: most of them paid and settled.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    orders: u32,
    /// The same number gives the same data.
    #[arg(long = "seed", value_name = "S", default_value_t = 1)]
    chance: u64,
}

#[derive(Debug, Args)]
struct Openapi {
    /// As YAML instead of JSON.
    #[arg(long)]
    yaml: bool,
    /// The AsyncAPI document of the messages instead.
    #[arg(long = "async")]
    messages: bool,
}

/// A flag beats the environment, which beats the file, which beats the defaults.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration (also as SHOP_… in the environment; all keys: config/default.toml)")]
struct Settings {
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
    /// ISO 4217.
    #[arg(long, global = true, value_name = "CODE")]
    currency: Option<String>,
    /// Who may call: none trusts everybody, jwt asks for a token.
    #[arg(long, global = true, value_name = "WHO")]
    auth: Option<String>,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// [`crate::config::ConfigError`] for a configuration that cannot be used, [`Failed`] when the command has already
    /// said what is wrong, else one sentence.
    pub async fn run(self) -> anyhow::Result<()> {
        if let Command::Openapi(openapi) = &self.command {
            return openapi.print();
        }
        let config = Config::load(&self.settings.overrides())?;
        telemetry::start(&config);
        match self.command {
            Command::Serve(serve) => Box::pin(roles::serve(config, serve.demo)).await,
            Command::Work => Box::pin(roles::work(config)).await,
            Command::Migrate(migrate) => migrate.run(&config).await,
            Command::Seed(seed) => seed.run(config).await,
            Command::Verify(verify) => verify.run(&config).await,
            Command::DeadLetters(dead_letters) => dead_letters.run(&config).await,
            Command::Token(token) => token.print(&config),
            Command::Health => health::ask(&config).await,
            Command::Openapi(openapi) => openapi.print(),
        }
    }
}

impl Settings {
    fn overrides(&self) -> Overrides {
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
        Overrides {
            file: self.config.clone(),
            flags: flags
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.clone()?)))
                .collect(),
        }
    }
}

impl Migrate {
    async fn run(&self, config: &Config) -> anyhow::Result<()> {
        let db = app::connect_database(config).await?;
        let change = match self.to {
            MigrateTo::Up => Some(Change::Up),
            MigrateTo::Down => Some(Change::Down),
            MigrateTo::Fresh => Some(Change::Fresh),
            MigrateTo::Status => None,
        };
        if let Some(change) = change {
            app::migrate(&db, config, change).await?;
        }
        for step in schema::status(db.read())
            .await
            .context("cannot read the state of the schema")?
        {
            print_line(format_args!("{:<8} {}", step.state.name(), step.name))?;
        }
        db.close().await;
        Ok(())
    }
}

impl Seed {
    async fn run(&self, config: Config) -> anyhow::Result<()> {
        let app = App::connect(config).await?;
        app.check_schema(false).await?;
        let nothing_to_order = self.orders > 0 && self.products == 0 && catalog::ids(app.db.read()).await?.is_empty();
        ensure!(!nothing_to_order, "orders need products: give --products as well");
        let plan = Plan {
            products: self.products as usize,
            orders: self.orders as usize,
            seed: self.chance,
        };
        let added = seed::fill(&app, plan)
            .await
            .context("the database could not be filled")?;
        app.close().await;
        print_line(format_args!(
            "added {} products and {} orders",
            added.products, added.orders
        ))
    }
}

impl Openapi {
    fn print(&self) -> anyhow::Result<()> {
        let document = if self.messages {
            asyncapi::document()
        } else {
            api::openapi_document()
        };
        if self.yaml {
            print_line(api::to_yaml(&document).trim_end())
        } else {
            print_line(serde_json::to_string_pretty(&document)?)
        }
    }
}

/// A whole number and a unit: 90s, 5m or 1h.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).len());
    let seconds_each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("give a number and a unit: 90s, 5m or 1h".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{number:?} is not a whole number"))?;
    let seconds = number.checked_mul(seconds_each).ok_or("that is too long")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert!(["5", "m", "1d"].iter().all(|bad| parse_duration(bad).is_err()));
    }
}
