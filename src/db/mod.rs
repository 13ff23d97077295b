//! The database behind its URL: SQLite for one machine, PostgreSQL for many. Everything that differs between the two
//! and is not SQL text lives here; what differs in the text lives in [`rows`].

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::PoisonError,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use sea_orm::{
    AccessMode, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use tokio::time::sleep;

mod connect;
mod error_class;
pub mod schema;
pub mod sql;
pub mod url;

use connect::{GivenUp, postgres_options, reach_postgres, sqlite_options};
pub use error_class::{DbErrorClass, classify};
use url::is_in_memory;

/// Connections to one database. Clones share them.
#[derive(Clone, Debug)]
pub struct Db {
    /// One connection on SQLite, which knows one writer; the same pool as `read` on PostgreSQL.
    write: DatabaseConnection,
    read: DatabaseConnection,
    given_up: GivenUp,
}

/// Says whether a transaction that ended in this error may succeed when it is run again.
pub trait Transient {
    fn is_transient(&self) -> bool;
}

/// What a transaction's body returns.
pub type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

impl Db {
    /// Connects, with at most `pool` connections (1 to 10,000) to read with.
    /// `statement_cache` bounds the prepared statements a connection keeps, 1 or more.
    ///
    /// # Errors
    /// When the URL is not understood, or the database does not answer.
    pub async fn connect(url: &str, pool: u32, statement_cache: usize) -> Result<Self, DbErr> {
        if url.starts_with("sqlite:") {
            // Of several processes that turn a new file to WAL at once, all but one are told that it is busy.
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
            return Ok(Self {
                write,
                read,
                given_up: GivenUp::default(),
            });
        }
        reach_postgres(url).await?;
        let given_up = GivenUp::default();
        let read = Database::connect(postgres_options(url, pool, statement_cache, &given_up)).await?;
        Ok(Self {
            write: read.clone(),
            read,
            given_up,
        })
    }

    /// For reading outside a transaction.
    #[must_use]
    pub fn read(&self) -> &DatabaseConnection {
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

    /// How many batches it helps to have under way at once: on PostgreSQL one is on its way to the disk while the
    /// next is written. More only make smaller batches.
    #[must_use]
    pub fn writers(&self) -> usize {
        if self.is_sqlite() { 1 } else { 2 }
    }

    /// Runs `work` in a transaction and commits it. Deadlocks, serialization failures and lost connections are tried
    /// again with back-off, a bounded number of times; `work` must therefore be safe to run again after a commit
    /// whose answer was lost.
    ///
    /// # Errors
    /// What `work` returned, or the database's error.
    pub async fn transaction<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c DatabaseTransaction) -> Work<'c, T, E> + Send + Sync,
        T: Send,
        E: From<DbErr> + Transient + Send,
    {
        let again = |failed: &Failed<E>| failed.error.is_transient();
        self.attempts(work, again).await
    }

    /// As [`Db::transaction`], for `work` that must not be done twice: it is not tried again once it may have been
    /// committed.
    ///
    /// # Errors
    /// As [`Db::transaction`]; a transient one may mean that it has been done.
    pub async fn transaction_once<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c DatabaseTransaction) -> Work<'c, T, E> + Send + Sync,
        T: Send,
        E: From<DbErr> + Transient + Send,
    {
        let again = |failed: &Failed<E>| failed.error.is_transient() && !failed.perhaps_committed;
        self.attempts(work, again).await
    }

    async fn attempts<T, E, F>(&self, work: F, again: impl Fn(&Failed<E>) -> bool) -> Result<T, E>
    where
        F: for<'c> Fn(&'c DatabaseTransaction) -> Work<'c, T, E> + Send + Sync,
        T: Send,
        E: From<DbErr> + Transient + Send,
    {
        let attempt = || self.attempt(&work);
        let done = attempt.retry(back_off()).when(again).await;
        done.map_err(|failed| failed.error)
    }

    async fn attempt<T, E, F>(&self, work: &F) -> Result<T, Failed<E>>
    where
        F: for<'c> Fn(&'c DatabaseTransaction) -> Work<'c, T, E> + Send + Sync,
        E: From<DbErr>,
    {
        let before = |error: DbErr| Failed::before_commit(error.into());
        let txn = self.write.begin_with_options(write_options()).await.map_err(before)?;
        let value = work(&txn).await.map_err(Failed::before_commit)?;
        txn.commit().await.map_err(|error| Failed {
            // Busy is the database's own word that it was rolled back.
            perhaps_committed: classify(&error) != DbErrorClass::Retryable,
            error: error.into(),
        })?;
        Ok(value)
    }

    /// Runs `read` on one consistent snapshot, whatever is written meanwhile. On PostgreSQL no statement of it runs for
    /// longer than `limit`; on SQLite whoever waits no longer leaves it to end by itself.
    ///
    /// # Errors
    /// What `read` returned, or the database's error.
    pub async fn snapshot<T, E, F>(&self, limit: Option<Duration>, read: F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c DatabaseTransaction) -> Work<'c, T, E> + Send + Sync,
        T: Send,
        E: From<DbErr> + Transient + Send,
    {
        let options = TransactionOptions {
            // SQLite reads from a snapshot in any transaction, and has no levels.
            isolation_level: (!self.is_sqlite()).then_some(IsolationLevel::RepeatableRead),
            access_mode: (!self.is_sqlite()).then_some(AccessMode::ReadOnly),
            sqlite_transaction_mode: None,
        };
        let txn = self.read.begin_with_options(options).await?;
        if let Some(limit) = limit.filter(|_| !self.is_sqlite()) {
            let limit = format!("SET LOCAL statement_timeout = {}", limit.as_millis());
            txn.execute_unprepared(&limit).await?;
        }
        let value = read(&txn).await?;
        txn.commit().await?;
        Ok(value)
    }

    /// Waits for the database, for `limit` at most. What is given up leaves a connection in the middle of a statement or of
    /// a transaction, perhaps to a server that is gone without a word: it is tidied up before it is used again.
    ///
    /// # Errors
    /// What `work` ended in; `None` when it took too long.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        tokio::select! {
            done = &mut work => Some(done),
            () = sleep(limit) => {
                *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                None
            }
        }
    }

    /// How many connections are open, and how many of them are idle.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let count = |size: u32, idle: usize| (size, u32::try_from(idle).unwrap_or(u32::MAX));
        if self.is_sqlite() {
            let pool = self.read.get_sqlite_connection_pool();
            count(pool.size(), pool.num_idle())
        } else {
            let pool = self.read.get_postgres_connection_pool();
            count(pool.size(), pool.num_idle())
        }
    }

    /// Writes where that is no more than a number in SQLite's own header, so that a file that lets nobody write is found
    /// out before a customer is.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub async fn try_writing(&self) -> Result<(), DbErr> {
        if self.is_sqlite() {
            self.write.execute_unprepared("PRAGMA user_version = 1").await?;
        }
        Ok(())
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.read.execute_unprepared("SELECT 1").await.map(drop)
    }

    /// Closes the connections once they are idle.
    pub async fn close(&self) {
        let _ = self.write.clone().close().await;
        let _ = self.read.clone().close().await;
    }
}

/// An attempt at a transaction that came to nothing, as far as is known.
struct Failed<E> {
    error: E,
    /// The database was told to commit, and did not say that it would not.
    perhaps_committed: bool,
}

impl<E> Failed<E> {
    fn before_commit(error: E) -> Self {
        Self {
            error,
            perhaps_committed: false,
        }
    }
}

/// Until the commit nobody else gets past this who gives the same `key`. SQLite has one writer anyway.
///
/// # Errors
/// The database's.
pub async fn advisory_lock(txn: &impl ConnectionTrait, key: i64) -> Result<(), DbErr> {
    if txn.get_database_backend() == DbBackend::Postgres {
        let lock = sql::Sql::new(DbBackend::Postgres, "SELECT pg_advisory_xact_lock(")
            .bind(key)
            .push(")");
        txn.execute_raw(lock.build()).await?;
    }
    Ok(())
}

/// A writing transaction takes SQLite's write lock with its first breath: one that starts by reading cannot wait for
/// another writer later, it fails.
fn write_options() -> TransactionOptions {
    TransactionOptions {
        isolation_level: None,
        access_mode: None,
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
    }
}

fn back_off() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(5))
        .with_max_delay(Duration::from_millis(250))
        .with_max_times(8)
        .with_jitter()
}
