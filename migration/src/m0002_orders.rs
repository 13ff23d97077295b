//! Orders and their lines. The order's row is also its own outbox: `accepted_at`, `notify_after` and `notify_attempts` say
//! whether the worker still has to be told of it.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_integer_null, big_pk_auto, integer, json_binary_null, pk_uuid, text, text_null, uuid},
};

use crate::m0001_catalog::Products;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[derive(DeriveIden)]
enum Orders {
    Table,
    Id,
    UserId,
    Status,
    TotalPrice,
    Currency,
    CreatedAt,
    IdempotencyKey,
    AcceptedAt,
    NotifyAfter,
    NotifyAttempts,
    SettledAt,
    Failure,
}

#[derive(DeriveIden)]
enum OrderItems {
    Table,
    Id,
    OrderId,
    ProductId,
    Quantity,
    UnitPrice,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(orders()).await?;
        manager.create_table(order_items()).await?;
        manager.create_index(orders_of_a_user()).await?;
        manager.create_index(idempotency_keys()).await?;
        manager.create_index(orders_to_notify()).await?;
        manager.create_index(lines_of_an_order()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_table(Table::drop().table(OrderItems::Table).to_owned())
            .await?;
        manager.drop_table(Table::drop().table(Orders::Table).to_owned()).await
    }
}

fn orders() -> TableCreateStatement {
    Table::create()
        .table(Orders::Table)
        .col(pk_uuid(Orders::Id))
        .col(big_integer(Orders::UserId))
        .col(text(Orders::Status).check(Expr::col(Orders::Status).is_in(["PENDING", "PAID", "FAILED"])))
        .col(big_integer(Orders::TotalPrice).check(Expr::col(Orders::TotalPrice).gte(0)))
        .col(text(Orders::Currency))
        .col(big_integer(Orders::CreatedAt))
        .col(text_null(Orders::IdempotencyKey))
        .col(big_integer_null(Orders::AcceptedAt))
        .col(big_integer_null(Orders::NotifyAfter))
        .col(integer(Orders::NotifyAttempts).default(0))
        .col(big_integer_null(Orders::SettledAt))
        .col(json_binary_null(Orders::Failure))
        // A settled order was accepted, has its time of settlement, and FAILED has its reason; a PENDING one has neither.
        .check(Expr::cust(
            "(status = 'PENDING' AND settled_at IS NULL AND failure IS NULL) \
             OR (status = 'PAID' AND accepted_at IS NOT NULL AND settled_at IS NOT NULL AND failure IS NULL) \
             OR (status = 'FAILED' AND accepted_at IS NOT NULL AND settled_at IS NOT NULL AND failure IS NOT NULL)",
        ))
        .to_owned()
}

fn order_items() -> TableCreateStatement {
    Table::create()
        .table(OrderItems::Table)
        .col(big_pk_auto(OrderItems::Id))
        .col(uuid(OrderItems::OrderId))
        .col(big_integer(OrderItems::ProductId))
        .col(big_integer(OrderItems::Quantity).check(Expr::col(OrderItems::Quantity).gt(0)))
        .col(big_integer(OrderItems::UnitPrice).check(Expr::col(OrderItems::UnitPrice).gte(0)))
        .foreign_key(
            ForeignKey::create()
                .name("order_items_order_id_fkey")
                .from(OrderItems::Table, OrderItems::OrderId)
                .to(Orders::Table, Orders::Id),
        )
        .foreign_key(
            ForeignKey::create()
                .name("order_items_product_id_fkey")
                .from(OrderItems::Table, OrderItems::ProductId)
                .to(Products::Table, Products::Id),
        )
        .to_owned()
}

/// A user's orders, newest first: ids are UUIDs of version 7, so their order is the order of creation.
fn orders_of_a_user() -> IndexCreateStatement {
    Index::create()
        .name("orders_user_id_id")
        .table(Orders::Table)
        .col(Orders::UserId)
        .col(Orders::Id)
        .to_owned()
}

fn idempotency_keys() -> IndexCreateStatement {
    Index::create()
        .name("orders_user_id_idempotency_key")
        .unique()
        .table(Orders::Table)
        .col(Orders::UserId)
        .col(Orders::IdempotencyKey)
        .and_where(Expr::cust("idempotency_key IS NOT NULL"))
        .to_owned()
}

/// What the sweeper looks for: accepted, not settled, due. Stays as small as the backlog.
fn orders_to_notify() -> IndexCreateStatement {
    Index::create()
        .name("orders_notify_after")
        .table(Orders::Table)
        .col(Orders::NotifyAfter)
        .and_where(Expr::cust("status = 'PENDING' AND accepted_at IS NOT NULL"))
        .to_owned()
}

/// A product once an order, and the way from an order to its lines.
fn lines_of_an_order() -> IndexCreateStatement {
    Index::create()
        .name("order_items_order_id_product_id")
        .unique()
        .table(OrderItems::Table)
        .col(OrderItems::OrderId)
        .col(OrderItems::ProductId)
        .to_owned()
}
