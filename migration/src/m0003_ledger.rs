//! Where the periodic check of the ledger goes on, and in which of its periods an order was settled.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = include_str!("../sql/m0003_ledger.postgres.sql");
        let sqlite = include_str!("../sql/m0003_ledger.sqlite.sql");
        crate::run(manager, postgres, sqlite).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let rest = "DROP INDEX orders_ledger_period; ALTER TABLE orders DROP COLUMN ledger_period; \
                    DROP TABLE ledger_totals; DROP TABLE ledger;";
        let postgres = format!(
            "DROP TRIGGER orders_default_ledger_period ON orders; DROP FUNCTION orders_default_ledger_period(); {rest}"
        );
        let sqlite = format!(
            "DROP TRIGGER orders_default_ledger_period_on_insert; \
             DROP TRIGGER orders_default_ledger_period_on_update; {rest}"
        );
        crate::run(manager, &postgres, &sqlite).await
    }
}
