//! Reading the catalogue, and changing it.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use serde::Deserialize;
use serde_json::json;

pub mod answers;
pub mod bodies;
mod pages;

use answers::{
    ChangeAnswer, ChangeProblem, CreateAnswer, CreateProblem, FindAnswer, FindProblem, ListAnswer, ListProblem,
    representation,
};
use bodies::{NewProductBody, ProductBody, ProductChangeBody};
pub use pages::CachedPages;
use pages::{load_page, page_key, parse_cursor};

use super::{READ_TIMEOUT, Tag, auth::Administrator};
use crate::{
    app::App,
    db::Txn,
    domain::{
        Error,
        catalog::{self, MAX_PAGE, Origin, ProductChange, ProductQuery},
    },
    entities::product,
    http::{
        conditional::{IfMatch, IfNoneMatch},
        header::Header,
        idempotency::IdempotencyKey,
        json::{RawJson, ValidJson},
        problem::Problem,
    },
    intake::once,
};

/// The products on a page unless the query says otherwise.
const DEFAULT_PAGE: u64 = 50;

pub struct ProductsApi;

#[OpenApi(tag = "Tag::Catalogue")]
impl ProductsApi {
    /// List products
    ///
    /// By id, a page at a time. What it shows is at most a second old. Products that are taken off the list are shown only
    /// with `active=false`.
    #[oai(path = "/products", method = "get", operation_id = "listProducts")]
    #[expect(clippy::too_many_arguments, reason = "each is an extractor that the handler uses")]
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
        /// Only the product with this SKU.
        #[oai(validator(min_length = 1, max_length = 64, pattern = "^[!-~]*$"))]
        sku: Query<Option<String>>,
        /// `false`: only products that are taken off the list.
        #[oai(default = "default_active")]
        active: Query<bool>,
        /// The ETag of a page that the caller has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<IfNoneMatch>,
    ) -> Result<ListAnswer, ListProblem> {
        let query = ProductQuery {
            limit: u64::try_from(limit.0).unwrap_or(DEFAULT_PAGE).min(MAX_PAGE),
            after: cursor.0.as_deref().map_or(Ok(0), cursor_of)?,
            name_contains: q.0.filter(|part| !part.is_empty()),
            sku: sku.0,
            active: Some(active.0),
        };

        let page = app.cache.page(&page_key(&query), load_page(&app, &query)).await?;

        Ok(ListAnswer::new(page, &if_none_match.0))
    }

    /// Find a product
    ///
    /// As it is now: price and stock come from the database. A product that is taken off the list is found as well.
    #[oai(path = "/products/:id", method = "get", operation_id = "getProduct")]
    async fn find(
        &self,
        app: Data<&Arc<App>>,
        /// The product's id.
        #[oai(example = "example_id")]
        id: Path<i64>,
        /// The ETag of the product that the caller has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<IfNoneMatch>,
    ) -> Result<FindAnswer, FindProblem> {
        let product = app.db.timeout(READ_TIMEOUT, catalog::find(app.db.read(), id.0)).await?;

        Ok(FindAnswer::new(product, &if_none_match.0)?)
    }

    /// Add a product
    ///
    /// For administrators. Its first stock is recorded as a stock movement.
    #[oai(path = "/products", method = "post", operation_id = "createProduct")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        Administrator(sender): Administrator,
        body: ValidJson<NewProductBody>,
        /// Makes it safe to send the request again: with the same key and body it is done once, and answered alike.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<IdempotencyKey>,
    ) -> Result<CreateAnswer, CreateProblem> {
        let Header(IdempotencyKey(key)) = idempotency_key;
        let keyed = once::keyed(key.as_deref(), "createProduct", &json!(body.0));
        let origin = &Origin {
            user_id: sender.user_id,
            idempotency_key: key,
        };
        let new = &body.0.product();
        let now = app.db.time();
        let work = |txn: Txn| async move {
            let product = catalog::add(&txn, now, new, origin).await?;
            Ok(ProductBody::from(product))
        };
        let answered = once::run(&app, keyed.as_ref(), work).await?;
        app.cache.invalidate_pages().await;

        let location = format!("/products/{}", created_id(&answered.body)?);
        Ok(CreateAnswer::Created(
            RawJson::new(answered.body),
            location,
            answered.replayed,
        ))
    }

    /// Change a product
    ///
    /// For administrators. What is left out stays as it is. Existing orders keep the price they were created with, and are
    /// settled also when a product is taken off the list. With `If-Match`, the change is made only to what has that tag:
    /// `412` if the product has changed since, be it the stock. A change that is there already is answered by `200`.
    #[oai(path = "/products/:id", method = "patch", operation_id = "updateProduct")]
    async fn change(
        &self,
        app: Data<&Arc<App>>,
        _administrator: Administrator,
        /// The product's id.
        #[oai(example = "example_id")]
        id: Path<i64>,
        body: ValidJson<ProductChangeBody>,
        /// The ETag of the product that the change is meant for.
        #[oai(name = "If-Match")]
        if_match: Header<IfMatch>,
    ) -> Result<ChangeAnswer, ChangeProblem> {
        let (change, if_match) = (&body.0.change(), &if_match.0);
        let now = app.db.time();
        let update = app.db.transaction(|txn| async move {
            if if_match.is_condition() {
                let current = catalog::lock(&txn, id.0).await?;
                check_precondition(current, change, if_match)?;
            }
            catalog::change(&*txn, now, id.0, change).await
        });
        let product = app.db.timeout(READ_TIMEOUT, update).await?;
        app.cache.invalidate_pages().await;

        Ok(ChangeAnswer::new(product)?)
    }
}

/// RFC 9110, section 13.1.1: a change that is there already may be answered as if it were made now. That is so when the
/// answer to the first attempt was lost, on the way to the client or on the way from the database.
fn check_precondition(current: product::Model, change: &ProductChange, if_match: &IfMatch) -> Result<(), Error> {
    let (id, is_applied) = (current.id, change.is_applied_to(&current));
    let (_, etag) = representation(current).map_err(|error| Error::Internal(error.to_string()))?;

    if is_applied || if_match.allows(&etag) {
        return Ok(());
    }
    Err(Error::ProductChanged(id))
}

/// The id in the answer, which may be the first answer to a request that was sent before.
fn created_id(body: &[u8]) -> serde_json::Result<i64> {
    #[derive(Deserialize)]
    struct Created {
        id: i64,
    }
    serde_json::from_slice(body).map(|created: Created| created.id)
}

fn cursor_of(text: &str) -> Result<i64, Problem> {
    let wrong = || Problem::invalid_field("/query/cursor", "`cursor` is not one that this server gave out");
    parse_cursor(text).ok_or_else(wrong)
}

fn default_page() -> i64 {
    i64::try_from(DEFAULT_PAGE).unwrap_or(i64::MAX)
}

fn default_active() -> bool {
    true
}

fn example_id() -> i64 {
    1
}
