//! The identity of a database. What was read from one must not be taken for what another one holds, though both have the same
//! address, or the same content once.

use std::{os::unix::fs::MetadataExt as _, str::FromStr as _, time::Instant};

use sea_orm::DbErr;
use sqlx::sqlite::SqliteConnectOptions;

use super::{Db, sql::sql};
use crate::entities::Timestamp;

/// Texts of letters, digits, dots and dashes, the same for all processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseIdentity {
    /// Another one when the database was made anew or is a copy of another one. A restart or a failover leaves it as it is, and
    /// so does a restore, unless `config/postgres/after-restore.sql` is run.
    pub database: String,
    /// Another one also when the database was restarted, failed over, restored or emptied: its rows may be older than before.
    pub incarnation: String,
}

impl Db {
    /// The identity of the database. The answer also sets the clock of [`Db::time`].
    ///
    /// # Errors
    /// The database's, also when it has no schema.
    pub async fn database_identity(&self) -> Result<DatabaseIdentity, DbErr> {
        let no_row = || DbErr::Custom("the table `shop` has lost its row".to_owned());
        if let Some(file) = &self.file {
            let ids: Vec<String> = sql("SELECT lower(hex(database_id)) FROM shop")
                .scalars(&self.read)
                .await?;
            let database = format!("{}{file}", ids.first().ok_or_else(no_row)?);
            return Ok(DatabaseIdentity {
                incarnation: database.clone(),
                database,
            });
        }

        let asked = Instant::now();
        let answer: Vec<(String, String, Timestamp)> = sql("
            SELECT concat_ws('.', database_id, databases.oid, 'shop'::regclass::oid),
                   concat_ws('.', pg_relation_filenode('orders'),
                             to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')),
                   clock_timestamp()
              FROM shop
              JOIN pg_database databases ON databases.datname = current_database()")
        .tuples(&self.read)
        .await?;
        let (database, incarnation, time) = answer.into_iter().next().ok_or_else(no_row)?;
        self.clock.set(asked, time);
        Ok(DatabaseIdentity {
            incarnation: format!("{database}.{incarnation}"),
            database,
        })
    }

    /// The time by the clock of the database, which all processes share, as of the last second. On SQLite it is that of the
    /// machine.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Distinguishes the file of a SQLite database from its copies: device and number of the file. Empty for one in memory.
pub(super) fn identity_of_file(url: &str) -> String {
    let options = SqliteConnectOptions::from_str(url).ok();
    let file = options.and_then(|options| options.get_filename().metadata().ok());
    file.map(|file| format!(".{:x}.{:x}", file.dev(), file.ino()))
        .unwrap_or_default()
}
