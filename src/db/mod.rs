//! The database behind its URL: SQLite for one machine, PostgreSQL for many. Everything that differs between the two lives
//! here; what differs in the text of a statement lives in [`sql`].

use std::{
    future::Future,
    pin::pin,
    sync::PoisonError,
    time::{Duration, Instant},
};

use backon::Retryable as _;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr};
use tokio::time::sleep;

mod connect;
mod error_class;
pub mod in_flight;
pub mod schema;
mod session;
pub mod sql;
mod transaction;
pub mod url;

use connect::{LastTimeout, postgres_options, reach_postgres, sqlite_options};
pub use error_class::{DbErrorClass, classify};
pub use session::{MissingOptions, options_are_refused};
use sql::sql;
use transaction::back_off;
pub use transaction::{Transient, Txn};
use url::is_in_memory;

use crate::entities::Timestamp;

/// Connections to one database. Clones share them.
#[derive(Clone, Debug)]
pub struct Db {
    /// One connection on SQLite, which has one writer; the same pool as `read` on PostgreSQL.
    write: DatabaseConnection,
    read: DatabaseConnection,
    last_timeout: LastTimeout,
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
            write,
            read,
            last_timeout: LastTimeout::default(),
        })
    }

    async fn connect_postgres(url: &str, pool: u32, statement_cache: usize) -> Result<Self, DbErr> {
        reach_postgres(url).await?;

        let last_timeout = LastTimeout::default();
        let options = postgres_options(url, pool, statement_cache, &last_timeout);
        let read = Database::connect(options).await?;
        Ok(Self {
            write: read.clone(),
            read,
            last_timeout,
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
                *self.last_timeout.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                Err(DbErr::Conn(RuntimeErr::Internal(format!("timed out after {limit:?}"))).into())
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

    /// # Errors
    /// When the database does not answer.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.read.execute_unprepared("SELECT 1").await.map(drop)
    }

    /// Closes the connections once they are idle.
    pub async fn close(&self) {
        let _ = self.write.clone().close().await;
        let _ = self.read.clone().close().await;
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

/// The time at the database, which all processes share. On SQLite it is that of the machine.
pub async fn now(connection: &impl ConnectionTrait) -> Result<Timestamp, DbErr> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(Timestamp::now());
    }
    let now: Vec<Timestamp> = sql("SELECT clock_timestamp()").scalars(connection).await?;
    now.first()
        .copied()
        .ok_or_else(|| DbErr::Custom("the database does not say what time it is".to_owned()))
}

/// Makes the rest of this transaction join tables row by row, each by its index, whatever PostgreSQL believes about their sizes:
/// for statements that start from a few rows. SQLite joins in no other way.
pub async fn join_by_index(txn: &DatabaseTransaction) -> Result<(), DbErr> {
    if txn.get_database_backend() == DbBackend::Postgres {
        txn.execute_unprepared("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
            .await?;
    }
    Ok(())
}
