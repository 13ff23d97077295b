//! The database behind its URL: SQLite for one machine, PostgreSQL for many. Everything that differs between the two lives
//! here; what differs in the text of a statement lives in [`sql`].

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use backon::Retryable as _;
use sea_orm::{
    ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr,
    TransactionTrait as _,
};
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

mod clock;
mod connect;
mod database_identity;
mod error_class;
mod eviction;
mod hosts;
pub mod in_flight;
mod reader;
pub mod schema;
pub mod search;
mod session;
pub mod sql;
mod transaction;
pub mod url;

use clock::Clock;
use connect::{postgres_options, session_options, sqlite_options};
pub use database_identity::DatabaseIdentity;
use database_identity::identity_of_file;
pub use error_class::{DbErrorClass, classify, describe, is_unique_violation};
use eviction::Eviction;
use hosts::{connect_to_primary, follow_primary, urls_of_hosts};
pub use reader::Reader;
pub use session::{MissingOptions, options_are_refused, session_exists, session_id};
use sql::sql;
pub use transaction::{Transient, Txn};
use transaction::{back_off, write_options};
use url::is_in_memory;

use crate::entities::Timestamp;

/// Connections to one database. Clones share them.
#[derive(Clone, Debug)]
pub struct Db {
    /// One connection on SQLite, which has one writer; the same pool as `read` on PostgreSQL.
    write: DatabaseConnection,
    read: Reader,
    eviction: Arc<Eviction>,
    clock: Arc<Clock>,
    /// What distinguishes SQLite's file from others.
    file: Option<Arc<str>>,
    /// Whether the last transaction that wrote to SQLite's file has failed.
    last_write_failed: Arc<AtomicBool>,
    /// Ends the task that follows the primary when the last clone is dropped.
    _following: Option<Arc<DropGuard>>,
}

impl Db {
    /// Connects, with at most `pool` connections (1 to 10,000) to read with. `statement_cache` bounds the prepared
    /// statements that a connection keeps, 1 or more.
    ///
    /// # Errors
    /// When the URL is not understood, or the database does not answer.
    pub async fn connect(url: &str, pool: u32, statement_cache: usize) -> Result<Self, DbErr> {
        if url.starts_with("sqlite:") {
            Self::connect_sqlite(url, pool).await
        } else {
            Self::connect_postgres(url, pool, statement_cache).await
        }
    }

    async fn connect_sqlite(url: &str, pool: u32) -> Result<Self, DbErr> {
        // When several processes turn a new file to WAL at once, all but one are told that it is busy.
        let first = || Database::connect(sqlite_options(url, 1));
        let write = first
            .retry(back_off())
            .when(|error| classify(error) == DbErrorClass::Retryable)
            .await?;

        let read = if is_in_memory(url) {
            write.clone()
        } else {
            Database::connect(sqlite_options(url, pool)).await?
        };
        Ok(Self {
            file: Some(identity_of_file(url).into()),
            ..Self::new(write, read, Arc::default())
        })
    }

    async fn connect_postgres(url: &str, pool: u32, statement_cache: usize) -> Result<Self, DbErr> {
        let urls = urls_of_hosts(url);
        let hosts: Vec<PgConnectOptions> = parse_hosts(&urls)?
            .into_iter()
            .map(|host| session_options(host, statement_cache).disable_statement_logging())
            .collect();

        // One connection, whose error says what is wrong; a pool that gets none says only that time ran out.
        let (primary, connection) = connect_to_primary(&hosts).await.map_err(connection_error)?;
        connection.close().await.map_err(connection_error)?;

        let eviction = Arc::default();
        let options = postgres_options(&urls[primary], pool, statement_cache, &eviction);
        let connections = Database::connect(options).await?;
        let db = Self::new(connections.clone(), connections, eviction);
        let following = (hosts.len() > 1).then(|| db.follow_primary(hosts, primary));
        Ok(Self {
            _following: following.map(Arc::new),
            ..db
        })
    }

    fn new(write: DatabaseConnection, read: DatabaseConnection, eviction: Arc<Eviction>) -> Self {
        let read = Reader {
            connection: read,
            eviction: Arc::clone(&eviction),
        };
        Self {
            write,
            read,
            eviction,
            clock: Arc::default(),
            file: None,
            last_write_failed: Arc::default(),
            _following: None,
        }
    }

    /// Starts the task that follows the primary. It ends when the guard is dropped.
    fn follow_primary(&self, hosts: Vec<PgConnectOptions>, primary: usize) -> DropGuard {
        let stop = CancellationToken::new();
        let pool = self.write.get_postgres_connection_pool().clone();
        let eviction = Arc::clone(&self.eviction);
        tokio::spawn(follow_primary(pool, hosts, primary, eviction, stop.clone()));
        stop.drop_guard()
    }

    /// For reading outside a transaction.
    #[must_use]
    pub fn read(&self) -> &Reader {
        &self.read
    }

    #[must_use]
    pub fn write(&self) -> &DatabaseConnection {
        &self.write
    }

    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.write.get_database_backend() == DbBackend::Sqlite
    }

    /// How many batches it helps to have in flight at once. On PostgreSQL one is on its way to the disk while the next is
    /// written; more only make smaller batches.
    #[must_use]
    pub fn writers(&self) -> usize {
        if self.is_sqlite() { 1 } else { 2 }
    }

    /// Waits for `work` for at most `limit`. A statement or transaction that is abandoned leaves its connection in an
    /// unknown state, perhaps to a server that vanished, so for a while every connection is cleaned up when it returns to
    /// the pool.
    ///
    /// # Errors
    /// What `work` failed with, or that the database timed out.
    pub async fn timeout<T, E>(&self, limit: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        E: From<DbErr>,
    {
        let mut work = pin!(work);
        tokio::select! {
            done = &mut work => done,
            () = sleep(limit) => {
                self.eviction.record_timeout();
                Err(DbErr::Conn(RuntimeErr::Internal(format!("timed out after {limit:?}"))).into())
            }
        }
    }

    /// To be called when work was abandoned in the middle of a statement, other than by [`Db::timeout`].
    pub fn record_abandoned(&self) {
        self.eviction.record_timeout();
    }

    /// How many connections are open, and how many of them are idle.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let count = |size: u32, idle: usize| (size, u32::try_from(idle).unwrap_or(u32::MAX));
        if self.is_sqlite() {
            let pool = self.read.connection.get_sqlite_connection_pool();
            count(pool.size(), pool.num_idle())
        } else {
            let pool = self.read.connection.get_postgres_connection_pool();
            count(pool.size(), pool.num_idle())
        }
    }

    /// Writes a number in the header of SQLite's file, so that a file that cannot be written to is noticed before a
    /// customer is affected. Does nothing on PostgreSQL.
    ///
    /// # Errors
    /// When the file cannot be written to.
    pub async fn try_writing(&self) -> Result<(), DbErr> {
        if self.is_sqlite() {
            self.write.execute_unprepared("PRAGMA user_version = 1").await?;
        }
        Ok(())
    }

    /// Whether the database takes writes now. A standby does not, nor a primary that was made read-only, a file that another
    /// process keeps locked, or a full disk.
    ///
    /// # Errors
    /// When the database does not answer, or takes no writes.
    pub async fn check_writable(&self) -> Result<(), DbErr> {
        if self.is_sqlite() {
            return self.check_sqlite_writable().await;
        }
        if self.is_primary().await? {
            return Ok(());
        }

        // A new connection may lead to another server.
        self.eviction.record_writable(false);
        if self.is_primary().await? {
            return Ok(());
        }
        Err(DbErr::Custom("the database takes no writes".to_owned()))
    }

    /// Takes the lock that writers take and gives it back. Only when a write has failed it really writes, which costs the disk
    /// a sync.
    async fn check_sqlite_writable(&self) -> Result<(), DbErr> {
        if self.last_write_failed.load(Ordering::Relaxed) {
            self.try_writing().await?;
            self.last_write_failed.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let txn = self.write.begin_with_options(write_options()).await?;
        txn.rollback().await
    }

    async fn is_primary(&self) -> Result<bool, DbErr> {
        let read_only = sql("SELECT current_setting('transaction_read_only')");
        let read_only: Vec<String> = read_only.scalars(&self.read).await?;
        Ok(read_only == ["off"])
    }

    /// Closes the connections once they are idle.
    pub async fn close(&self) {
        let _ = self.write.clone().close().await;
        let _ = self.read.connection.clone().close().await;
    }
}

/// Waits until no other transaction holds the same `key`, and holds it until the commit. SQLite has one writer anyway.
pub async fn advisory_lock(txn: &DatabaseTransaction, key: i64) -> Result<(), DbErr> {
    if txn.get_database_backend() == DbBackend::Postgres {
        let lock = sql("SELECT pg_advisory_xact_lock(:key)").bind("key", key);
        lock.execute(txn).await?;
    }
    Ok(())
}

/// The time at the database, asked for anew: for commands, which need it once. A process that goes on goes by [`Db::time`].
/// On SQLite it is that of the machine.
pub async fn now(connection: &impl ConnectionTrait) -> Result<Timestamp, DbErr> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(Timestamp::now());
    }
    let now: Vec<Timestamp> = sql("SELECT clock_timestamp()").scalars(connection).await?;
    now.first()
        .copied()
        .ok_or_else(|| DbErr::Custom("the database does not say what time it is".to_owned()))
}

fn parse_hosts(urls: &[String]) -> Result<Vec<PgConnectOptions>, DbErr> {
    let hosts: Result<_, sqlx::Error> = urls.iter().map(|url| url.parse()).collect();
    hosts.map_err(connection_error)
}

fn connection_error(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}

/// Makes PostgreSQL plan every statement of this session anew. It keeps the plans of prepared statements, also when the settings
/// change under which they were made.
async fn forget_plans(txn: &DatabaseTransaction) -> Result<(), DbErr> {
    if txn.get_database_backend() == DbBackend::Postgres {
        txn.execute_unprepared("DISCARD PLANS").await?;
    }
    Ok(())
}

/// Makes the rest of this transaction join tables row by row, each by its index, whatever PostgreSQL believes about their sizes:
/// for statements that start from a few rows. SQLite joins in no other way.
pub async fn join_by_index(txn: &DatabaseTransaction) -> Result<(), DbErr> {
    forget_plans(txn).await?;
    if txn.get_database_backend() == DbBackend::Postgres {
        txn.execute_unprepared("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
            .await?;
    }
    Ok(())
}
