//! How connections are made: SQLite's pragmas, PostgreSQL's pool, and what is done to a connection before it is used again.

use std::{sync::Arc, time::Duration};

use sea_orm::ConnectOptions;
use sqlx::{
    Connection as _, Executor as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::timeout;

use super::{
    eviction::{Eviction, Verdict},
    session,
};

/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a writer waits for another process that writes to the same SQLite file.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows that wait between SQLite's thread and the reader.
const SQLITE_ROW_BUFFER: usize = 4_096;
/// How long a connection may take to answer the clean-up.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection may take to answer the test before it is used. The caller then still has time for a new one.
const TEST_TIMEOUT: Duration = Duration::from_millis(500);

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
    eviction: &Arc<Eviction>,
) -> ConnectOptions {
    let mut options = common_options(url, pool);
    let eviction = Arc::clone(eviction);
    options.map_sqlx_postgres_pool_opts(move |options| watched(options, &eviction));
    options.map_sqlx_postgres_opts(move |options| session_options(options, statement_cache));
    options
}

/// A pool that closes what is evicted, tests what was idle, and cleans up what was given up.
fn watched(options: PgPoolOptions, eviction: &Arc<Eviction>) -> PgPoolOptions {
    let (opened, acquired, released) = (Arc::clone(eviction), Arc::clone(eviction), Arc::clone(eviction));

    let options = options.after_connect(move |connection, _| {
        let eviction = Arc::clone(&opened);
        Box::pin(async move {
            eviction.record_writable(takes_writes(connection).await?);
            Ok(())
        })
    });

    let options = options.before_acquire(move |connection, meta| {
        let verdict = acquired.verdict(meta.age, meta.idle_for);
        let eviction = Arc::clone(&acquired);
        Box::pin(async move {
            match verdict {
                Verdict::Use => Ok(true),
                Verdict::Close => Ok(false),
                Verdict::Test => is_usable(connection, &eviction).await,
            }
        })
    });

    options.after_release(move |connection, meta| {
        let (is_evicted, needs_cleanup) = (released.is_evicted(meta.age), released.needs_cleanup());
        Box::pin(async move {
            if needs_cleanup && !is_evicted {
                let answered = timeout(CLEANUP_TIMEOUT, end_transaction(connection)).await;
                // An error makes the pool close the connection without waiting for the server.
                answered.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            }
            Ok(!is_evicted)
        })
    })
}

/// A BEGIN that timed out is not known of here, and yet the transaction may have begun. It is asked for first: a ROLLBACK of
/// none is a warning in the server's log, each time.
async fn end_transaction(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = connection.fetch_one("SELECT now() <> statement_timestamp()").await?;
    let is_in_transaction: bool = row.try_get(0)?;
    if is_in_transaction {
        connection.execute("ROLLBACK").await?;
    }
    Ok(())
}

/// Whether a connection that was idle leads to a server that takes writes. An error makes the pool close the connection without
/// waiting for the server.
async fn is_usable(connection: &mut PgConnection, eviction: &Eviction) -> Result<bool, sqlx::Error> {
    let answered = timeout(TEST_TIMEOUT, takes_writes(connection)).await;
    let takes_writes = answered.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
    eviction.record_writable(takes_writes);
    Ok(takes_writes)
}

/// A standby does not, and neither does a primary that was made read-only.
pub(super) async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = connection.fetch_one("SHOW transaction_read_only").await?;
    let read_only: String = row.try_get(0)?;
    Ok(read_only == "off")
}

pub(super) fn session_options(options: PgConnectOptions, statement_cache: usize) -> PgConnectOptions {
    options
        .application_name("shop")
        .statement_cache_capacity(statement_cache)
        .options(session::OPTIONS)
}

fn common_options(url: &str, pool: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(pool)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // What is tested before a connection is used, the options of each database say.
        .test_before_acquire(false)
        .sqlx_logging(false);
    options
}
