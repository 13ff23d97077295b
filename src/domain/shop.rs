//! What the database says about the shop that it belongs to.

use sea_orm::{ConnectionTrait, DbErr};

use crate::db::sql::sql;

/// The currencies (ISO 4217) that the shop and its products have: none while nothing has a price, one in a sound shop. Reads
/// all products.
pub async fn currencies(connection: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    sql("
        SELECT currency FROM shop WHERE currency IS NOT NULL
         UNION
        SELECT currency FROM products")
    .scalars(connection)
    .await
}

/// Makes `currency` (ISO 4217) the shop's, unless something has a price already.
pub async fn adopt_currency(connection: &impl ConnectionTrait, currency: &str) -> Result<(), DbErr> {
    sql("
        UPDATE shop
           SET currency = :currency
         WHERE currency IS NULL
            OR (NOT EXISTS (SELECT 1 FROM products) AND NOT EXISTS (SELECT 1 FROM orders))")
    .bind("currency", currency)
    .execute(connection)
    .await?;
    Ok(())
}
