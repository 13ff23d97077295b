//! Changing the schema of PostgreSQL beside running shops. Whoever waits for a lock on a table makes everybody wait who comes
//! later, so that a change that waits behind a long report would stop the shop. Here it waits for a moment, lets the others
//! through, and tries again; and it says for whom it waits.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use migration::MigratorTrait;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, SqlxPostgresConnector};
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgConnectOptions, postgres::PgPoolOptions};
use tokio::time::{interval, sleep};

use super::{
    super::{
        DbErrorClass, classify, connection_error,
        hosts::{connect_to_primary, urls_of_hosts},
        parse_hosts,
    },
    Change, apply,
};

/// The key of PostgreSQL's advisory lock that migrations hold: "shop" in ASCII.
const MIGRATION_LOCK: i64 = 0x7368_6f70;
/// As what `pg_stat_activity` shows the connections of a migration.
const APPLICATION: &str = "shop migrate";
/// How long a statement waits for its lock, and everybody behind it.
const LOCK_TIMEOUT: &str = "250ms";
/// PostgreSQL cancels an autovacuum that somebody has waited for so long (`deadlock_timeout`), and not earlier.
const AUTOVACUUM_LOCK_TIMEOUT: &str = "1200ms";
/// The pause between two attempts, in which the others are let through.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked up for whom a statement waits.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Who holds what is waited for.
#[derive(Debug, Default)]
struct Holders {
    text: String,
    is_autovacuum: bool,
    logged: Option<Instant>,
}

/// Changes the schema while no other process does. It is tried again while others hold the locks, for `max_wait`.
pub(super) async fn change_postgres<M: MigratorTrait>(
    url: &str,
    change: Change,
    max_wait: Duration,
) -> Result<(), DbErr> {
    let hosts = parse_hosts(&urls_of_hosts(url))?;
    let hosts: Vec<PgConnectOptions> = hosts
        .into_iter()
        .map(|host| host.application_name(APPLICATION))
        .collect();
    let (primary, mut session) = connect_to_primary(&hosts).await.map_err(connection_error)?;

    // A session of its own: the lock belongs to it, and it sees for whom the other one waits.
    lock(&mut session).await.map_err(connection_error)?;
    let options = hosts[primary].clone().options([("lock_timeout", LOCK_TIMEOUT)]);
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await;
    let connection = SqlxPostgresConnector::from_sqlx_postgres_pool(pool.map_err(connection_error)?);

    let outcome = until_locked::<M>(&connection, &mut session, change, max_wait).await;
    let _ = connection.close().await;
    // Closing the session releases the lock as well.
    let _ = session.close().await;
    outcome
}

/// Waits until no other process changes the schema. It asks again and again instead of waiting in a statement: an index that
/// the other one builds would wait for that statement's end.
async fn lock(session: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut logged: Option<Instant> = None;

    loop {
        let locked = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(MIGRATION_LOCK);
        if locked.fetch_one(&mut *session).await?.try_get(0)? {
            return Ok(());
        }
        if logged.is_none_or(|logged| logged.elapsed() > LOG_INTERVAL) {
            logged = Some(Instant::now());
            tracing::info!("another process changes the schema; waiting for it");
        }
        sleep(PAUSE / 4).await;
    }
}

async fn until_locked<M: MigratorTrait>(
    connection: &DatabaseConnection,
    session: &mut PgConnection,
    change: Change,
    max_wait: Duration,
) -> Result<(), DbErr> {
    let deadline = Instant::now() + max_wait;
    let mut holders = Holders::default();

    loop {
        let outcome = tokio::select! {
            outcome = apply::<M, _>(connection, change) => outcome,
            // Without the session others may change the schema as well.
            error = watch(session, &mut holders) => Err(connection_error(error)),
        };
        let Err(error) = outcome else { return Ok(()) };
        if classify(&error) != DbErrorClass::Retryable {
            return Err(error);
        }
        if Instant::now() >= deadline {
            let problem = format!(
                "the tables were in use for {max_wait:?}, by {holders}; end that or wait for it, then run this again",
                holders = holders.text
            );
            return Err(DbErr::Custom(problem));
        }

        sleep(PAUSE).await;
        let lock_timeout = if holders.is_autovacuum {
            AUTOVACUUM_LOCK_TIMEOUT
        } else {
            LOCK_TIMEOUT
        };
        let set = format!("SET lock_timeout = '{lock_timeout}'");
        connection.execute_unprepared(&set).await?;
    }
}

/// Looks up who holds the lock that the other session waits for, and logs it, until it is dropped or the session is lost.
async fn watch(session: &mut PgConnection, holders: &mut Holders) -> sqlx::Error {
    let mut tick = interval(LOOK_INTERVAL);

    loop {
        tick.tick().await;
        let (text, is_autovacuum) = match find_holders(session).await {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => return error,
        };

        if holders.logged.is_none_or(|logged| logged.elapsed() > LOG_INTERVAL) {
            tracing::warn!(held_by = text, "waiting for a lock on a table; retrying");
            holders.logged = Some(Instant::now());
        }
        (holders.text, holders.is_autovacuum) = (text, is_autovacuum);
    }
}

/// Who they are, and whether one is an autovacuum. `None` while nobody is waited for.
async fn find_holders(session: &mut PgConnection) -> Result<Option<(String, bool)>, sqlx::Error> {
    let found = sqlx::query(
        "SELECT DISTINCT blocker.pid,
                COALESCE(NULLIF(holder.application_name, ''), holder.backend_type, 'a prepared transaction'),
                COALESCE(holder.usename, ''),
                COALESCE(EXTRACT(epoch FROM clock_timestamp() - holder.xact_start), 0)::bigint
           FROM pg_stat_activity waiting
          CROSS JOIN unnest(pg_blocking_pids(waiting.pid)) AS blocker(pid)
           LEFT JOIN pg_stat_activity holder ON holder.pid = blocker.pid
          WHERE waiting.application_name = $1 AND waiting.datname = current_database() AND waiting.pid <> pg_backend_pid()
          ORDER BY blocker.pid",
    );

    let (mut text, mut is_autovacuum) = (String::new(), false);
    for row in found.bind(APPLICATION).fetch_all(session).await? {
        let (pid, program, user): (i32, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let seconds: i64 = row.try_get(3)?;

        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(
            text,
            "{comma}process {pid} ({program}, user {user:?}, in a transaction for {seconds} s)"
        );
        is_autovacuum |= program == "autovacuum worker";
    }
    Ok((!text.is_empty()).then_some((text, is_autovacuum)))
}
