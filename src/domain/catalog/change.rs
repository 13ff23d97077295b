//! Adding products, and changing what the shop says of them. Their stock is changed in [`stock`](super::change_stock).

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};

use super::{
    movements::{Origin, Recorded, record},
    product,
};
use crate::{
    db::{
        self,
        search::search_form,
        sql::{Column, sql},
    },
    domain::{Error, ProductId},
    entities::Timestamp,
};

/// Products that get their search names by one statement.
const FILL_CHUNK: i64 = 500;

/// A product that is not in the catalogue yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProduct {
    pub name: String,
    /// Unique, not empty.
    pub sku: Option<String>,
    /// Whether it is listed and can be ordered.
    pub active: bool,
    /// Minor units, not negative.
    pub price: i64,
    /// Units put on the shelf to begin with, not negative.
    pub stock: i64,
}

/// Adds those of `products` whose name the catalogue does not have yet, in their order and in the currency of the shop,
/// each with the movement that explains its first stock. Returns how many were added. SKUs are left out.
pub async fn add_missing(txn: &DatabaseTransaction, now: Timestamp, products: &[NewProduct]) -> Result<usize, Error> {
    let numbers = |number: fn(&NewProduct) -> i64| Column::BigInt(products.iter().map(number).collect());
    let texts = |text: fn(&NewProduct) -> String| Column::Text(products.iter().map(text).collect());
    // Ordered, so that ids follow the order of the products whatever plan the database chooses.
    let added: Vec<(ProductId, i64)> = sql("
        INSERT INTO products (name, search_name, price, currency, stock, created_at, updated_at)
        SELECT name, search_name, price, (SELECT currency FROM shop), stock, :now, :now
          FROM :new_products
         WHERE NOT EXISTS (SELECT 1 FROM products known WHERE known.name = new_products.name)
         ORDER BY position
        RETURNING id, stock")
    .table(
        "new_products",
        [
            ("name", texts(|product| product.name.clone())),
            ("search_name", texts(|product| search_form(&product.name))),
            ("price", numbers(|product| product.price)),
            ("stock", numbers(|product| product.stock)),
            ("position", Column::BigInt((0..).take(products.len()).collect())),
        ],
    )
    .timestamp("now", now)
    .tuples(txn)
    .await?;

    record_initial_stock(txn, now, &added, &Origin::default()).await?;
    Ok(added.len())
}

/// Adds a product, with the movement that explains its first stock.
///
/// # Errors
/// [`Error::SkuTaken`].
pub async fn add(
    txn: &DatabaseTransaction,
    now: Timestamp,
    new: &NewProduct,
    origin: &Origin,
) -> Result<product::Model, Error> {
    let added: Option<product::Model> = sql("
        INSERT INTO products (name, search_name, sku, active, price, currency, stock, created_at, updated_at)
        SELECT :name, :search_name, :sku, :active, :price, currency, :stock, :now, :now
          FROM shop
        RETURNING id, name, sku, active, price, currency, stock, held, low_since, low_stock,
                  created_at, updated_at")
    .bind("name", new.name.clone())
    .bind("search_name", search_form(&new.name))
    .bind("sku", new.sku.clone())
    .bind("active", new.active)
    .bind("price", new.price)
    .bind("stock", new.stock)
    .timestamp("now", now)
    .one(txn)
    .await
    .map_err(|error| sku_taken(error, new.sku.as_deref()))?;
    let added = added.ok_or_else(|| Error::Internal("a new product was not returned".to_owned()))?;

    record_initial_stock(txn, now, &[(added.id, added.stock)], origin).await?;
    Ok(added)
}

/// What of a product is to be different. Orders that were made keep the price they were made at, and are settled also
/// after the product is taken off the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductChange {
    pub name: Option<String>,
    /// Unique, not empty.
    pub sku: Option<String>,
    /// Whether it is listed and can be ordered.
    pub active: Option<bool>,
    /// Minor units, not negative.
    pub price: Option<i64>,
}

impl ProductChange {
    /// Whether `product` is already as this change would make it.
    #[must_use]
    pub fn is_applied_to(&self, product: &product::Model) -> bool {
        self.name.as_ref().is_none_or(|name| *name == product.name)
            && self.sku.as_ref().is_none_or(|sku| Some(sku) == product.sku.as_ref())
            && self.active.is_none_or(|active| active == product.active)
            && self.price.is_none_or(|price| price == product.price)
    }
}

/// Changes what the change names.
///
/// # Errors
/// [`Error::ProductNotFound`], [`Error::SkuTaken`].
pub async fn change(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    id: ProductId,
    change: &ProductChange,
) -> Result<product::Model, Error> {
    let changed: Option<product::Model> = sql("
        UPDATE products
           SET name = COALESCE(:name, name),
               search_name = COALESCE(:search_name, search_name),
               sku = COALESCE(:sku, sku),
               active = COALESCE(:active, active),
               price = COALESCE(:price, price),
               updated_at = :now
         WHERE id = :id
        RETURNING id, name, sku, active, price, currency, stock, held, low_since, low_stock,
                  created_at, updated_at")
    .bind("name", change.name.clone())
    .bind("search_name", change.name.as_deref().map(search_form))
    .bind("sku", change.sku.clone())
    .bind("active", change.active)
    .bind("price", change.price)
    .timestamp("now", now)
    .bind("id", id)
    .one(connection)
    .await
    .map_err(|error| sku_taken(error, change.sku.as_deref()))?;
    changed.ok_or(Error::ProductNotFound(id))
}

/// The SKU is all that must be unique.
fn sku_taken(error: DbErr, sku: Option<&str>) -> Error {
    match sku {
        Some(sku) if db::is_unique_violation(&error) => Error::SkuTaken(sku.to_owned()),
        _ => error.into(),
    }
}

/// Gives search names to products that were inserted without one, by hand or by another program.
pub async fn fill_search_names(txn: &DatabaseTransaction) -> Result<(), Error> {
    loop {
        let unnamed: Vec<(ProductId, String)> = sql("
            SELECT id, name
              FROM products
             WHERE search_name IS NULL
             ORDER BY id
             LIMIT :limit")
        .bind("limit", FILL_CHUNK)
        .tuples(txn)
        .await?;
        if unnamed.is_empty() {
            return Ok(());
        }

        let named = unnamed.iter().map(|(id, name)| (*id, search_form(name)));
        let (products, search_names): (Vec<ProductId>, Vec<String>) = named.unzip();

        // `= ANY(:products)` says again what the join says, so that the products are found by their index.
        sql("
            UPDATE products
               SET search_name = named.search_name
              FROM :named
             WHERE id = named.product_id AND id = ANY(:products)")
        .table(
            "named",
            [
                ("product_id", Column::BigInt(products.clone())),
                ("search_name", Column::Text(search_names)),
            ],
        )
        .planner_list("products", Column::BigInt(products))
        .execute(txn)
        .await?;
    }
}

async fn record_initial_stock(
    txn: &DatabaseTransaction,
    now: Timestamp,
    added: &[(ProductId, i64)],
    origin: &Origin,
) -> Result<(), Error> {
    let stocked = added.iter().filter(|(_, stock)| *stock != 0);
    let movements: Vec<Recorded> = stocked
        .map(|(product_id, delta)| Recorded {
            product_id: *product_id,
            delta: *delta,
            reason: "initial stock",
        })
        .collect();
    record(txn, now, &movements, origin).await?;
    Ok(())
}
