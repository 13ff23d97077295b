//! `shop migrate`: changes the database's schema, and shows its state.

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{confirm::Confirmation, output::print_line};
use crate::{
    app,
    config::Config,
    db::{
        Db,
        schema::{self, Change},
        url,
    },
};

#[derive(Debug, Args)]
pub(super) struct Migrate {
    #[arg(value_enum, default_value_t = Action::Up)]
    action: Action,
    #[command(flatten)]
    confirmation: Confirmation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Apply all pending migrations.
    Up,
    /// Revert the newest migration. This deletes what it stores, and wants --yes or the database's name typed.
    Down,
    /// Show which migrations are applied and which are pending.
    Status,
    /// Revert all migrations and apply them again. This deletes all data, and wants --yes or the database's name typed.
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
        if let Some(loss) = self.loss(&db).await? {
            self.confirmation
                .ask(&loss, &url::database_name(&config.database.url))
                .await?;
        }
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

    /// What would be lost, in a sentence; nothing if the action deletes nothing.
    async fn loss(&self, db: &Db) -> anyhow::Result<Option<String>> {
        let action = match self.action {
            Action::Up | Action::Status => return Ok(None),
            Action::Down => "this reverts the newest migration and deletes what it stores",
            Action::Fresh => "this deletes everything",
        };

        let tables = schema::row_counts(db.read())
            .await
            .context("cannot read the database")?;
        let contents: Vec<String> = tables.iter().map(|(table, rows)| format!("{rows} {table}")).collect();
        Ok(Some(format!("{action}; the database holds {}", contents.join(", "))))
    }
}
