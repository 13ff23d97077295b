//! An order. Its row is the truth about it; messages only say "look at the row".

use sea_orm::entity::prelude::*;

use super::Timestamp;
pub use super::{
    failure::{Failure, FailureReason, ShortLine, StoredFailure},
    status::OrderStatus,
};

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
    pub notify_attempts: i64,
    /// When it became PAID or FAILED.
    pub settled_at: Option<Timestamp>,
    /// Why it is FAILED.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub failure: Option<StoredFailure>,
    /// What the shop front calls it; unique per user. Never changes.
    pub reference: Option<String>,
    /// What the shop front keeps with it: an object of texts. Never changes.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub metadata: Option<Json>,
    /// The charge that paid it, written when the payment is accepted; unique.
    pub payment_reference: Option<String>,
    pub created_at: Timestamp,
    /// When the row last changed.
    pub updated_at: Timestamp,
    #[sea_orm(has_many)]
    pub items: HasMany<super::order_item::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
