//! Orders and their lines. An order's row is also its outbox: `accepted_at`, `notify_after` and `notify_attempts` say
//! whether the worker still has to be told of it.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let postgres = include_str!("../sql/m0002_orders.postgres.sql");
        let sqlite = include_str!("../sql/m0002_orders.sqlite.sql");
        crate::run(manager, postgres, sqlite).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // What was sold stays sold: the stock was taken, and now a movement says where it went.
        let tables = "
            INSERT INTO stock_movements (product_id, delta, reason)
            SELECT i.product_id, -sum(i.quantity), 'sold in orders that were deleted by migrating down'
              FROM orders o
              JOIN order_items i ON i.order_id = o.id
             WHERE o.status = 'PAID'
             GROUP BY i.product_id;
            UPDATE products SET held = 0 WHERE held <> 0;
            DROP TABLE order_items; DROP TABLE orders;";
        let postgres = format!("{tables} DROP FUNCTION order_items_name_products();");
        crate::run(manager, &postgres, tables).await
    }
}
