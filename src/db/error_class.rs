//! Sorts the errors of a database by what can be done about them.

use sea_orm::{DbErr, RuntimeErr};

/// What can be done about an error of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbErrorClass {
    /// A deadlock, a serialization failure or a busy file: run the transaction again.
    Retryable,
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
        DbErr::Conn(RuntimeErr::SqlxError(cause))
        | DbErr::Exec(RuntimeErr::SqlxError(cause))
        | DbErr::Query(RuntimeErr::SqlxError(cause)) => classify_sqlx(cause),
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => DbErrorClass::Unavailable,
        _ => DbErrorClass::Permanent,
    }
}

fn classify_sqlx(error: &sqlx::Error) -> DbErrorClass {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => DbErrorClass::Unavailable,
        sqlx::Error::Database(error) => error
            .code()
            .map_or(DbErrorClass::Permanent, |code| class_of_code(&code)),
        _ => DbErrorClass::Permanent,
    }
}

/// SQLSTATE on PostgreSQL, five characters; the extended result code on SQLite, whose last byte is the plain one.
fn class_of_code(code: &str) -> DbErrorClass {
    const SQLSTATE: usize = 5;
    if code.len() < SQLSTATE {
        return match code.parse::<u32>().map(|code| code & 0xff) {
            // SQLITE_BUSY, SQLITE_LOCKED
            Ok(5 | 6) => DbErrorClass::Retryable,
            // SQLITE_READONLY, SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_NOTADB
            Ok(8 | 10 | 11 | 13 | 14 | 26) => DbErrorClass::Unavailable,
            _ => DbErrorClass::Permanent,
        };
    }

    match code {
        // serialization_failure, deadlock_detected, lock_not_available
        "40001" | "40P01" | "55P03" => DbErrorClass::Retryable,
        // idle_in_transaction_session_timeout, read_only_sql_transaction (a demoted primary)
        "25P03" | "25006" => DbErrorClass::Unavailable,
        // Connections, resources (a full disk), the operator (a shutdown, a statement cancelled), the system
        code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => DbErrorClass::Unavailable,
        // The user or the database is rejected, after a password was changed for instance.
        code if code.starts_with("28") || code == "3D000" => DbErrorClass::AccessDenied,
        _ => DbErrorClass::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlocks_are_tried_again_and_constraint_violations_are_not() {
        assert_eq!(class_of_code("40P01"), DbErrorClass::Retryable);
        assert_eq!(class_of_code("40001"), DbErrorClass::Retryable);
        assert_eq!(class_of_code("57P01"), DbErrorClass::Unavailable);
        assert_eq!(class_of_code("28P01"), DbErrorClass::AccessDenied, "a wrong password");
        assert_eq!(class_of_code("08006"), DbErrorClass::Unavailable);
        assert_eq!(class_of_code("23514"), DbErrorClass::Permanent);
        assert_eq!(class_of_code("53100"), DbErrorClass::Unavailable, "a full disk");
        assert_eq!(class_of_code("517"), DbErrorClass::Retryable, "SQLITE_BUSY_SNAPSHOT");
        assert_eq!(class_of_code("13"), DbErrorClass::Unavailable, "a full disk");
        assert_eq!(
            class_of_code("1032"),
            DbErrorClass::Unavailable,
            "SQLITE_READONLY_DBMOVED"
        );
        assert_eq!(
            class_of_code("2067"),
            DbErrorClass::Permanent,
            "SQLITE_CONSTRAINT_UNIQUE"
        );
    }
}
