//! What every role needs: configuration, database, queue and cache. Connecting starts no task that does the shop's
//! work.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use backon::{ConstantBuilder, Retryable};
use sea_orm::DbErr;

use crate::{
    cache::{Cache, carts::Carts},
    config::Config,
    db::{self, Db, DbErrorClass, MissingOptions, schema},
    domain::shop,
    queue::Queue,
    telemetry::outage::DATABASE,
};

/// The pause before another attempt to connect to a database that is not up yet.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// How long each question may take that a process asks when it starts. If PostgreSQL vanishes meanwhile, the process ends, and
/// its supervisor starts it again.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Configuration, database, queue and cache. Clones share them.
#[derive(Clone)]
pub struct App {
    pub config: Arc<Config>,
    pub db: Db,
    pub queue: Queue,
    pub cache: Cache,
    pub carts: Carts,
}

impl App {
    /// Connects to the database, and waits for one that is not up yet. Queue and cache connect when they are first
    /// used, because a process can start without them.
    pub async fn connect(config: Config) -> anyhow::Result<Self> {
        let db = connect_database(&config).await?;

        // Four batches: one is being collected, one settled, and of two the events are published.
        let prefetch = u16::try_from(config.batch.max * 4).unwrap_or(u16::MAX);
        let queue = Queue::new(&config.queue.url, &config.queue.prefix, prefetch)
            .map_err(|error| config.unusable("queue_url", error))?;

        let cache = Cache::new(&config.cache.url, &config.cache.prefix, config.cache.ttl)
            .map_err(|error| config.unusable("cache_url", error))?;
        let carts = Carts::new(&cache, config.cache.cart_ttl);

        Ok(Self {
            config: Arc::new(config),
            db,
            queue,
            cache,
            carts,
        })
    }

    /// Applies pending migrations on SQLite, or if `apply` is set. Otherwise pending migrations are an error, and so
    /// are prices in another currency than the configured one.
    pub async fn check_schema(&self, apply: bool) -> anyhow::Result<()> {
        if apply || self.db.is_sqlite() {
            migrate(&self.db, &self.config, schema::Change::Up).await?;
            self.db.try_writing().await.context(
                "the file named by `database_url` (SHOP_DATABASE_URL) cannot be written to: give this user the right \
                 to write to it",
            )?;
        } else {
            refuse_pending(&self.db).await?;
        }
        self.check_currency().await?;

        let identity = self.db.timeout(START_TIMEOUT, self.db.database_identity()).await;
        self.cache
            .set_database_identity(identity.context("the identity of the database cannot be read")?);
        Ok(())
    }

    /// Warns if a pooler has dropped what the sessions on PostgreSQL asked for.
    pub async fn check_sessions(&self) -> anyhow::Result<()> {
        let missing = self.db.timeout(START_TIMEOUT, self.db.missing_options()).await;
        let missing = missing.context("the settings of the database sessions cannot be read")?;

        if let Some(MissingOptions { found, remedy }) = missing {
            tracing::warn!(
                found,
                remedy,
                "the database sessions lack settings that the shop asks for when it connects, so it may become slow; PgBouncer \
                 drops them: give them to the role by the SQL in `remedy`, and restart the pooler's connections"
            );
        }
        Ok(())
    }

    async fn check_currency(&self) -> anyhow::Result<()> {
        let configured = &self.config.catalog.currency;
        let other = self
            .db
            .timeout(START_TIMEOUT, adopt_currency(&self.db, configured))
            .await
            .context("the currency of the shop cannot be read")?;

        let Some(stored) = other else { return Ok(()) };
        let problem = format!(
            "the prices in the database are in {stored}, not in {configured}: set SHOP_CURRENCY={stored}, or give this shop \
             a database of its own"
        );
        Err(self.config.unusable("currency", problem).into())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.cache.flush().await;
        self.queue.close().await;
        self.db.close().await;
    }
}

/// Fails while migrations are pending, and names them and the command that applies them.
pub async fn refuse_pending(db: &Db) -> anyhow::Result<()> {
    let pending = db.timeout(START_TIMEOUT, schema::pending(db.read())).await.context(
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

/// Changes the schema, under a lock that keeps other processes from changing it at the same time.
pub async fn migrate(db: &Db, config: &Config, change: schema::Change) -> anyhow::Result<()> {
    schema::change(db, &config.database.url, change)
        .await
        .context("the schema could not be changed")?;

    if change != schema::Change::Down {
        // A shop that has prices in another currency keeps it, and `serve` and `work` refuse to start.
        adopt_currency(db, &config.catalog.currency).await?;
    }
    Ok(())
}

/// Makes `configured` the currency of a shop in which nothing has a price yet. Returns another currency that prices
/// are stored in.
async fn adopt_currency(db: &Db, configured: &str) -> Result<Option<String>, DbErr> {
    let stored = async || {
        let read = db.report(None, |txn| async move { shop::currencies(&*txn).await });
        read.await
    };
    if stored().await? == [configured] {
        return Ok(None);
    }

    shop::adopt_currency(db.write(), configured).await?;
    Ok(stored().await?.into_iter().find(|stored| stored != configured))
}

/// Connects to the database, and retries for about `database_wait_seconds` while it cannot be reached. The error never
/// shows the URL.
pub async fn connect_database(config: &Config) -> anyhow::Result<Db> {
    let database = &config.database;
    db::url::check(&database.url).map_err(|error| config.unusable("database_url", error))?;

    // A file that cannot be opened now will not be there in a second either.
    let is_file = database.url.starts_with("sqlite:");
    let deadline = Instant::now() + database.wait;
    let is_away = |error: &DbErr| matches!(db::classify(error), DbErrorClass::Reconnect | DbErrorClass::Unavailable);
    let may_come_up = |error: &DbErr| !is_file && is_away(error) && Instant::now() < deadline;

    let connect = || Db::connect(&database.url, database.pool, database.statement_cache);
    connect
        .retry(ConstantBuilder::default().with_delay(CONNECT_PAUSE).without_max_times())
        .when(may_come_up)
        .notify(|error, _| DATABASE.record_probe(Err(db::describe(error))))
        .await
        .map_err(|error| {
            let context = if is_file {
                "cannot open the file named by `database_url` (SHOP_DATABASE_URL): its folder must exist, this user must \
                 be allowed to write to both, and the URL must end in ?mode=rwc if the file is to be created"
            } else if db::options_are_refused(&error) {
                "PgBouncer at `database_url` (SHOP_DATABASE_URL) refuses the options of a connection: it needs \
                 ignore_startup_parameters = extra_float_digits,options"
            } else {
                "cannot connect to the database named by `database_url` (SHOP_DATABASE_URL)"
            };
            anyhow::Error::from(error).context(context)
        })
}
