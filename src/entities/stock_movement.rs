//! Every change of stock but the sales of orders that exist: what was put in, what was written off, and what deleted orders
//! had sold. With the PAID orders it explains every unit on the shelf.

use sea_orm::entity::prelude::*;

use super::Timestamp;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "stock_movements")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub product_id: i64,
    /// Units put in (positive), written off or sold by orders that are deleted (negative), never zero.
    pub delta: i64,
    pub reason: String,
    /// The `Idempotency-Key` of the request that changed the stock.
    pub idempotency_key: Option<String>,
    /// The administrator who changed it, where users are known.
    pub user_id: Option<i64>,
    /// When the stock changed; for what deleted orders had sold, when they were deleted.
    pub created_at: Timestamp,
}

impl ActiveModelBehavior for ActiveModel {}
