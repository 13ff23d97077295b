//! What was on the shelf when it fell to the low-stock threshold: so the event that tells of it says the same however
//! often it is told. Null where an older version of the program saw it fall.

use sea_orm_migration::{prelude::*, schema::big_integer_null};

use crate::m0001_catalog::Products;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[derive(DeriveIden)]
struct LowStock;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let add = Table::alter()
            .table(Products::Table)
            .add_column(big_integer_null(LowStock))
            .to_owned();
        manager.alter_table(add).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let drop = Table::alter().table(Products::Table).drop_column(LowStock).to_owned();
        manager.alter_table(drop).await
    }
}
