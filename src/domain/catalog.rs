//! The catalogue: listing, finding and adding products.

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect, Set,
    sea_query::{Expr, ExprTrait, Func, LikeExpr},
};

use super::{Error, ProductId};
use crate::{
    db::sql::{Column, Sql},
    entities::{Timestamp, product, stock_movement},
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

/// # Errors
/// The database's.
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
/// [`Error::ProductNotFound`], or the database's.
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

/// Adds those of `products` whose name the catalogue does not have yet, in their order, each with the movement that
/// explains its first stock. Answers how many were added. Run it in a transaction.
///
/// # Errors
/// The database's.
pub async fn add_missing(txn: &impl ConnectionTrait, now: Timestamp, products: &[NewProduct]) -> Result<usize, Error> {
    let columns = [
        (
            "name",
            Column::Text(products.iter().map(|product| product.name.clone()).collect()),
        ),
        (
            "price",
            Column::BigInt(products.iter().map(|product| product.price).collect()),
        ),
        (
            "stock",
            Column::BigInt(products.iter().map(|product| product.stock).collect()),
        ),
        ("place", Column::BigInt((0..).take(products.len()).collect())),
    ];
    // Ordered, so that they are numbered as they came however the database looks for those that it has.
    let insert = Sql::new(
        txn.get_database_backend(),
        "INSERT INTO products (name, price, stock, created_at) SELECT t.name, t.price, t.stock, ",
    )
    .bind(now)
    .push(" FROM ")
    .rows("t", columns)
    .push(" WHERE NOT EXISTS (SELECT 1 FROM products p WHERE p.name = t.name) ORDER BY t.place RETURNING id, stock");
    let added: Vec<(i64, i64)> = txn
        .query_all_raw(insert.build())
        .await?
        .iter()
        .map(QueryResult::try_get_many_by_index)
        .collect::<Result<_, _>>()?;
    let (ids, stocks): (Vec<i64>, Vec<i64>) = added.iter().filter(|(_, stock)| *stock != 0).copied().unzip();
    let movements = Sql::new(
        txn.get_database_backend(),
        "INSERT INTO stock_movements (product_id, delta, reason, created_at) SELECT t.product_id, t.delta, 'initial stock', ",
    )
    .bind(now)
    .push(" FROM ")
    .rows("t", [("product_id", Column::BigInt(ids)), ("delta", Column::BigInt(stocks))]);
    txn.execute_raw(movements.build()).await?;
    Ok(added.len())
}

/// Adds a product, with the movement that explains its first stock. Run it in a transaction.
///
/// # Errors
/// The database's.
pub async fn add(txn: &impl ConnectionTrait, now: Timestamp, new: &NewProduct) -> Result<product::Model, Error> {
    let insert = Sql::new(
        txn.get_database_backend(),
        "INSERT INTO products (name, price, stock, created_at) VALUES (",
    )
    .bind(new.name.clone())
    .push(", ")
    .bind(new.price)
    .push(", ")
    .bind(new.stock)
    .push(", ")
    .bind(now)
    .push(") RETURNING *");
    let added = product::Entity::find().from_raw_sql(insert.build()).one(txn).await?;
    let added = added.ok_or_else(|| Error::Internal("a new product was not returned".to_owned()))?;
    if added.stock != 0 {
        record_movement(txn, now, added.id, added.stock, "initial stock").await?;
    }
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
/// [`Error::ProductNotFound`], or the database's.
pub async fn change(
    connection: &impl ConnectionTrait,
    id: ProductId,
    change: &ProductChange,
) -> Result<product::Model, Error> {
    let update = Sql::new(
        connection.get_database_backend(),
        "UPDATE products SET name = COALESCE(",
    )
    .bind(change.name.clone())
    .push(", name), price = COALESCE(")
    .bind(change.price)
    .push(", price) WHERE id = ")
    .bind(id)
    .push(" RETURNING *");
    let changed = product::Entity::find()
        .from_raw_sql(update.build())
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

/// Puts units on the shelf or writes them off, and keeps why. The change is relative, so that it adds up with the
/// orders that are settled meanwhile. Run it in a transaction.
///
/// # Errors
/// [`Error::ProductNotFound`], [`Error::StockOutOfRange`], or the database's.
pub async fn change_stock(
    txn: &impl ConnectionTrait,
    now: Timestamp,
    change: &StockChange,
    low_stock_at: i64,
) -> Result<product::Model, Error> {
    let (id, delta) = (change.product_id, change.delta);
    let update = Sql::new(txn.get_database_backend(), "UPDATE products SET stock = stock + ")
        .bind(delta)
        // What is low again after this is told of by the settlement that finds it so.
        .push(", low_since = CASE WHEN stock + ")
        .bind(delta)
        .push(" > ")
        .bind(low_stock_at)
        .push(" THEN NULL ELSE low_since END, low_stock = CASE WHEN stock + ")
        .bind(delta)
        .push(" > ")
        .bind(low_stock_at)
        .push(" THEN NULL ELSE low_stock END WHERE id = ")
        .bind(id)
        .push(" AND stock + ")
        .bind(delta)
        .push(" BETWEEN 0 AND ")
        .bind(MAX_STOCK)
        .push(" RETURNING *");
    let changed = product::Entity::find().from_raw_sql(update.build()).one(txn).await?;
    let Some(changed) = changed else {
        let stock = find(txn, id).await?.stock;
        return Err(Error::StockOutOfRange { id, stock, delta });
    };
    record_movement(txn, now, id, delta, &change.reason).await?;
    Ok(changed)
}

async fn record_movement(
    txn: &impl ConnectionTrait,
    now: Timestamp,
    product_id: ProductId,
    delta: i64,
    reason: &str,
) -> Result<(), Error> {
    let movement = stock_movement::ActiveModel {
        product_id: Set(product_id),
        delta: Set(delta),
        reason: Set(reason.to_owned()),
        created_at: Set(now),
        ..Default::default()
    };
    stock_movement::Entity::insert(movement)
        .exec_without_returning(txn)
        .await?;
    Ok(())
}

/// The ids of all products, ascending.
///
/// # Errors
/// The database's.
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

/// As it is spelled, or in any case. SQLite, and PostgreSQL in the locale C, only know the cases of ASCII letters: there
/// other letters are found as they are spelled.
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
