//! `shop migrate`: changes the database's schema, and shows its state.

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::output::print_line;
use crate::{
    app,
    config::Config,
    db::schema::{self, Change},
};

#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[arg(value_enum, default_value_t = Action::Up)]
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Apply all pending migrations.
    Up,
    /// Revert the newest migration.
    Down,
    /// Show which migrations are applied and which are pending.
    Status,
    /// Revert all migrations and apply them again. This deletes all data.
    Fresh,
}

impl Migrate {
    /// Changes the schema unless only its state was asked for, then prints the state of every migration.
    pub(super) async fn run(&self, config: &Config) -> anyhow::Result<()> {
        let db = app::connect_database(config).await?;

        let change = match self.action {
            Action::Up => Some(Change::Up),
            Action::Down => Some(Change::Down),
            Action::Fresh => Some(Change::Fresh),
            Action::Status => None,
        };
        if let Some(change) = change {
            app::migrate(&db, config, change).await?;
        }

        let steps = schema::status(db.read())
            .await
            .context("cannot read the state of the schema")?;
        for step in steps {
            print_line(format_args!("{:<8} {}", step.state.name(), step.name))?;
        }

        db.close().await;
        Ok(())
    }
}
