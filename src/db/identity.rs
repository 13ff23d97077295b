//! Which database this is. What was read from one must not be taken for what another one holds, though both have the same
//! address, or the same content once.

use std::{os::unix::fs::MetadataExt as _, str::FromStr as _, time::Instant};

use sea_orm::DbErr;
use sqlx::sqlite::SqliteConnectOptions;

use super::{Db, sql::sql};
use crate::entities::Timestamp;

impl Db {
    /// A text of letters, digits, dots and dashes that is the same for all processes, and another one when the database is
    /// another: made anew, restored, emptied, failed over, or restarted, which may have been for a restore. The answer also
    /// sets the clock of [`Db::time`].
    ///
    /// # Errors
    /// The database's, also when it has no schema.
    pub async fn identity(&self) -> Result<String, DbErr> {
        let no_row = || DbErr::Custom("the table `shop` has lost its row".to_owned());
        if let Some(file) = &self.file {
            let ids: Vec<String> = sql("SELECT lower(hex(database_id)) FROM shop")
                .scalars(&self.read)
                .await?;
            return Ok(format!("{}{file}", ids.first().ok_or_else(no_row)?));
        }

        let asked = Instant::now();
        let answer: Vec<(String, Timestamp)> = sql("
            SELECT concat_ws('.', database_id, databases.oid, 'shop'::regclass::oid, pg_relation_filenode('orders'),
                             to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')),
                   clock_timestamp()
              FROM shop
              JOIN pg_database databases ON databases.datname = current_database()")
        .tuples(&self.read)
        .await?;
        let (identity, time) = answer.into_iter().next().ok_or_else(no_row)?;
        self.clock.set(asked, time);
        Ok(identity)
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
