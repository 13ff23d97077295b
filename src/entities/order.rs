//! An order. Its row is the truth about it; messages only say "look at the row".

use sea_orm::{FromJsonQueryResult, entity::prelude::*};
use serde::{Deserialize, Serialize};

use super::Timestamp;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "orders")]
pub struct Model {
    /// UUID version 7 (RFC 9562): ids sort by time of creation.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub user_id: i64,
    pub status: OrderStatus,
    /// Minor units of `currency`.
    pub total_price: i64,
    /// ISO 4217, the shop's when the order was made.
    pub currency: String,
    /// The `Idempotency-Key` that the order was created under; unique per user.
    pub idempotency_key: Option<String>,
    /// When the hold on its units ends unless a payment is accepted before; `None` for an order without a hold. Never
    /// changes.
    pub expires_at: Option<Timestamp>,
    /// When the payment was accepted; from then on the order will be settled.
    pub accepted_at: Option<Timestamp>,
    /// When the sweeper publishes a settle request (again), while the order is accepted and PENDING.
    pub notify_after: Option<Timestamp>,
    /// How often the sweeper has published one.
    pub notify_attempts: i32,
    /// When it became PAID or FAILED.
    pub settled_at: Option<Timestamp>,
    /// Why it is FAILED.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub failure: Option<Failure>,
    pub created_at: Timestamp,
    /// When the row last changed.
    pub updated_at: Timestamp,
    #[sea_orm(has_many)]
    pub items: HasMany<super::order_item::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}

/// PENDING until settled, cancelled or expired, then PAID or FAILED for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum OrderStatus {
    #[sea_orm(string_value = "PENDING")]
    Pending,
    #[sea_orm(string_value = "PAID")]
    Paid,
    #[sea_orm(string_value = "FAILED")]
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct Failure {
    pub reason: FailureReason,
    /// The lines that were short; empty for reasons that are not about a line.
    pub lines: Vec<ShortLine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// At least one line was short when the paid order was settled.
    InsufficientStock,
    /// Its customer or an administrator cancelled it before a payment was accepted.
    Cancelled,
    /// No payment was accepted before its hold ended.
    Expired,
}

impl FailureReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientStock => "insufficient_stock",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// A line that could not be served, with what was on the shelf when its turn came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortLine {
    pub product_id: i64,
    pub requested: i64,
    pub available: i64,
}
