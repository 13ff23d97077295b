//! The command line: the commands, the flags that all of them share, and one file for each command.

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{config::Config, telemetry};

mod completions;
mod confirm;
mod dead_letters;
mod duration;
mod flags;
mod health;
mod lifecycle;
mod migrate;
mod openapi;
mod output;
pub mod prune;
mod seed;
mod serve;
mod token;
mod verify;
mod work;

pub use output::{Failed, WrongUsage};

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
    flags: flags::Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP API, with Swagger UI at /docs.
    #[command(after_help = "Example:\n  shop serve --bind 127.0.0.1:8080")]
    Serve(serve::Serve),
    /// Settle paid orders from the queue. Any number of these processes may run.
    #[command(after_help = "Example:\n  shop work --queue-url amqp://guest:guest@127.0.0.1:5672/%2f")]
    Work,
    /// Change the database's schema, `up` by default.
    #[command(after_help = "Example:\n  shop migrate status")]
    Migrate(migrate::Migrate),
    /// Fill the catalogue with believable products, and add orders if wanted. Adds nothing twice.
    #[command(after_help = "Example:\n  shop seed --products 200 --orders 1000 --seed 7")]
    Seed(seed::Seed),
    /// Check the books: exit code 1 and a table if they do not add up.
    #[command(after_help = "Example:\n  shop verify --max-age 10m")]
    Verify(verify::Verify),
    /// Delete old orders. Wants --yes or the database's name typed; the books stay right.
    #[command(after_help = "Example:\n  shop prune --older-than 400d --dry-run")]
    Prune(prune::Prune),
    /// List, replay or purge the messages that could not be processed, `list` by default.
    #[command(after_help = "Example:\n  shop dead-letters list")]
    DeadLetters(dead_letters::DeadLetters),
    /// Print the OpenAPI document, or the AsyncAPI document.
    #[command(
        after_help = "Example:\n  shop openapi --yaml > openapi.yaml\n  shop openapi --async --yaml > asyncapi.yaml"
    )]
    Openapi(openapi::Openapi),
    /// Mint a token for trying out the API when authentication is on.
    #[command(after_help = "Example:\n  shop token --user 1 --admin --ttl 1h")]
    Token(token::Token),
    /// Ask a running `serve` or `work` on this machine whether it is ready: exit code 0 or 1.
    #[command(after_help = "Example:\n  shop health --management-bind 127.0.0.1:8082")]
    Health,
    /// Print completions for a shell.
    #[command(after_help = "Example:\n  shop completions bash > /etc/bash_completion.d/shop")]
    Completions(completions::Completions),
    /// Print the manual page of the program, or of one of its commands.
    #[command(after_help = "Example:\n  shop man serve | man -l -")]
    Man(completions::Man),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// [`crate::config::ConfigError`] for a configuration that cannot be used, [`WrongUsage`], [`Failed`] when the command has already
    /// printed what is wrong, else an error that reads as one sentence.
    pub async fn run(self) -> anyhow::Result<()> {
        // What these print depends on nothing that can be configured.
        match &self.command {
            Command::Openapi(openapi) => return openapi.run(),
            Command::Completions(completions) => return completions.run(Self::command()),
            Command::Man(man) => return man.run(Self::command()),
            _ => {}
        }

        let config = Config::load(&self.flags.overrides())?;
        telemetry::start(&config);

        match self.command {
            Command::Serve(serve) => Box::pin(serve.run(config)).await,
            Command::Work => Box::pin(work::run(config)).await,
            Command::Migrate(migrate) => migrate.run(&config).await,
            Command::Seed(seed) => seed.run(config).await,
            Command::Verify(verify) => verify.run(&config).await,
            Command::Prune(prune) => prune.run(&config).await,
            Command::DeadLetters(dead_letters) => dead_letters.run(&config).await,
            Command::Token(token) => token.run(&config),
            Command::Health => health::run(&config).await,
            Command::Openapi(_) | Command::Completions(_) | Command::Man(_) => Ok(()),
        }
    }
}
