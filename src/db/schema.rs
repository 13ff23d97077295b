//! Bringing the schema up to date, safely when several processes try at once.

use migration::{IntoSchemaManagerConnection, Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait};
use sqlx::{Connection as _, PgConnection};

use super::Db;

/// The key of PostgreSQL's advisory lock that migrations hold: "shop" in ASCII.
const MIGRATION_LOCK: i64 = 0x7368_6f70;

/// What to do to the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Apply what is pending.
    Up,
    /// Take the newest step back.
    Down,
    /// Take every step back, then apply all: the shop's tables, empty.
    Fresh,
}

/// A step of the schema, and whether this database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
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

/// Changes the schema. On PostgreSQL an advisory lock lets one process at a time do so; the others wait, then find
/// nothing left to do. On SQLite the file's own write lock and the connection's busy timeout do the same.
///
/// # Errors
/// The database's error, the lock being let go of in any case; or that only a newer version of the program can do it.
pub async fn change(db: &Db, url: &str, change: Change) -> Result<(), DbErr> {
    let connection = db.write();
    let steps = status(connection).await?;
    let has = |state| steps.iter().any(|step| step.state == state);
    if change == Change::Up && !has(State::Pending) {
        return Ok(());
    }
    if has(State::Newer) {
        let problem = "a newer version of the program has changed the schema; only that version can change it further";
        return Err(DbErr::Custom(problem.to_owned()));
    }
    if connection.get_database_backend() != DbBackend::Postgres {
        return apply_on_sqlite(connection, change).await;
    }
    // A connection of its own: the lock belongs to a session, and the migrations run on a pool.
    let failed = |error: sqlx::Error| DbErr::Conn(sea_orm::RuntimeErr::SqlxError(error.into()));
    let mut lock = PgConnection::connect(url).await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut lock)
        .await
        .map_err(failed)?;
    let outcome = apply(connection, change).await;
    // Closing the session lets go of the lock as well.
    let _ = lock.close().await;
    outcome
}

/// Every step and whether it is applied, oldest first, those of a newer version last. Changes nothing.
///
/// # Errors
/// The database's error.
pub async fn status(connection: &DatabaseConnection) -> Result<Vec<Step>, DbErr> {
    let mut applied = applied(connection).await?;
    let mut steps: Vec<Step> = Vec::new();
    for step in Migrator::migrations() {
        let name = step.name().to_owned();
        let place = applied.iter().position(|applied| *applied == name);
        let state = place.map_or(State::Pending, |place| {
            applied.remove(place);
            State::Applied
        });
        steps.push(Step { name, state });
    }
    let newer = |name| Step {
        name,
        state: State::Newer,
    };
    steps.extend(applied.into_iter().map(newer));
    Ok(steps)
}

/// The steps that this database has, also those of a newer version of the program: while an upgrade is under way, the
/// old version goes on beside the new one.
async fn applied(connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let backend = connection.get_database_backend();
    let table = match backend {
        DbBackend::Postgres => "SELECT to_regclass('seaql_migrations') IS NOT NULL",
        _ => "SELECT COUNT(*) > 0 FROM sqlite_master WHERE name = 'seaql_migrations'",
    };
    let found = connection.query_one_raw(Statement::from_string(backend, table)).await?;
    if !found.map_or(Ok(false), |row| row.try_get_by_index(0))? {
        return Ok(Vec::new());
    }
    let versions = Statement::from_string(backend, "SELECT version FROM seaql_migrations ORDER BY version");
    let rows = connection.query_all_raw(versions).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// The names of the steps that this database lacks.
///
/// # Errors
/// The database's error.
pub async fn pending(connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let steps = status(connection).await?;
    Ok(steps
        .into_iter()
        .filter(|step| step.state == State::Pending)
        .map(|step| step.name)
        .collect())
}

/// One immediate transaction: it takes the write lock first, so that a second process waits and then finds nothing
/// left to do.
async fn apply_on_sqlite(connection: &DatabaseConnection, change: Change) -> Result<(), DbErr> {
    let txn = connection
        .begin_with_options(super::transaction::write_options())
        .await?;
    apply(&txn, change).await?;
    txn.commit().await
}

async fn apply<'c, C: IntoSchemaManagerConnection<'c>>(connection: C, change: Change) -> Result<(), DbErr> {
    match change {
        Change::Up => Migrator::up(connection, None).await,
        Change::Down => Migrator::down(connection, Some(1)).await,
        Change::Fresh => Migrator::refresh(connection).await,
    }
}
