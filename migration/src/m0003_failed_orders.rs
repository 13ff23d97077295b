//! Finds the few orders that failed among very many, newest first. Only FAILED rows pay for it.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

const NAME: &str = "orders_failed";

#[derive(DeriveIden)]
enum Orders {
    Table,
    Id,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let failed = Index::create()
            .name(NAME)
            .table(Orders::Table)
            .col(Orders::Id)
            .and_where(Expr::cust("status = 'FAILED'"))
            .to_owned();
        manager.create_index(failed).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_index(Index::drop().name(NAME).table(Orders::Table).to_owned())
            .await
    }
}
