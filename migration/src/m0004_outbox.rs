//! The transactional outbox: events that are still to be published.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = include_str!("../sql/m0004_outbox.postgres.sql");
        let sqlite = include_str!("../sql/m0004_outbox.sqlite.sql");
        crate::run(manager, postgres, sqlite).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = "DROP TABLE outbox;";
        crate::run(manager, table, table).await
    }
}
