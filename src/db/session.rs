//! Sessions on PostgreSQL: what each asks for when it connects, whether it has got it, since a pooler in between may drop it,
//! and whether the server still has one.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr};

use super::{
    Db,
    sql::{Column, sql},
};

/// Startup options of every connection.
pub(super) const OPTIONS: [(&str, &str); 4] = [
    // A process that is stopped in the middle of a transaction must not hold its row locks for ever.
    (IDLE_TIMEOUT, "15s"),
    // Every statement here has an index that serves it. PostgreSQL keeps plans for a session: one that was made while a table
    // was empty would go on reading all of it when it has grown, foreign-key checks included.
    ("enable_seqscan", "off"),
    // Their plans do not depend on the values either, so none is made anew for each execution.
    ("plan_cache_mode", "force_generic_plan"),
    // A plan that has no other way but a scan looks so expensive that PostgreSQL would compile it first.
    ("jit", "off"),
];
const IDLE_TIMEOUT: &str = "idle_in_transaction_session_timeout";
/// How PostgreSQL shows a timeout that is switched off.
const NO_TIMEOUT: &str = "0";

/// Options that the sessions asked for and do not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingOptions {
    /// As they are instead: `enable_seqscan is on, jit is on`.
    pub found: String,
    /// SQL that gives them to the role of the sessions.
    pub remedy: String,
}

/// Whether a pooler has refused a connection because of the options: PgBouncer does unless it is to ignore them.
#[must_use]
pub fn options_are_refused(error: &DbErr) -> bool {
    error.to_string().contains("unsupported startup parameter")
}

/// The id of the session in which this transaction runs, at the server. SQLite has no server: `None`.
pub async fn session_id(txn: &DatabaseTransaction) -> Result<Option<i32>, DbErr> {
    if txn.get_database_backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let ids: Vec<i32> = sql("SELECT pg_backend_pid()").scalars(txn).await?;
    Ok(ids.first().copied())
}

/// Whether the server, asked through another connection, still has the session. It has none any more after a restart or a
/// failover, and once it has noticed that nobody is at the other end.
pub async fn session_exists(connection: &impl ConnectionTrait, id: i32) -> Result<bool, DbErr> {
    let ids: Vec<i32> = sql("SELECT pid FROM pg_stat_get_activity(:id)")
        .bind("id", id)
        .scalars(connection)
        .await?;
    Ok(!ids.is_empty())
}

impl Db {
    /// The options that are not in force. `None` if all are, and on SQLite.
    pub async fn missing_options(&self) -> Result<Option<MissingOptions>, DbErr> {
        if self.is_sqlite() {
            return Ok(None);
        }
        let names = OPTIONS.map(|(name, _)| name.to_owned()).into();
        let settings: Vec<(String, String, String)> = sql("
            SELECT name, current_setting(name), quote_ident(current_user)
              FROM pg_settings
             WHERE name = ANY(:names)
             ORDER BY name")
        .list("names", Column::Text(names))
        .tuples(&self.read)
        .await?;

        let (mut found, mut remedy) = (Vec::new(), Vec::new());
        for (name, value, role) in settings {
            let option = OPTIONS.iter().find(|(option, _)| *option == name);
            if let Some((_, wanted)) = option
                && !is_in_force(&name, &value, wanted)
            {
                found.push(format!("{name} is {value}"));
                remedy.push(format!("ALTER ROLE {role} SET {name} = '{wanted}';"));
            }
        }
        let (found, remedy) = (found.join(", "), remedy.join(" "));
        Ok((!found.is_empty()).then_some(MissingOptions { found, remedy }))
    }
}

/// Any timeout will do; the others are as they should be or not.
fn is_in_force(name: &str, value: &str, wanted: &str) -> bool {
    value == wanted || (name == IDLE_TIMEOUT && value != NO_TIMEOUT)
}
