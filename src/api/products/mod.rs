//! Reading the catalogue, and changing it.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};

pub mod answers;
pub mod bodies;
mod pages;

use answers::{
    ChangeProblem, CreateAnswer, CreateProblem, FindAnswer, FindProblem, ListAnswer, ListProblem, StockProblem,
};
use bodies::{NewProductBody, ProductBody, ProductChangeBody, StockChangeBody};
pub use pages::CachedPages;
use pages::{load_page, page_key, parse_cursor};

use super::{READ_TIMEOUT, Tag};
use crate::{
    app::App,
    domain::{
        Caller,
        catalog::{self, MAX_PAGE, ProductQuery, StockChange},
    },
    entities::{Timestamp, product},
    http::{
        conditional::IfNoneMatch,
        header::Header,
        json::{RawJson, ValidJson},
        problem::Problem,
    },
};

/// The products on a page unless the query says otherwise.
const DEFAULT_PAGE: u64 = 50;

pub struct ProductsApi;

#[OpenApi(tag = "Tag::Catalogue")]
impl ProductsApi {
    /// List products
    ///
    /// By id, a page at a time. What it shows is at most a second old.
    #[oai(path = "/products", method = "get", operation_id = "listProducts")]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        /// The number of products on a page.
        #[oai(default = "default_page", validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<i64>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 18, pattern = "^[0-9]{1,18}$"))]
        cursor: Query<Option<String>>,
        /// Only products whose name contains this: in upper or lower case, with composed or decomposed letters, and with
        /// `%`, `_` and `\` as themselves. No name holds a control character.
        #[oai(validator(max_length = 100, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"))]
        q: Query<Option<String>>,
        /// The ETag of a page that the caller has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<IfNoneMatch>,
    ) -> Result<ListAnswer, ListProblem> {
        let query = ProductQuery {
            limit: u64::try_from(limit.0).unwrap_or(DEFAULT_PAGE).min(MAX_PAGE),
            after: cursor.0.as_deref().map_or(Ok(0), cursor_of)?,
            name_contains: q.0.filter(|part| !part.is_empty()),
        };

        let page = app.cache.page(&page_key(&query), load_page(&app, &query)).await?;

        Ok(ListAnswer::new(page, &if_none_match.0))
    }

    /// Find a product
    ///
    /// As it is now: price and stock come from the database.
    #[oai(path = "/products/:id", method = "get", operation_id = "getProduct")]
    async fn find(
        &self,
        app: Data<&Arc<App>>,
        /// The product's id.
        #[oai(example = "example_id")]
        id: Path<i64>,
    ) -> Result<FindAnswer, FindProblem> {
        let product = app.db.timeout(READ_TIMEOUT, catalog::find(app.db.read(), id.0)).await?;

        Ok(FindAnswer::Product(to_json(product)?))
    }

    /// Add a product
    ///
    /// For administrators. Its first stock is recorded as a stock movement.
    #[oai(path = "/products", method = "post", operation_id = "createProduct")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        caller: Caller,
        body: ValidJson<NewProductBody>,
    ) -> Result<CreateAnswer, CreateProblem> {
        caller.require_admin()?;

        let new = &body.0.product();
        let add = app
            .db
            .transaction_once(|txn| async move { catalog::add(&txn, Timestamp::now(), new).await });
        let product = app.db.timeout(READ_TIMEOUT, add).await?;
        app.cache.invalidate_pages().await;

        let location = format!("/products/{}", product.id);
        Ok(CreateAnswer::Created(to_json(product)?, location))
    }

    /// Change a product
    ///
    /// For administrators. What is left out stays as it is. Existing orders keep the price they were created with.
    #[oai(path = "/products/:id", method = "patch", operation_id = "updateProduct")]
    async fn change(
        &self,
        app: Data<&Arc<App>>,
        caller: Caller,
        /// The product's id.
        #[oai(example = "example_id")]
        id: Path<i64>,
        body: ValidJson<ProductChangeBody>,
    ) -> Result<FindAnswer, ChangeProblem> {
        caller.require_admin()?;

        let change = &body.0.change();
        let update = app
            .db
            .transaction(|txn| async move { catalog::change(&*txn, Timestamp::now(), id.0, change).await });
        let product = app.db.timeout(READ_TIMEOUT, update).await?;
        app.cache.invalidate_pages().await;

        Ok(FindAnswer::Product(to_json(product)?))
    }

    /// Change a product's stock
    ///
    /// For administrators. Adds units to the stock, or writes them off with a negative number; never below zero. The
    /// reason is recorded with the stock movement, so that every unit can be accounted for.
    #[oai(path = "/products/:id/stock", method = "post", operation_id = "changeStock")]
    async fn change_stock(
        &self,
        app: Data<&Arc<App>>,
        caller: Caller,
        /// The product's id.
        id: Path<i64>,
        body: ValidJson<StockChangeBody>,
    ) -> Result<FindAnswer, StockProblem> {
        caller.require_admin()?;

        let change = &StockChange {
            product_id: id.0,
            delta: body.0.delta,
            reason: body.0.reason,
        };
        let low_stock_at = app.config.catalog.low_stock_at;
        let update = app.db.transaction_once(|txn| async move {
            catalog::change_stock(&txn, Timestamp::now(), change, low_stock_at).await
        });
        let product = app.db.timeout(READ_TIMEOUT, update).await?;
        app.cache.invalidate_pages().await;

        Ok(FindAnswer::Product(to_json(product)?))
    }
}

fn to_json(product: product::Model) -> serde_json::Result<RawJson<ProductBody>> {
    RawJson::of(&ProductBody::from(product))
}

fn cursor_of(text: &str) -> Result<i64, Problem> {
    let wrong = || Problem::invalid_field("/query/cursor", "`cursor` is not one that this server gave out");
    parse_cursor(text).ok_or_else(wrong)
}

fn default_page() -> i64 {
    i64::try_from(DEFAULT_PAGE).unwrap_or(i64::MAX)
}

fn example_id() -> i64 {
    1
}
