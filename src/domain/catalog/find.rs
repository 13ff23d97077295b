//! Reading products: one, or a page of them.

use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait as _, FromQueryResult as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
    sea_query::{Expr, ExprTrait as _, Func, LikeExpr, SelectStatement},
};

use super::product;
use crate::{
    db::{
        search::contains_pattern,
        sql::{readable, sql},
    },
    domain::{Error, ProductId},
};

/// Which products to list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProductQuery {
    /// 1 to [`MAX_PAGE`](super::MAX_PAGE).
    pub limit: u64,
    /// Only products with a larger id.
    pub after: ProductId,
    /// Only products whose name contains this, in upper or lower case.
    pub name_contains: Option<String>,
    /// Only the product with this SKU.
    pub sku: Option<String>,
    /// Only products that are for sale, or only those that are taken off the list.
    pub active: Option<bool>,
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
    if let Some(sku) = &query.sku {
        select = select.filter(product::Column::Sku.eq(sku.as_str()));
    }

    // Without a parameter, so that the index of what is off the list serves it.
    let active = Expr::col(product::Column::Active);
    match query.active {
        Some(true) => select = select.filter(active),
        Some(false) => select = select.filter(active.not()),
        None => {}
    }
    select.into_query()
}

/// Finds a product, also one that is taken off the list.
///
/// # Errors
/// [`Error::ProductNotFound`].
pub async fn find(connection: &impl ConnectionTrait, id: ProductId) -> Result<product::Model, Error> {
    let product = product::Entity::find_by_id(id).one(connection).await?;
    product.ok_or(Error::ProductNotFound(id))
}

/// As [`find`], and locks the product until the end of the transaction.
///
/// # Errors
/// [`Error::ProductNotFound`].
pub async fn lock(txn: &DatabaseTransaction, id: ProductId) -> Result<product::Model, Error> {
    let product: Option<product::Model> = sql("
        SELECT id, name, sku, active, price, currency, stock, held, low_since, low_stock,
                  created_at, updated_at
          FROM products
         WHERE id = :id
           FOR NO KEY UPDATE")
    .bind("id", id)
    .one(txn)
    .await?;
    product.ok_or(Error::ProductNotFound(id))
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

/// A name that was inserted by hand is found in the cases that the database knows, until [`fill_search_names`](super::fill_search_names) has seen it.
fn name_contains(part: &str) -> Condition {
    let pattern = || LikeExpr::new(contains_pattern(part)).escape('\\');
    let search_name = || Expr::col(product::SEARCH_NAME);
    let by_hand = Condition::all()
        .add(search_name().is_null())
        .add(Expr::expr(Func::lower(Expr::col(product::Column::Name))).like(pattern()));
    Condition::any().add(search_name().like(pattern())).add(by_hand)
}
