//! The database behind its URL: SQLite for one machine, PostgreSQL for many. Everything that differs between the two
//! and is not SQL text lives here; what differs in the text lives in [`rows`].

use std::{future::Future, pin::Pin, str::FromStr as _, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    IsolationLevel, RuntimeErr, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sqlx::{
    Connection as _, PgConnection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::timeout;

pub mod rows;
pub mod schema;

/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a writer waits for another process that writes to the same SQLite file.
const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows on their way from SQLite's thread.
const SQLITE_ROW_BUFFER: usize = 4_096;
/// A connection idle for longer is tested before it is used.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(30);

/// Connections to one database. Clones share them.
#[derive(Clone, Debug)]
pub struct Db {
    /// One connection on SQLite, which knows one writer; the same pool as `read` on PostgreSQL.
    write: DatabaseConnection,
    read: DatabaseConnection,
}

/// Says whether a transaction that ended in this error may succeed when it is run again.
pub trait Transient {
    fn is_transient(&self) -> bool;
}

/// What a transaction's body returns.
pub type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// What an error of the database means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A deadlock, a serialization failure or a busy file: run the transaction again.
    Busy,
    /// The database cannot be reached, or is going away: try again later.
    Away,
    /// The statement is at fault. Trying again gives the same answer.
    Statement,
}

/// Says what is wrong with a database's URL, and never what stands in it: that may be a password.
///
/// # Errors
/// What is wrong.
pub fn check_url(url: &str) -> Result<(), String> {
    // What the driver itself would pass over, to connect without encryption where that was asked for.
    const PARAMETERS: [&str; 18] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    let cause = |error: sqlx::Error| match error {
        sqlx::Error::Configuration(cause) => cause.to_string(),
        error => error.to_string(),
    };
    if let Some(file) = url.strip_prefix("sqlite:") {
        SqliteConnectOptions::from_str(url).map_err(cause)?;
        let file = file.trim_start_matches("//");
        let names_none = file.is_empty() || file.starts_with('?') && !is_in_memory(url);
        return (!names_none).then_some(()).ok_or_else(|| "it names no file".to_owned());
    }
    PgConnectOptions::from_str(url).map_err(cause)?;
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let names = parameters
        .split('&')
        .filter_map(|parameter| Some(parameter.split_once('=')?.0));
    let known = |name: &str| PARAMETERS.contains(&name) || name.starts_with("options[");
    match names.into_iter().find(|name| !known(name)) {
        Some(unknown) => Err(format!(
            "it has a parameter `{unknown}`, which PostgreSQL's URLs do not know"
        )),
        None => Ok(()),
    }
}

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
                .when(|error| fault(error) == Fault::Busy)
                .await?;
            let read = if is_in_memory(url) {
                write.clone()
            } else {
                Database::connect(sqlite_options(url, pool)).await?
            };
            return Ok(Self { write, read });
        }
        reach_postgres(url).await?;
        let read = Database::connect(postgres_options(url, pool, statement_cache)).await?;
        Ok(Self {
            write: read.clone(),
            read,
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
        let attempt = || async {
            let txn = self.write.begin_with_options(write_options()).await?;
            let value = work(&txn).await?;
            txn.commit().await?;
            Ok(value)
        };
        attempt.retry(back_off()).when(Transient::is_transient).await
    }

    /// Runs `read` on one consistent snapshot, whatever is written meanwhile.
    ///
    /// # Errors
    /// What `read` returned, or the database's error.
    pub async fn snapshot<T, E, F>(&self, read: F) -> Result<T, E>
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
        let value = read(&txn).await?;
        txn.commit().await?;
        Ok(value)
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

/// Until the commit nobody else gets past this who gives the same `key`. SQLite has one writer anyway.
///
/// # Errors
/// The database's.
pub async fn one_at_a_time(txn: &impl ConnectionTrait, key: i64) -> Result<(), DbErr> {
    if txn.get_database_backend() == DbBackend::Postgres {
        let lock = rows::Sql::new(DbBackend::Postgres, "SELECT pg_advisory_xact_lock(")
            .bind(key)
            .push(")");
        txn.execute_raw(lock.build()).await?;
    }
    Ok(())
}

/// Sorts an error of the database by what can be done about it.
#[must_use]
pub fn fault(error: &DbErr) -> Fault {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => sqlx_fault(cause),
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Fault::Away,
        _ => Fault::Statement,
    }
}

fn sqlx_fault(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Fault::Away,
        sqlx::Error::Database(error) => error.code().map_or(Fault::Statement, |code| fault_of_code(&code)),
        _ => Fault::Statement,
    }
}

/// SQLSTATE on PostgreSQL, five characters; the extended result code on SQLite, whose last byte is the plain one.
fn fault_of_code(code: &str) -> Fault {
    const SQLSTATE: usize = 5;
    if code.len() < SQLSTATE {
        return match code.parse::<u32>().map(|code| code & 0xff) {
            // SQLITE_BUSY, SQLITE_LOCKED
            Ok(5 | 6) => Fault::Busy,
            // SQLITE_READONLY, SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_NOTADB
            Ok(8 | 10 | 11 | 13 | 14 | 26) => Fault::Away,
            _ => Fault::Statement,
        };
    }
    match code {
        // serialization_failure, deadlock_detected, lock_not_available
        "40001" | "40P01" | "55P03" => Fault::Busy,
        // admin_shutdown, crash_shutdown, cannot_connect_now, idle_in_transaction_session_timeout,
        // too_many_connections, disk_full, out_of_memory, read_only_sql_transaction (a demoted primary)
        "57P01" | "57P02" | "57P03" | "25P03" | "53300" | "53100" | "53200" | "25006" => Fault::Away,
        code if code.starts_with("08") => Fault::Away,
        _ => Fault::Statement,
    }
}

/// One connection first: a pool that gets none says only that time ran out.
async fn reach_postgres(url: &str) -> Result<(), DbErr> {
    let failed = |error: sqlx::Error| DbErr::Conn(RuntimeErr::SqlxError(error.into()));
    let connection = timeout(ACQUIRE_TIMEOUT, PgConnection::connect(url)).await;
    let connection = connection.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(failed)?;
    connection.close().await.map_err(failed)
}

fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
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

fn sqlite_options(url: &str, pool: u32) -> ConnectOptions {
    let mut options = common_options(url, pool);
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

fn postgres_options(url: &str, pool: u32, statement_cache: usize) -> ConnectOptions {
    let mut options = common_options(url, pool);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlocks_are_tried_again_and_constraint_violations_are_not() {
        assert_eq!(fault_of_code("40P01"), Fault::Busy);
        assert_eq!(fault_of_code("40001"), Fault::Busy);
        assert_eq!(fault_of_code("57P01"), Fault::Away);
        assert_eq!(fault_of_code("08006"), Fault::Away);
        assert_eq!(fault_of_code("23514"), Fault::Statement);
        assert_eq!(fault_of_code("53100"), Fault::Away, "a full disk");
        assert_eq!(fault_of_code("517"), Fault::Busy, "SQLITE_BUSY_SNAPSHOT");
        assert_eq!(fault_of_code("13"), Fault::Away, "a full disk");
        assert_eq!(fault_of_code("1032"), Fault::Away, "SQLITE_READONLY_DBMOVED");
        assert_eq!(fault_of_code("2067"), Fault::Statement, "SQLITE_CONSTRAINT_UNIQUE");
    }

    #[test]
    fn a_url_that_is_no_good_is_told_without_its_password() {
        for good in [
            "sqlite://shop.db?mode=rwc",
            "sqlite::memory:",
            "sqlite:shop.db",
            "postgres://u:p%2Fw@h:5432/shop?sslmode=verify-full&sslrootcert=/ca.pem",
            "postgresql:///shop?host=/run/postgresql&options[search_path]=shop",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "postgres://u:hunter2@h:port/shop",
            "postgres://u:hun/ter2@h/shop",
            "postgres://u:hunter2@h/shop?sslmode=maybe",
            "postgres://u@h/shop?pasword=hunter2",
            "sqlite://shop.db?mode=rwz",
            "sqlite://?mode=rwc",
            "sqlite:",
        ] {
            let said = check_url(bad).expect_err(bad);
            assert!(!said.contains("hun"), "{said}");
        }
    }
}
