//! The schema of the shop as an ordered list of migrations. A migration is plain SQL, one file for each database, since
//! the two differ in what makes a schema readable and safe: types, comments, defaults.
//!
//! A migration is applied while shops are open. On PostgreSQL every statement of it waits for a lock for a moment only, because all
//! who come later wait behind it; the program then runs the whole migration again. So a migration
//!
//! - changes one table, and does nothing that takes long while it holds its lock: no rewriting of all rows, no default that is
//!   not a constant, no constraint that is not added `NOT VALID` first;
//! - adds an index to a table that has rows by [`create_index`], in a migration of its own outside of a transaction;
//! - only adds: the program of the version before goes on beside it.
//!
//! Money is a whole number of the currency's minor unit. Instants are `timestamptz` on PostgreSQL, and whole microseconds
//! since the Unix epoch (UTC) on SQLite, whose tables are STRICT so that nothing else can be stored there.

pub use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

mod add_index;
mod m0001_catalog;
mod m0002_orders;
mod m0003_ledger;
mod m0004_outbox;
mod m0005_refunds;

pub use add_index::{NewIndex, create_index};

/// Knows every migration, oldest first. From the first release on, only ever append.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_catalog::Migration),
            Box::new(m0002_orders::Migration),
            Box::new(m0003_ledger::Migration),
            Box::new(m0004_outbox::Migration),
            Box::new(m0005_refunds::Migration),
        ]
    }
}

/// Runs the statements that are meant for this database.
pub async fn run(manager: &SchemaManager<'_>, postgres: &str, sqlite: &str) -> Result<(), DbErr> {
    let statements = match manager.get_database_backend() {
        DbBackend::Postgres => postgres,
        _ => sqlite,
    };
    manager.get_connection().execute_unprepared(statements).await?;
    Ok(())
}
