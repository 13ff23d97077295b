//! What an error of the database means for whoever meets it.

use sea_orm::{DbErr, RuntimeErr};

/// What an error of the database means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A deadlock, a serialization failure or a busy file: run the transaction again.
    Busy,
    /// The database cannot be reached, or is going away: try again later.
    Away,
    /// The database lets nobody in by this URL. Somebody has to change something, and then it may be tried again.
    Refused,
    /// The statement is at fault. Trying again gives the same answer.
    Statement,
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
        // idle_in_transaction_session_timeout, read_only_sql_transaction (a demoted primary)
        "25P03" | "25006" => Fault::Away,
        // Connections, resources (a full disk), the operator (a shutdown, a statement cancelled), the system
        code if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Fault::Away,
        // The user or the database is refused: a password that was changed, say.
        code if code.starts_with("28") || code == "3D000" => Fault::Refused,
        _ => Fault::Statement,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlocks_are_tried_again_and_constraint_violations_are_not() {
        assert_eq!(fault_of_code("40P01"), Fault::Busy);
        assert_eq!(fault_of_code("40001"), Fault::Busy);
        assert_eq!(fault_of_code("57P01"), Fault::Away);
        assert_eq!(fault_of_code("28P01"), Fault::Refused, "a wrong password");
        assert_eq!(fault_of_code("08006"), Fault::Away);
        assert_eq!(fault_of_code("23514"), Fault::Statement);
        assert_eq!(fault_of_code("53100"), Fault::Away, "a full disk");
        assert_eq!(fault_of_code("517"), Fault::Busy, "SQLITE_BUSY_SNAPSHOT");
        assert_eq!(fault_of_code("13"), Fault::Away, "a full disk");
        assert_eq!(fault_of_code("1032"), Fault::Away, "SQLITE_READONLY_DBMOVED");
        assert_eq!(fault_of_code("2067"), Fault::Statement, "SQLITE_CONSTRAINT_UNIQUE");
    }
}
