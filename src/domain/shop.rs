//! What the database says about the shop that it belongs to.

use sea_orm::{ConnectionTrait, DbErr};

use crate::db::sql::sql;

/// Why a process does not fit its database.
#[derive(Debug, thiserror::Error)]
pub enum CurrencyError {
    #[error(
        "the prices in the database are in {stored}, not in {configured}: set SHOP_CURRENCY={stored}, or give this shop a \
         database of its own"
    )]
    Mismatch { stored: String, configured: String },
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Makes `currency` (ISO 4217) the shop's while nothing has a price yet, and holds it against what is stored.
///
/// # Errors
/// [`CurrencyError::Mismatch`] when something is priced in another currency.
pub async fn settle_currency(connection: &impl ConnectionTrait, currency: &str) -> Result<(), CurrencyError> {
    let is_other = |stored: &String| stored != currency;
    let stored = stored_currencies(connection).await?;
    if !stored.is_empty() && !stored.iter().any(is_other) {
        return Ok(());
    }

    sql("
        UPDATE shop
           SET currency = :currency
         WHERE currency IS NULL
            OR (NOT EXISTS (SELECT 1 FROM products) AND NOT EXISTS (SELECT 1 FROM orders))")
    .bind("currency", currency)
    .execute(connection)
    .await?;

    match stored_currencies(connection).await?.into_iter().find(is_other) {
        Some(stored) => Err(CurrencyError::Mismatch {
            stored,
            configured: currency.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The shop's own, and those of its products.
async fn stored_currencies(connection: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    sql("
        SELECT currency FROM shop WHERE currency IS NOT NULL
         UNION
        SELECT currency FROM products")
    .scalars(connection)
    .await
}
