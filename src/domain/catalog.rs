//! The catalogue: listing, finding, adding and changing products, and changing their stock.

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
    sea_query::{Expr, ExprTrait as _, Func, LikeExpr},
};

use super::{Error, ProductId};
use crate::{
    db::sql::{Column, sql},
    entities::{Timestamp, product},
};

/// The most products on a page.
pub const MAX_PAGE: u64 = 200;

/// The most units that a shelf holds, so that no sum of units ever overflows.
pub const MAX_STOCK: i64 = 1_000_000_000_000;

/// Which products to list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProductQuery {
    /// 1 to [`MAX_PAGE`].
    pub limit: u64,
    /// Only products with a larger id.
    pub after: ProductId,
    /// Only products whose name contains this, in any case.
    pub name_contains: Option<String>,
}

/// A page of products by id, and whether more follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductPage {
    pub products: Vec<product::Model>,
    pub more: bool,
}

/// A page of products by id.
pub async fn list(connection: &impl ConnectionTrait, query: &ProductQuery) -> Result<ProductPage, Error> {
    let mut select = product::Entity::find()
        .filter(product::Column::Id.gt(query.after))
        .order_by_asc(product::Column::Id)
        .limit(query.limit + 1);
    if let Some(part) = &query.name_contains {
        select = select.filter(name_contains(part));
    }
    let mut products = select.all(connection).await?;
    let more = products.len() as u64 > query.limit;
    products.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    Ok(ProductPage { products, more })
}

/// # Errors
/// [`Error::ProductNotFound`].
pub async fn find(connection: &impl ConnectionTrait, id: ProductId) -> Result<product::Model, Error> {
    let product = product::Entity::find_by_id(id).one(connection).await?;
    product.ok_or(Error::ProductNotFound(id))
}

/// A product that is not in the catalogue yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewProduct {
    pub name: String,
    /// Minor units, not negative.
    pub price: i64,
    /// Units put on the shelf to begin with, not negative.
    pub stock: i64,
}

/// Adds those of `products` whose name the catalogue does not have yet, in their order and in the currency of the shop,
/// each with the movement that explains its first stock. Answers how many were added.
pub async fn add_missing(txn: &DatabaseTransaction, now: Timestamp, products: &[NewProduct]) -> Result<usize, Error> {
    let numbers = |number: fn(&NewProduct) -> i64| Column::BigInt(products.iter().map(number).collect());
    // Ordered, so that ids follow the order of the products whatever plan the database chooses.
    let added: Vec<(ProductId, i64)> = sql("
        INSERT INTO products (name, price, currency, stock, created_at, updated_at)
        SELECT name, price, (SELECT currency FROM shop), stock, :now, :now
          FROM :new_products
         WHERE NOT EXISTS (SELECT 1 FROM products known WHERE known.name = new_products.name)
         ORDER BY position
        RETURNING id, stock")
    .table(
        "new_products",
        [
            (
                "name",
                Column::Text(products.iter().map(|product| product.name.clone()).collect()),
            ),
            ("price", numbers(|product| product.price)),
            ("stock", numbers(|product| product.stock)),
            ("position", Column::BigInt((0..).take(products.len()).collect())),
        ],
    )
    .timestamp("now", now)
    .tuples(txn)
    .await?;

    record_initial_stock(txn, now, &added).await?;
    Ok(added.len())
}

/// Adds a product, with the movement that explains its first stock.
pub async fn add(txn: &DatabaseTransaction, now: Timestamp, new: &NewProduct) -> Result<product::Model, Error> {
    let added: Option<product::Model> = sql("
        INSERT INTO products (name, price, currency, stock, created_at, updated_at)
        SELECT :name, :price, currency, :stock, :now, :now
          FROM shop
        RETURNING id, name, price, currency, stock, held, low_since, low_stock, created_at, updated_at")
    .bind("name", new.name.clone())
    .bind("price", new.price)
    .bind("stock", new.stock)
    .timestamp("now", now)
    .one(txn)
    .await?;
    let added = added.ok_or_else(|| Error::Internal("a new product was not returned".to_owned()))?;

    record_initial_stock(txn, now, &[(added.id, added.stock)]).await?;
    Ok(added)
}

/// What of a product is to be different. Orders that were made keep the price they were made at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductChange {
    pub name: Option<String>,
    /// Minor units, not negative.
    pub price: Option<i64>,
}

/// Changes name, price or both.
///
/// # Errors
/// [`Error::ProductNotFound`].
pub async fn change(
    connection: &impl ConnectionTrait,
    now: Timestamp,
    id: ProductId,
    change: &ProductChange,
) -> Result<product::Model, Error> {
    let changed: Option<product::Model> = sql("
        UPDATE products
           SET name = COALESCE(:name, name), price = COALESCE(:price, price), updated_at = :now
         WHERE id = :id
        RETURNING id, name, price, currency, stock, held, low_since, low_stock, created_at, updated_at")
    .bind("name", change.name.clone())
    .bind("price", change.price)
    .timestamp("now", now)
    .bind("id", id)
    .one(connection)
    .await?;
    changed.ok_or(Error::ProductNotFound(id))
}

/// Units put on the shelf, or written off, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockChange {
    pub product_id: ProductId,
    /// Negative when they are written off; not 0.
    pub delta: i64,
    pub reason: String,
}

/// Puts units on the shelf or writes them off, and keeps why. The change is relative, so that it adds up with the orders
/// that are settled meanwhile.
///
/// # Errors
/// [`Error::ProductNotFound`], [`Error::StockOutOfRange`].
pub async fn change_stock(
    txn: &DatabaseTransaction,
    now: Timestamp,
    change: &StockChange,
    low_stock_at: i64,
) -> Result<product::Model, Error> {
    let (id, delta) = (change.product_id, change.delta);

    // A product that is low again after this is reported by the settlement that finds it so.
    let changed: Option<product::Model> = sql("
        UPDATE products
           SET stock = stock + :delta,
               low_since = CASE WHEN stock + :delta > :low_stock_at THEN NULL ELSE low_since END,
               low_stock = CASE WHEN stock + :delta > :low_stock_at THEN NULL ELSE low_stock END,
               updated_at = :now
         WHERE id = :id AND stock + :delta BETWEEN held AND :max_stock
        RETURNING id, name, price, currency, stock, held, low_since, low_stock, created_at, updated_at")
    .bind("delta", delta)
    .bind("low_stock_at", low_stock_at)
    .timestamp("now", now)
    .bind("id", id)
    .bind("max_stock", MAX_STOCK)
    .one(txn)
    .await?;
    let Some(changed) = changed else {
        let product::Model { stock, held, .. } = find(txn, id).await?;
        return Err(Error::StockOutOfRange { id, stock, held, delta });
    };

    record_movements(txn, now, &[(id, delta)], &change.reason).await?;
    Ok(changed)
}

async fn record_initial_stock(
    txn: &DatabaseTransaction,
    now: Timestamp,
    added: &[(ProductId, i64)],
) -> Result<(), Error> {
    let stocked: Vec<(ProductId, i64)> = added.iter().filter(|(_, stock)| *stock != 0).copied().collect();
    record_movements(txn, now, &stocked, "initial stock").await
}

async fn record_movements(
    txn: &DatabaseTransaction,
    now: Timestamp,
    movements: &[(ProductId, i64)],
    reason: &str,
) -> Result<(), Error> {
    if movements.is_empty() {
        return Ok(());
    }

    let (products, deltas) = movements.iter().copied().unzip();
    sql("
        INSERT INTO stock_movements (product_id, delta, reason, created_at)
        SELECT product_id, delta, :reason, :now
          FROM :movements")
    .table(
        "movements",
        [
            ("product_id", Column::BigInt(products)),
            ("delta", Column::BigInt(deltas)),
        ],
    )
    .bind("reason", reason)
    .timestamp("now", now)
    .execute(txn)
    .await?;
    Ok(())
}

/// The ids of all products, ascending.
pub async fn ids(connection: &impl ConnectionTrait) -> Result<Vec<ProductId>, Error> {
    let ids = product::Entity::find()
        .select_only()
        .column(product::Column::Id)
        .order_by_asc(product::Column::Id)
        .into_tuple()
        .all(connection)
        .await?;
    Ok(ids)
}

/// Matches the name as it is spelled, or in any case. SQLite, and PostgreSQL in the locale C, know the cases of ASCII letters
/// only; there other letters are found as they are spelled.
fn name_contains(part: &str) -> Condition {
    let pattern = |part: &str| LikeExpr::new(format!("%{}%", escape_like(part))).escape('\\');
    let name = || Expr::col(product::Column::Name);
    Condition::any()
        .add(Expr::expr(Func::lower(name())).like(pattern(&part.to_lowercase())))
        .add(name().like(pattern(part)))
}

fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
