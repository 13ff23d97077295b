//! Refunds of PAID orders, and the units that they are about.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = include_str!("../sql/m0005_refunds.postgres.sql");
        let sqlite = include_str!("../sql/m0005_refunds.sqlite.sql");
        crate::run(manager, postgres, sqlite).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tables = "DROP TABLE refund_items; DROP TABLE refunds;";
        let postgres = format!("{tables} DROP FUNCTION refunds_set_ledger_period();");
        crate::run(manager, &postgres, tables).await
    }
}
