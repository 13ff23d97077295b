//! The catalogue: listing, finding and adding products.

use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect,
    sea_query::{Expr, ExprTrait, Func, LikeExpr},
};

use super::{Error, ProductId};
use crate::{
    db::rows::{Column, Sql},
    entities::{Micros, product},
};

/// The most products on a page.
pub const MAX_PAGE: u64 = 200;

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
        let pattern = LikeExpr::new(format!("%{}%", escape_like(&part.to_lowercase()))).escape('\\');
        select = select.filter(Expr::expr(Func::lower(Expr::col(product::Column::Name))).like(pattern));
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

/// Adds those of `products` whose name the catalogue does not have yet, each with the movement that explains its
/// first stock. Answers how many were added. Run it in a transaction.
///
/// # Errors
/// The database's.
pub async fn add_missing(txn: &impl ConnectionTrait, now: Micros, products: &[NewProduct]) -> Result<usize, Error> {
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
    ];
    let insert = Sql::new(
        txn.get_database_backend(),
        "INSERT INTO products (name, price, stock, created_at) SELECT t.name, t.price, t.stock, ",
    )
    .bind(now)
    .push(" FROM ")
    .rows("t", columns)
    .push(" WHERE NOT EXISTS (SELECT 1 FROM products p WHERE p.name = t.name) RETURNING id, stock");
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

fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
