//! The schema of the shop, as an ordered list of steps that run on SQLite and PostgreSQL alike.
//!
//! Instants are stored as whole microseconds since the Unix epoch, UTC, in a BIGINT: the one form that sorts and
//! compares the same on both databases. Money is a BIGINT of the currency's minor unit.

pub use sea_orm_migration::prelude::*;

mod m0001_catalog;
mod m0002_orders;
mod m0003_failed_orders;
mod m0004_low_stock;

/// Knows every step, oldest first. Only ever append.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_catalog::Migration),
            Box::new(m0002_orders::Migration),
            Box::new(m0003_failed_orders::Migration),
            Box::new(m0004_low_stock::Migration),
        ]
    }
}
