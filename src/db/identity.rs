//! Which database this is. What was read from one must not be taken for what another one holds, though both have the same
//! address, or the same content once.

use std::{os::unix::fs::MetadataExt as _, str::FromStr as _};

use sea_orm::DbErr;
use sqlx::sqlite::SqliteConnectOptions;

use super::{Db, sql::sql};

impl Db {
    /// A text of letters, digits, dots and dashes that is the same for all processes, and another one when the database is
    /// another: made anew, restored, emptied, failed over, or restarted, which may have been for a restore.
    ///
    /// # Errors
    /// The database's, also when it has no schema.
    pub async fn identity(&self) -> Result<String, DbErr> {
        let statement = match &self.file {
            Some(_) => sql("SELECT lower(hex(database_id)) FROM shop"),
            None => sql("
                SELECT concat_ws('.', database_id, databases.oid, 'shop'::regclass::oid, pg_relation_filenode('orders'),
                                 to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS'))
                  FROM shop
                  JOIN pg_database databases ON databases.datname = current_database()"),
        };
        let identity: Vec<String> = statement.scalars(&self.read).await?;
        let identity = identity.into_iter().next();
        let identity = identity.ok_or_else(|| DbErr::Custom("the table `shop` has lost its row".to_owned()))?;

        let file = self.file.as_deref().unwrap_or_default();
        Ok(format!("{identity}{file}"))
    }
}

/// Distinguishes the file of a SQLite database from its copies: device and number of the file. Empty for one in memory.
pub(super) fn identity_of_file(url: &str) -> String {
    let options = SqliteConnectOptions::from_str(url).ok();
    let file = options.and_then(|options| options.get_filename().metadata().ok());
    file.map(|file| format!(".{:x}.{:x}", file.dev(), file.ino()))
        .unwrap_or_default()
}
