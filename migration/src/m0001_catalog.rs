//! Products, and every movement of their stock that is not a sale.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_integer_null, big_pk_auto, text},
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[derive(DeriveIden)]
pub(crate) enum Products {
    Table,
    Id,
    Name,
    Price,
    Stock,
    CreatedAt,
    LowSince,
}

#[derive(DeriveIden)]
enum StockMovements {
    Table,
    Id,
    ProductId,
    Delta,
    Reason,
    CreatedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(products()).await?;
        manager.create_table(stock_movements()).await?;
        // Serves `shop verify`, which adds up the movements of every product.
        manager
            .create_index(
                Index::create()
                    .name("stock_movements_product_id")
                    .table(StockMovements::Table)
                    .col(StockMovements::ProductId)
                    .to_owned(),
            )
            .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table(StockMovements::Table).to_owned())
            .await?;
        manager
            .drop_table(Table::drop().table(Products::Table).to_owned())
            .await
    }
}

fn products() -> TableCreateStatement {
    Table::create()
        .table(Products::Table)
        .col(big_pk_auto(Products::Id))
        .col(text(Products::Name))
        .col(big_integer(Products::Price).check(Expr::col(Products::Price).gte(0)))
        .col(big_integer(Products::Stock).check(Expr::col(Products::Stock).gte(0)))
        .col(big_integer(Products::CreatedAt))
        // When stock last fell to the low-stock threshold; null while it is above. Names the `stock.low` fact.
        .col(big_integer_null(Products::LowSince))
        .to_owned()
}

fn stock_movements() -> TableCreateStatement {
    Table::create()
        .table(StockMovements::Table)
        .col(big_pk_auto(StockMovements::Id))
        .col(big_integer(StockMovements::ProductId))
        .col(big_integer(StockMovements::Delta).check(Expr::col(StockMovements::Delta).ne(0)))
        .col(text(StockMovements::Reason))
        .col(big_integer(StockMovements::CreatedAt))
        .foreign_key(
            ForeignKey::create()
                .name("stock_movements_product_id_fkey")
                .from(StockMovements::Table, StockMovements::ProductId)
                .to(Products::Table, Products::Id),
        )
        .to_owned()
}
