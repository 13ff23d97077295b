//! The shop itself, its products, every movement of their stock but the sales, and what administrators did once.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = include_str!("../sql/m0001_catalog.postgres.sql");
        let sqlite = include_str!("../sql/m0001_catalog.sqlite.sql");
        crate::run(manager, postgres, sqlite).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = "DROP TABLE idempotency_keys; DROP TABLE stock_movements; DROP TABLE products; DROP TABLE shop;";
        let postgres = format!("{tables} DROP FUNCTION products_default_currency(), products_are_never_deleted();");
        crate::run(manager, &postgres, tables).await
    }
}
