//! Sorts the errors of a database by what can be done about them.

use sea_orm::{DbErr, RuntimeErr, SqlErr};
use sqlx::postgres::PgDatabaseError;

/// What can be done about an error of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbErrorClass {
    /// A deadlock, a serialization failure or a busy file: run the transaction again.
    Retryable,
    /// The connection is of no more use, and neither are those that are as old: the server has closed it or takes no more
    /// writes, or the statements prepared on it are out of date. Try again on a new connection.
    Reconnect,
    /// The database cannot be reached, shuts down, or lacks resources: retry later.
    Unavailable,
    /// The database rejects the user or has no such database: retry after somebody has changed that.
    AccessDenied,
    /// The statement is at fault: a retry fails in the same way.
    Permanent,
}

#[must_use]
pub fn classify(error: &DbErr) -> DbErrorClass {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => classify_sqlx(cause),
        // No statement was at fault, because none was sent.
        DbErr::Conn(RuntimeErr::SqlxError(cause)) => match classify_sqlx(cause) {
            DbErrorClass::Permanent if matches!(**cause, sqlx::Error::Database(_)) => DbErrorClass::Unavailable,
            class => class,
        },
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => DbErrorClass::Unavailable,
        _ => DbErrorClass::Permanent,
    }
}

/// What an error says. The driver adds the line of PostgreSQL's own source code; in place of that stands the code that
/// PostgreSQL documents (SQLSTATE).
#[must_use]
pub fn describe(error: &DbErr) -> String {
    let text = error.to_string();
    let (DbErr::Exec(RuntimeErr::SqlxError(cause))
    | DbErr::Query(RuntimeErr::SqlxError(cause))
    | DbErr::Conn(RuntimeErr::SqlxError(cause))) = error
    else {
        return text;
    };

    let postgres = match &**cause {
        sqlx::Error::Database(error) => error.try_downcast_ref::<PgDatabaseError>(),
        _ => None,
    };
    postgres.map_or_else(
        || text.clone(),
        |error| {
            let described = format!("{} (SQLSTATE {})", error.message(), error.code());
            text.replace(&error.to_string(), &described)
        },
    )
}

/// Whether the statement would have stored a second row where there can be one.
#[must_use]
pub fn is_unique_violation(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

fn classify_sqlx(error: &sqlx::Error) -> DbErrorClass {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed | sqlx::Error::WorkerCrashed => {
            DbErrorClass::Reconnect
        }
        sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => DbErrorClass::Unavailable,
        sqlx::Error::Database(error) => {
            let routine = error.try_downcast_ref().and_then(PgDatabaseError::routine);
            error
                .code()
                .map_or(DbErrorClass::Permanent, |code| class_of_code(&code, routine))
        }
        _ => DbErrorClass::Permanent,
    }
}

/// SQLSTATE on PostgreSQL, five characters, with the name of the routine that reported it; the extended result code on
/// SQLite, whose last byte is the plain one.
fn class_of_code(code: &str, routine: Option<&str>) -> DbErrorClass {
    const SQLSTATE: usize = 5;

    if code.len() == SQLSTATE {
        class_of_sqlstate(code, routine)
    } else {
        class_of_result_code(code)
    }
}

fn class_of_result_code(code: &str) -> DbErrorClass {
    match code.parse::<u32>().map(|code| code & 0xff) {
        // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_PROTOCOL (a race for the locks), SQLITE_SCHEMA
        Ok(5 | 6 | 15 | 17) => DbErrorClass::Retryable,
        // SQLITE_NOMEM, SQLITE_READONLY, SQLITE_INTERRUPT, SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_CANTOPEN,
        // SQLITE_NOTADB
        Ok(7..=11 | 13 | 14 | 26) => DbErrorClass::Unavailable,
        _ => DbErrorClass::Permanent,
    }
}

/// See appendix A of PostgreSQL's documentation for the codes.
fn class_of_sqlstate(code: &str, routine: Option<&str>) -> DbErrorClass {
    /// Where PostgreSQL finds that a prepared statement would answer other columns than it did. Its message is translated.
    const PREPARED_STATEMENT_IS_STALE: &str = "RevalidateCachedQuery";

    match code {
        // transaction_rollback, serialization_failure, deadlock_detected, lock_not_available, snapshot_too_old
        "40000" | "40001" | "40P01" | "55P03" | "72000" => DbErrorClass::Retryable,
        // feature_not_supported
        "0A000" if routine == Some(PREPARED_STATEMENT_IS_STALE) => DbErrorClass::Reconnect,
        // Somebody else has used this session: invalid_sql_statement_name, duplicate_prepared_statement.
        "26000" | "42P05"
        // The server ends it: admin_shutdown, crash_shutdown, idle_session_timeout, idle_in_transaction_session_timeout,
        // transaction_timeout.
        | "57P01" | "57P02" | "57P05" | "25P03" | "25P04"
        // A primary that is one no more: read_only_sql_transaction.
        | "25006" => DbErrorClass::Reconnect,
        // insufficient_privilege: after a migration, before the rights on what is new are granted
        "42501" | "3D000" => DbErrorClass::AccessDenied,
        // statement_completion_unknown; undefined_table, while the schema is made anew
        "40003" | "42P01" => DbErrorClass::Unavailable,
        code => match &code[..2] {
            "08" => DbErrorClass::Reconnect,
            // Resources (a full disk), what is in use or not ready, the operator (a statement cancelled), the system
            "53" | "55" | "57" | "58" => DbErrorClass::Unavailable,
            // The user is rejected, after a password was changed for instance.
            "28" => DbErrorClass::AccessDenied,
            _ => DbErrorClass::Permanent,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_means_not_now_is_tried_again_and_the_others_are_not() {
        for (class, codes) in [
            (
                DbErrorClass::Retryable,
                // The last is SQLITE_BUSY_SNAPSHOT.
                &["40001", "40P01", "55P03", "5", "6", "517"][..],
            ),
            (
                DbErrorClass::Reconnect,
                &[
                    "08000", "08003", "08006", "08P01", "25006", "25P03", "26000", "42P05", "57P01", "57P02", "57P05",
                ],
            ),
            (
                DbErrorClass::Unavailable,
                // The last two are SQLITE_FULL and SQLITE_READONLY_DBMOVED.
                &[
                    "40003", "42P01", "53100", "53200", "53300", "53400", "55000", "55006", "57014", "57P03", "57P04",
                    "58030", "13", "1032",
                ],
            ),
            (DbErrorClass::AccessDenied, &["28000", "28P01", "3D000", "42501"]),
            (
                DbErrorClass::Permanent,
                // The last is SQLITE_CONSTRAINT_UNIQUE.
                &["0A000", "22003", "23505", "23514", "42601", "42703", "XX000", "2067"],
            ),
        ] {
            for code in codes {
                assert_eq!(class_of_code(code, None), class, "{code}");
            }
        }
        assert_eq!(
            class_of_code("0A000", Some("RevalidateCachedQuery")),
            DbErrorClass::Reconnect
        );
    }
}
