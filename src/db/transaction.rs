//! Transactions: begun, committed, and run again when the database asks for that. The body of a transaction is a closure
//! that takes the transaction by value, so that its future can be sent between threads without being boxed.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable as _};
use sea_orm::{
    AccessMode, ConnectionTrait as _, DatabaseTransaction, DbErr, IsolationLevel, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};

use super::{Db, DbErrorClass, classify, forget_plans};

/// A transaction as its body sees it. The body must not keep it: it is committed when the body returns.
pub type Txn = Arc<DatabaseTransaction>;

/// What an error says about trying again.
pub trait Transient {
    /// Whether a transaction that ended in this error may succeed when it is run again.
    fn is_transient(&self) -> bool;
    /// Whether it may succeed on a new connection alone.
    fn needs_reconnect(&self) -> bool;
}

impl Transient for DbErr {
    fn is_transient(&self) -> bool {
        !matches!(classify(self), DbErrorClass::AccessDenied | DbErrorClass::Permanent)
    }

    fn needs_reconnect(&self) -> bool {
        classify(self) == DbErrorClass::Reconnect
    }
}

/// An attempt at a transaction that failed.
struct Failed<E> {
    error: E,
    /// The database was told to commit and did not answer that it had rolled back.
    maybe_committed: bool,
}

impl<E> Failed<E> {
    fn before_commit(error: E) -> Self {
        Self {
            error,
            maybe_committed: false,
        }
    }
}

impl Db {
    /// Runs `work` in a transaction and commits it. After a deadlock, a serialization failure or a lost connection it
    /// runs again, with back-off and a bounded number of times. The answer to a commit can be lost, so `work` must be
    /// safe to run again after it was committed.
    ///
    /// # Errors
    /// What `work` returned, or the database's error.
    pub async fn transaction<T, E, F>(&self, work: impl Fn(Txn) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<DbErr> + Transient,
    {
        let retry = |failed: &Failed<E>| failed.error.is_transient();
        self.attempts(work, retry).await
    }

    /// As [`Db::transaction`], for `work` that must not be done twice: it is not run again once it may have been
    /// committed.
    ///
    /// # Errors
    /// As [`Db::transaction`]; after a transient error `work` may have been committed.
    pub async fn transaction_once<T, E, F>(&self, work: impl Fn(Txn) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<DbErr> + Transient,
    {
        let retry = |failed: &Failed<E>| failed.error.is_transient() && !failed.maybe_committed;
        self.attempts(work, retry).await
    }

    /// Runs `read` on one consistent snapshot, whatever others write meanwhile; once more when its connection turns out to be of
    /// no more use. On PostgreSQL each of its statements is cancelled after `limit`; SQLite has no such limit.
    ///
    /// # Errors
    /// What `read` returned, or the database's error.
    pub async fn snapshot<T, E, F>(&self, limit: Option<Duration>, read: impl Fn(Txn) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<DbErr> + Transient,
    {
        let limit = limit.map(|limit| format!("SET LOCAL statement_timeout = {}", limit.as_millis()));
        self.read_only(limit, read).await
    }

    /// As [`Db::snapshot`], for statements that read whole tables: PostgreSQL may scan them from end to end, which its
    /// connections rule out otherwise.
    ///
    /// # Errors
    /// As [`Db::snapshot`].
    pub async fn report<T, E, F>(&self, limit: Option<Duration>, read: impl Fn(Txn) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<DbErr> + Transient,
    {
        let limit = limit.unwrap_or_default().as_millis();
        let settings = format!(
            "SET LOCAL statement_timeout = {limit}; SET LOCAL enable_seqscan = on; SET LOCAL plan_cache_mode = auto; \
             DISCARD PLANS"
        );

        // A session keeps its plans, and whoever runs the same statement in it next would scan as well.
        let read_and_forget = |txn: Txn| {
            let read = read(Arc::clone(&txn));
            async move {
                let value = read.await?;
                forget_plans(&txn).await?;
                Ok(value)
            }
        };
        self.read_only(Some(settings), read_and_forget).await
    }

    async fn read_only<T, E, F>(&self, settings: Option<String>, read: impl Fn(Txn) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<DbErr> + Transient,
    {
        let settings = settings.filter(|_| !self.is_sqlite());
        match self.read_once(settings.as_deref(), &read).await {
            Err(error) if error.needs_reconnect() => {
                self.eviction.evict();
                self.read_once(settings.as_deref(), &read).await
            }
            done => done,
        }
    }

    async fn read_once<T, E, F>(&self, settings: Option<&str>, read: impl Fn(Txn) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<DbErr>,
    {
        let is_sqlite = self.is_sqlite();
        let options = TransactionOptions {
            // SQLite reads from a snapshot in any transaction, and has no isolation levels.
            isolation_level: (!is_sqlite).then_some(IsolationLevel::RepeatableRead),
            access_mode: (!is_sqlite).then_some(AccessMode::ReadOnly),
            sqlite_transaction_mode: None,
        };
        let txn = Arc::new(self.read.connection.begin_with_options(options).await?);

        if let Some(settings) = settings {
            txn.execute_unprepared(settings).await?;
        }

        let value = read(Arc::clone(&txn)).await?;
        commit(txn).await?;
        Ok(value)
    }

    async fn attempts<T, E, F>(&self, work: impl Fn(Txn) -> F, retry: impl Fn(&Failed<E>) -> bool) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<DbErr> + Transient,
    {
        let note = |failed: &Failed<E>| {
            if failed.error.needs_reconnect() {
                self.eviction.evict_unless_recent();
            }
            self.last_write_failed
                .fetch_or(failed.error.is_transient(), Ordering::Relaxed);
        };

        let attempt = || async { self.attempt(&work).await.inspect_err(note) };
        let done = attempt.retry(back_off()).when(retry).await;
        done.map_err(|failed| failed.error)
    }

    async fn attempt<T, E, F>(&self, work: impl Fn(Txn) -> F) -> Result<T, Failed<E>>
    where
        F: Future<Output = Result<T, E>>,
        E: From<DbErr>,
    {
        let not_begun = |error: DbErr| Failed::before_commit(error.into());
        let txn = self
            .write
            .begin_with_options(write_options())
            .await
            .map_err(not_begun)?;
        let txn = Arc::new(txn);

        let value = work(Arc::clone(&txn)).await.map_err(Failed::before_commit)?;

        commit(txn).await.map_err(|error| Failed {
            // A deadlock or a serialization failure is the database's own word that it rolled back.
            maybe_committed: classify(&error) != DbErrorClass::Retryable,
            error: error.into(),
        })?;
        Ok(value)
    }
}

async fn commit(txn: Txn) -> Result<(), DbErr> {
    let txn = Arc::into_inner(txn).ok_or_else(|| DbErr::Custom("a transaction outlived its body".to_owned()))?;
    txn.commit().await
}

/// A writing transaction takes SQLite's write lock when it begins. One that begins by reading fails later, when another
/// writer holds the lock, instead of waiting for it.
pub(super) fn write_options() -> TransactionOptions {
    TransactionOptions {
        isolation_level: None,
        access_mode: None,
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
    }
}

pub(super) fn back_off() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(5))
        .with_max_delay(Duration::from_millis(250))
        .with_max_times(8)
        .with_jitter()
}
