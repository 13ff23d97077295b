//! One wiring for every role: configuration, database, queue, cache. Connecting starts nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use backon::{ConstantBuilder, Retryable};
use sea_orm::DbErr;

use crate::{
    cache::Cache,
    config::{Config, ConfigError},
    db::{self, Db, DbErrorClass, schema},
    domain::shop::{self, CurrencyError},
    queue::Queue,
};

/// What every role is made of. Clones share it.
#[derive(Clone)]
pub struct App {
    pub config: Arc<Config>,
    pub db: Db,
    pub queue: Queue,
    pub cache: Cache,
}

impl App {
    /// Connects to the database, waiting for one that is still starting. Queue and cache connect when they are first
    /// used, since everything works without them for a while.
    ///
    /// # Errors
    /// One sentence that names the key and says what to do.
    pub async fn connect(config: Config) -> anyhow::Result<Self> {
        let db = connect_database(&config).await?;
        // One batch is being announced, one waits for that, one is being settled, and the next one gathers.
        let prefetch = u16::try_from(config.batch_max * 4).unwrap_or(u16::MAX);
        let queue = Queue::new(&config.queue_url, &config.queue_prefix, prefetch)
            .map_err(|error| unusable("queue_url", &error))?;
        let cache = Cache::new(&config.cache_url, &config.cache_prefix, config.cache_ttl())
            .map_err(|error| unusable("cache_url", &error))?;
        Ok(Self {
            config: Arc::new(config),
            db,
            queue,
            cache,
        })
    }

    /// On SQLite, or when `bring_up`, applies what is pending; else refuses to go on while anything is.
    ///
    /// # Errors
    /// The database's, or that migrations are pending and how to apply them.
    pub async fn check_schema(&self, bring_up: bool) -> anyhow::Result<()> {
        if bring_up || self.db.is_sqlite() {
            migrate(&self.db, &self.config, schema::Change::Up).await?;
            let read_only =
                "the file named by `database_url` (SHOP_DATABASE_URL) cannot be written to: may this user do so";
            self.db.try_writing().await.context(read_only)?;
        } else {
            refuse_pending(&self.db).await?;
        }
        self.check_currency().await
    }

    /// Refuses to go on when the prices in the database are in another currency than the configured one.
    async fn check_currency(&self) -> anyhow::Result<()> {
        match shop::settle_currency(self.db.write(), &self.config.currency).await {
            Err(error @ CurrencyError::Mismatch { .. }) => Err(unusable("currency", &error).into()),
            outcome => outcome.context("the currency of the shop cannot be read"),
        }
    }

    /// Closes all connections, for a clean end.
    pub async fn close(&self) {
        self.queue.close().await;
        self.db.close().await;
    }
}

/// Refuses to go on while the database lacks a step of the schema.
///
/// # Errors
/// Which steps it lacks, and how to apply them; or the database's.
pub async fn refuse_pending(db: &Db) -> anyhow::Result<()> {
    let pending = schema::pending(db.read()).await.context(
        "cannot read the state of the schema; the user of `database_url` may lack rights that \
         config/postgres/roles.sql grants",
    )?;
    if !pending.is_empty() {
        bail!(
            "the database lacks {} migration(s) ({}): run `shop migrate` first",
            pending.len(),
            pending.join(", ")
        );
    }
    Ok(())
}

/// A URL that no server could be reached by.
pub fn unusable(key: &'static str, error: &dyn std::fmt::Display) -> ConfigError {
    let problem = format!("is not usable: {error}");
    ConfigError::Value { key, problem }
}

/// # Errors
/// The database's.
pub async fn migrate(db: &Db, config: &Config, change: schema::Change) -> anyhow::Result<()> {
    schema::change(db, &config.database_url, change)
        .await
        .context("the schema could not be changed")?;
    if change != schema::Change::Down {
        // A shop that has prices in another currency already keeps it; `serve` and `work` will say so.
        let _ = shop::settle_currency(db.write(), &config.currency).await;
    }
    Ok(())
}

/// Connects, trying again while the database cannot be reached, for about `database_wait_seconds`.
///
/// # Errors
/// One sentence; never the URL.
pub async fn connect_database(config: &Config) -> anyhow::Result<Db> {
    const PAUSE: Duration = Duration::from_secs(1);
    db::url::check(&config.database_url).map_err(|error| unusable("database_url", &error))?;
    let is_file = config.database_url.starts_with("sqlite:");
    let deadline = Instant::now() + Duration::from_secs(config.database_wait_seconds);
    let connect = || {
        Db::connect(
            &config.database_url,
            config.database_pool,
            config.database_statement_cache,
        )
    };
    connect
        .retry(ConstantBuilder::default().with_delay(PAUSE).without_max_times())
        .when(|error: &DbErr| !is_file && db::classify(error) == DbErrorClass::Unavailable && Instant::now() < deadline)
        .notify(|error, _| tracing::warn!(%error, "the database is not up yet; trying again"))
        .await
        .context(if is_file {
            "cannot open the file named by `database_url` (SHOP_DATABASE_URL): is its folder there, may this user write \
             to both, and does the URL end in ?mode=rwc if it is to be made"
        } else {
            "cannot connect to the database named by `database_url` (SHOP_DATABASE_URL)"
        })
}
