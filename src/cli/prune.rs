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
    db::{self, Db, url},
    domain::{
        Error, OrderId, idempotency,
        orders::{self, OldOrders, PrunedBatch},
    },
    entities::Timestamp,
};

/// Younger orders are never deleted: clients may still send their requests again.
const MIN_AGE: Duration = Duration::from_hours(24);

/// Counts of what is older than the cutoff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldRows {
    pub orders: OldOrders,
    /// Idempotency keys of administrators.
    pub keys: u64,
}

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Delete orders that were made and settled longer ago than this, orders that were made before and never paid, and
    /// administrators' idempotency keys that are older: 400d. At least 1d.
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
            .report(None, |txn| async move {
                let orders = orders::count_old(&*txn, cutoff).await?;
                let keys = idempotency::count_old(&*txn, cutoff).await?;
                Ok::<_, Error>(OldRows { orders, keys })
            })
            .await
            .context("the orders could not be read")?;
        if self.dry_run {
            print_line(format_args!("{} would be deleted", described(&old)))?;
        } else {
            let loss = format!("this deletes {}, for good", described(&old));
            self.confirmation
                .ask(&loss, &url::database_name(&config.database.url))
                .await?;
            let deleted = delete(&db, now, cutoff).await;
            let deleted = deleted.context("not all of them could be deleted; run the command again to go on")?;
            print_line(format_args!("deleted {}", described(&deleted)))?;
        }

        db.close().await;
        Ok(())
    }
}

/// Deletes what is older than `cutoff`, transaction by transaction, and returns how much that was. What an earlier call has
/// left is deleted by the next one.
///
/// # Errors
/// The database's. What was deleted before stays so.
pub async fn delete(db: &Db, now: Timestamp, cutoff: Timestamp) -> Result<OldRows, Error> {
    let mut deleted = OldRows::default();
    let mut after = OrderId::nil();

    loop {
        let batch = db.transaction(|txn| async move { orders::delete_old(&txn, now, cutoff, after).await });
        let batch: Option<PrunedBatch> = batch.await?;
        let Some(batch) = batch else { break };
        deleted.orders += batch.deleted;
        after = batch.last;
    }

    loop {
        let keys: Result<u64, Error> = db
            .transaction(|txn| async move { idempotency::delete_old(&txn, cutoff).await })
            .await;
        match keys? {
            0 => return Ok(deleted),
            keys => deleted.keys += keys,
        }
    }
}

fn described(old: &OldRows) -> String {
    let OldRows { orders, keys } = old;
    let OldOrders { paid, failed, unpaid } = orders;
    format!("{paid} PAID, {failed} FAILED and {unpaid} unpaid orders, and {keys} idempotency keys of administrators")
}
