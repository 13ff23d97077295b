//! Indexes on tables that have rows already.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{DbBackend, Statement},
};

/// An index to be made.
pub struct NewIndex {
    pub name: &'static str,
    pub unique: bool,
    /// What follows `ON`: the table, the columns, and a condition if there is one.
    pub on: &'static str,
}

/// Makes an index while others write to the table: on PostgreSQL `CONCURRENTLY`, which takes longer and blocks nobody. It cannot
/// run in a transaction, so the migration's `use_transaction` answers `Some(false)`, and it does nothing else. An index that an
/// attempt before has left unfinished is made anew.
pub async fn create_index(manager: &SchemaManager<'_>, index: &NewIndex) -> Result<(), DbErr> {
    let unique = if index.unique { "UNIQUE" } else { "" };
    let NewIndex { name, on, .. } = index;
    let connection = manager.get_connection();
    if manager.get_database_backend() != DbBackend::Postgres {
        let create = format!("CREATE {unique} INDEX IF NOT EXISTS {name} ON {on}");
        connection.execute_unprepared(&create).await?;
        return Ok(());
    }

    // It waits for all who use the table at that moment, and nobody waits behind it.
    connection.execute_unprepared("SET lock_timeout = 0").await?;
    drop_if_invalid(connection, name).await?;
    let create = format!("CREATE {unique} INDEX CONCURRENTLY IF NOT EXISTS {name} ON {on}");
    connection.execute_unprepared(&create).await?;
    connection.execute_unprepared("RESET lock_timeout").await?;
    Ok(())
}

async fn drop_if_invalid(connection: &SchemaManagerConnection<'_>, name: &str) -> Result<(), DbErr> {
    let invalid =
        format!("SELECT EXISTS (SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('{name}') AND NOT indisvalid)");
    let statement = Statement::from_string(DbBackend::Postgres, invalid);
    let found = connection.query_one_raw(statement).await?;

    let is_invalid = found.is_some_and(|row| row.try_get_by_index(0).unwrap_or(false));
    if is_invalid {
        connection
            .execute_unprepared(&format!("DROP INDEX CONCURRENTLY {name}"))
            .await?;
    }
    Ok(())
}
