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

/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a writer waits for another process that writes to the same SQLite file.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows on their way from SQLite's thread.
const SQLITE_ROW_BUFFER: usize = 4_096;
/// For so long after a statement was given up every connection is tidied up when it comes back to the pool. The pool tests
/// them as well, but waits for ever for one whose server is gone without a word.
const SUSPICION: Duration = Duration::from_secs(60);
/// How long such a connection may take to answer.
const ANSWER_AFTER_GIVEN_UP: Duration = Duration::from_secs(1);
/// A connection idle for longer is tested before it is used.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(30);

/// When a statement was last given up before it was answered.
pub(super) type GivenUp = Arc<Mutex<Option<Instant>>>;

/// One connection first: a pool that gets none says only that time ran out.
pub(super) async fn reach_postgres(url: &str) -> Result<(), DbErr> {
    let failed = |error: sqlx::Error| DbErr::Conn(RuntimeErr::SqlxError(error.into()));
    let connection = timeout(ACQUIRE_TIMEOUT, PgConnection::connect(url)).await;
    let connection = connection.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(failed)?;
    connection.close().await.map_err(failed)
}

pub(super) fn sqlite_options(url: &str, pool: u32) -> ConnectOptions {
    let mut options = common_options(url, pool);
    // A database in memory ends with its connection, and a file's costs nothing.
    options.max_lifetime(None).idle_timeout(None);
    // SQLite takes a transaction back by itself when the disk is full. The client does not always notice: then it takes all
    // that follows for a part of that transaction, and never commits again. Such a connection is not used any more.
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
            // Rows come from another thread, which sleeps when nobody takes them: let a batch's rows through at once.
            .row_buffer_size(SQLITE_ROW_BUFFER)
            // Negative: KiB. The defaults, 2 MB and 4 MB, write every page of an index again and again.
            .pragma("cache_size", "-16384")
            .pragma("wal_autocheckpoint", "8000")
    });
    options
}

pub(super) fn postgres_options(url: &str, pool: u32, statement_cache: usize, given_up: &GivenUp) -> ConnectOptions {
    let mut options = common_options(url, pool);
    let given_up = Arc::clone(given_up);
    options.map_sqlx_postgres_pool_opts(move |options| {
        let given_up = Arc::clone(&given_up);
        options.after_release(move |connection, _| {
            let last = *given_up.lock().unwrap_or_else(PoisonError::into_inner);
            let suspected = last.is_some_and(|last| last.elapsed() < SUSPICION);
            Box::pin(async move {
                if suspected {
                    // A BEGIN that was given up is not known of here, and yet it may have begun.
                    let answered = timeout(ANSWER_AFTER_GIVEN_UP, connection.execute("ROLLBACK")).await;
                    // An error has the connection closed without a word to the server.
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
            // A process that is stopped in the middle of a transaction must not hold its row locks for ever.
            .options([("idle_in_transaction_session_timeout", "15s")])
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
