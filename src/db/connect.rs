//! How connections are made: SQLite's pragmas, PostgreSQL's pool, and what is done to a connection before it is used again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::{ConnectOptions, DbErr, RuntimeErr};
use sqlx::{
    Connection as _, Executor as _, PgConnection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::timeout;

use super::session;

/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a writer waits for another process that writes to the same SQLite file.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows that wait between SQLite's thread and the reader.
const SQLITE_ROW_BUFFER: usize = 4_096;
/// For this long after a statement timed out, every connection is cleaned up when it returns to the pool. The pool tests
/// returned connections as well, but waits without limit for one whose server vanished.
const CLEANUP_PERIOD: Duration = Duration::from_secs(60);
/// How long a connection may take to answer the clean-up.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is tested before it is used.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(30);

/// When a statement last timed out.
pub(super) type LastTimeout = Arc<Mutex<Option<Instant>>>;

/// Makes one connection, whose error says what is wrong; a pool that gets none says only that time ran out.
pub(super) async fn reach_postgres(url: &str) -> Result<(), DbErr> {
    let failed = |error: sqlx::Error| DbErr::Conn(RuntimeErr::SqlxError(error.into()));

    let connection = timeout(ACQUIRE_TIMEOUT, PgConnection::connect(url)).await;
    let connection = connection.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(failed)?;
    connection.close().await.map_err(failed)
}

pub(super) fn sqlite_options(url: &str, pool: u32) -> ConnectOptions {
    let mut options = common_options(url, pool);
    // A database in memory ends with its connection, and a connection to a file costs nothing.
    options.max_lifetime(None).idle_timeout(None);

    // When the disk is full, SQLite rolls the transaction back by itself, which the client does not always notice. Then it
    // takes all that follows for a part of that transaction and never commits again: such a connection is not used any more.
    options.map_sqlx_sqlite_pool_opts(|options| {
        options.before_acquire(|connection, _| {
            let is_usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(is_usable) })
        })
    });

    options.map_sqlx_sqlite_opts(|options: SqliteConnectOptions| {
        options
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: a commit is on the disk before it is answered.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(SQLITE_BUSY_TIMEOUT)
            .foreign_keys(true)
            // Rows come from another thread, which sleeps while the buffer is full: a batch's rows fit at once.
            .row_buffer_size(SQLITE_ROW_BUFFER)
            // Negative: KiB. The defaults, 2 MB and 4 MB, write every page of an index again and again.
            .pragma("cache_size", "-16384")
            .pragma("wal_autocheckpoint", "8000")
    });
    options
}

pub(super) fn postgres_options(
    url: &str,
    pool: u32,
    statement_cache: usize,
    last_timeout: &LastTimeout,
) -> ConnectOptions {
    let mut options = common_options(url, pool);

    let last_timeout = Arc::clone(last_timeout);
    options.map_sqlx_postgres_pool_opts(move |options| {
        let last_timeout = Arc::clone(&last_timeout);
        options.after_release(move |connection, _| {
            let last = *last_timeout.lock().unwrap_or_else(PoisonError::into_inner);
            let needs_cleanup = last.is_some_and(|last| last.elapsed() < CLEANUP_PERIOD);
            Box::pin(async move {
                if needs_cleanup {
                    // A BEGIN that timed out is not known of here, and yet the transaction may have begun.
                    let answered = timeout(CLEANUP_TIMEOUT, connection.execute("ROLLBACK")).await;
                    // An error makes the pool close the connection without waiting for the server.
                    answered.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
                }
                Ok(true)
            })
        })
    });

    options.map_sqlx_postgres_opts(move |options: PgConnectOptions| {
        options
            .application_name("shop")
            .statement_cache_capacity(statement_cache)
            .options(session::OPTIONS)
    });
    options
}

fn common_options(url: &str, pool: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(pool)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire_if_idle_for(TEST_AFTER_IDLE)
        .sqlx_logging(false);
    options
}
