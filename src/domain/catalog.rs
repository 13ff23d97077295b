//! The catalogue: listing, finding, adding and changing products, and changing their stock.

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait as _, FromQueryResult as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
    sea_query::{Expr, ExprTrait as _, Func, LikeExpr, SelectStatement},
};

use super::{
    Error, ProductId,
    search::{contains_pattern, search_form},
};
use crate::{
    db::sql::{Column, readable, sql},
    entities::{Timestamp, product},
};

/// The most products on a page.
pub const MAX_PAGE: u64 = 200;

/// The most units that a shelf holds, so that no sum of units ever overflows.
pub const MAX_STOCK: i64 = 1_000_000_000_000;

/// Products that get their search names by one statement.
const FILL_CHUNK: i64 = 500;

/// Which products to list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProductQuery {
    /// 1 to [`MAX_PAGE`].
    pub limit: u64,
    /// Only products with a larger id.
    pub after: ProductId,
    /// Only products whose name contains this, in upper or lower case.
    pub name_contains: Option<String>,
}

/// A page of products by id, and whether more follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductPage {
    pub products: Vec<product::Model>,
    pub more: bool,
}

/// A page of products by id. Products that cannot be read are left out.
pub async fn list(connection: &impl ConnectionTrait, query: &ProductQuery) -> Result<ProductPage, Error> {
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let mut query = query.clone();

    loop {
        let mut rows = connection.query_all(&select_page(&query)).await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last: Option<ProductId> = rows.last().and_then(|row| row.try_get_by("id").ok());
        let products: Vec<product::Model> =
            readable(&rows, "products", |row| product::Model::from_query_result(row, "")).collect();

        // A page on which no product can be read says nothing of those that follow.
        match last {
            Some(last) if products.is_empty() && more => query.after = last,
            _ => return Ok(ProductPage { products, more }),
        }
    }
}

fn select_page(query: &ProductQuery) -> SelectStatement {
    let mut select = product::Entity::find()
        .filter(product::Column::Id.gt(query.after))
        .order_by_asc(product::Column::Id)
        .limit(query.limit + 1);
    if let Some(part) = &query.name_contains {
        select = select.filter(name_contains(part));
    }
    select.into_query()
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

    record_initial_stock(txn, now, &added).await?;
    Ok(added.len())
}

/// Adds a product, with the movement that explains its first stock.
pub async fn add(txn: &DatabaseTransaction, now: Timestamp, new: &NewProduct) -> Result<product::Model, Error> {
    let added: Option<product::Model> = sql("
        INSERT INTO products (name, search_name, price, currency, stock, created_at, updated_at)
        SELECT :name, :search_name, :price, currency, :stock, :now, :now
          FROM shop
        RETURNING id, name, price, currency, stock, held, low_since, low_stock, created_at, updated_at")
    .bind("name", new.name.clone())
    .bind("search_name", search_form(&new.name))
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
           SET name = COALESCE(:name, name),
               search_name = COALESCE(:search_name, search_name),
               price = COALESCE(:price, price),
               updated_at = :now
         WHERE id = :id
        RETURNING id, name, price, currency, stock, held, low_since, low_stock, created_at, updated_at")
    .bind("name", change.name.clone())
    .bind("search_name", change.name.as_deref().map(search_form))
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

/// A name that was inserted by hand is found in the cases that the database knows, until [`fill_search_names`] has seen it.
fn name_contains(part: &str) -> Condition {
    let pattern = || LikeExpr::new(contains_pattern(part)).escape('\\');
    let search_name = || Expr::col(product::SEARCH_NAME);
    let by_hand = Condition::all()
        .add(search_name().is_null())
        .add(Expr::expr(Func::lower(Expr::col(product::Column::Name))).like(pattern()));
    Condition::any().add(search_name().like(pattern())).add(by_hand)
}
