//! Brings the schema up to date, safely when several processes try at once.

use std::time::Duration;

use migration::{IntoSchemaManagerConnection, Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait as _};

use super::{Db, sql::sql, transaction::write_options};

mod lock;

/// How long a change of the schema waits for those who use the tables.
const MAX_WAIT: Duration = Duration::from_mins(2);

/// What to do to the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Apply what is pending.
    Up,
    /// Revert the newest migration.
    Down,
    /// Revert every migration, then apply all: the shop's tables, empty.
    Fresh,
}

/// A migration, and whether this database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    pub name: String,
    pub state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Applied,
    Pending,
    /// Applied by a newer version of the program, which alone knows what it is.
    Newer,
}

impl State {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Pending => "pending",
            Self::Newer => "newer",
        }
    }
}

/// Changes the schema. On PostgreSQL an advisory lock lets one process at a time do so; the others wait, then find nothing
/// left to do. On SQLite the file's write lock and the busy timeout have the same effect.
///
/// # Errors
/// The database's error, that the tables were in use for two minutes, or that only a newer version of the program can
/// change this schema.
pub async fn change(db: &Db, url: &str, change: Change) -> Result<(), DbErr> {
    change_by::<Migrator>(db, url, change, MAX_WAIT).await
}

/// As [`change()`], by the migrations that `M` knows, and waits for those who use the tables for `max_wait`.
///
/// # Errors
/// As [`change()`].
pub async fn change_by<M: MigratorTrait>(db: &Db, url: &str, change: Change, max_wait: Duration) -> Result<(), DbErr> {
    let migrations = status_of::<M>(db.write()).await?;
    let has = |state| migrations.iter().any(|migration| migration.state == state);
    if change == Change::Up && !has(State::Pending) {
        return Ok(());
    }
    if has(State::Newer) {
        let problem = "a newer version of the program has changed the schema; only that version can change it further";
        return Err(DbErr::Custom(problem.to_owned()));
    }

    if db.is_sqlite() {
        return change_sqlite::<M>(db.write(), change).await;
    }
    lock::change_postgres::<M>(url, change, max_wait).await
}

/// One immediate transaction: it takes the write lock first, so that a second process waits and then finds nothing left
/// to do.
async fn change_sqlite<M: MigratorTrait>(connection: &DatabaseConnection, change: Change) -> Result<(), DbErr> {
    let txn = connection.begin_with_options(write_options()).await?;
    apply::<M, _>(&txn, change).await?;
    txn.commit().await
}

async fn apply<'c, M, C>(connection: C, change: Change) -> Result<(), DbErr>
where
    M: MigratorTrait,
    C: IntoSchemaManagerConnection<'c>,
{
    match change {
        Change::Up => M::up(connection, None).await,
        Change::Down => M::down(connection, Some(1)).await,
        Change::Fresh => M::refresh(connection).await,
    }
}

/// Every migration and whether it is applied, oldest first, those of a newer version last. Changes nothing.
pub async fn status(connection: &impl ConnectionTrait) -> Result<Vec<Migration>, DbErr> {
    status_of::<Migrator>(connection).await
}

async fn status_of<M: MigratorTrait>(connection: &impl ConnectionTrait) -> Result<Vec<Migration>, DbErr> {
    let mut applied = applied(connection).await?;

    let mut migrations: Vec<Migration> = Vec::new();
    for known in M::migrations() {
        let name = known.name().to_owned();
        let index = applied.iter().position(|applied| *applied == name);
        let state = index.map_or(State::Pending, |index| {
            applied.remove(index);
            State::Applied
        });
        migrations.push(Migration { name, state });
    }

    let newer = |name| Migration {
        name,
        state: State::Newer,
    };
    migrations.extend(applied.into_iter().map(newer));
    Ok(migrations)
}

/// The names of the migrations that this database lacks.
pub async fn pending(connection: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let migrations = status(connection).await?;
    let pending = migrations
        .into_iter()
        .filter(|migration| migration.state == State::Pending);
    Ok(pending.map(|migration| migration.name).collect())
}

/// The migrations that this database has, also those of a newer version of the program: while an upgrade is under way, the
/// old version goes on beside the new one.
async fn applied(connection: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let table = match connection.get_database_backend() {
        DbBackend::Postgres => sql("SELECT to_regclass('seaql_migrations') IS NOT NULL"),
        _ => sql("SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = 'seaql_migrations'"),
    };
    if table.scalars::<bool>(connection).await? != [true] {
        return Ok(Vec::new());
    }

    sql("SELECT version FROM seaql_migrations ORDER BY version")
        .scalars(connection)
        .await
}

/// How many rows each table of the shop has, for a person to see what would be lost.
pub async fn row_counts(connection: &impl ConnectionTrait) -> Result<Vec<(String, i64)>, DbErr> {
    let backend = connection.get_database_backend();
    let tables = match backend {
        DbBackend::Postgres => sql("
            SELECT relname::text
              FROM pg_class
             WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND relname <> 'seaql_migrations'
             ORDER BY relname"),
        _ => sql("
            SELECT name
              FROM sqlite_master
             WHERE type = 'table' AND name NOT IN ('seaql_migrations', 'sqlite_sequence')
             ORDER BY name"),
    };

    let mut counts = Vec::new();
    for table in tables.scalars::<String>(connection).await? {
        let count = Statement::from_string(backend, format!("SELECT count(*) FROM \"{table}\""));
        let row = connection.query_one_raw(count).await?;
        let rows = row.map(|row| row.try_get_by_index(0)).transpose()?;
        counts.push((table, rows.unwrap_or_default()));
    }
    Ok(counts)
}
