//! `shop prune`: deletes old orders.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{
    confirm::Confirmation,
    duration::parse_duration,
    output::{WrongUsage, print_line},
};
use crate::{
    app,
    config::Config,
    db::{self, url},
    prune::{self, Old},
};

/// Younger orders are never deleted: clients may still send their requests again.
const MIN_AGE: Duration = Duration::from_hours(24);

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Delete orders that were made and settled longer ago than this, and orders that were made before and never paid: 400d.
    /// At least 1d.
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    older_than: Duration,
    /// Only say what would be deleted.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

impl Prune {
    pub(super) async fn run(&self, config: &Config) -> anyhow::Result<()> {
        if self.older_than < MIN_AGE {
            return Err(WrongUsage("--older-than must be 1d or more".to_owned()).into());
        }
        let db = app::connect_database(config).await?;
        app::refuse_pending(&db).await?;
        let now = db::now(db.read()).await?;
        let cutoff = now.minus(self.older_than);

        let old = db
            .report(None, |txn| async move { prune::count(&*txn, cutoff).await })
            .await
            .context("the orders could not be read")?;
        if self.dry_run {
            print_line(format_args!("{} would be deleted", described(&old)))?;
        } else {
            let loss = format!("this deletes {}, for good", described(&old));
            self.confirmation
                .ask(&loss, &url::database_name(&config.database.url))
                .await?;
            let deleted = prune::delete(&db, now, cutoff).await;
            let deleted = deleted.context("not all of them could be deleted; run the command again to go on")?;
            print_line(format_args!("deleted {}", described(&deleted)))?;
        }

        db.close().await;
        Ok(())
    }
}

fn described(old: &Old) -> String {
    let Old {
        paid,
        failed,
        unpaid,
        keys,
    } = old;
    format!("{paid} PAID, {failed} FAILED and {unpaid} unpaid orders, and {keys} keys of administrators")
}
