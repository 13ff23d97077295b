//! What the shop sells.

use sea_orm::entity::prelude::*;

use super::Timestamp;

/// The column that searches look in: the name as a search compares names, computed by the program. It is NULL where a row was
/// inserted by hand. No answer shows it, so it is no part of the model.
pub const SEARCH_NAME: &str = "search_name";

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "products")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub name: String,
    /// Stock keeping unit: what other systems call the product; unique.
    pub sku: Option<String>,
    /// Whether it is listed and can be ordered.
    pub active: bool,
    /// Minor units of `currency`, not negative.
    pub price: i64,
    /// ISO 4217. A shop has one currency, so every product has the same.
    pub currency: String,
    /// Units on the shelf, not negative. Changed only relative to what was read under the row's lock.
    pub stock: i64,
    /// Units of the stock that are on hold for PENDING orders, not negative. Changed as `stock` is.
    pub held: i64,
    /// When stock last fell to the low-stock threshold; `None` while it is above.
    pub low_since: Option<Timestamp>,
    /// The stock that it fell to then.
    pub low_stock: Option<i64>,
    pub created_at: Timestamp,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
}

impl Model {
    /// Units that orders without a hold of their own can have.
    #[must_use]
    pub fn available(&self) -> i64 {
        self.stock - self.held
    }
}

impl ActiveModelBehavior for ActiveModel {}
