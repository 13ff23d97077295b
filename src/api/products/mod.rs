//! Looking at the catalogue, and changing it.

use bytes::Bytes;
use poem::{
    Endpoint, IntoResponse as _, Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
};

pub mod bodies;

use bodies::{NewProductBody, ProductBody, ProductChangeBody, ProductPageBody, StockChangeBody};

use super::READ_TIMEOUT;
use super::{Tag, auth::layer::caller};
use crate::{
    app::App,
    cache::CachedPage,
    domain::{
        Error,
        catalog::{self, MAX_PAGE, ProductQuery, StockChange},
    },
    entities::{Timestamp, product},
    http::{
        json::{RawJson, ValidJson},
        negotiation::{elements, parameter, parts},
        problem::{Problem, problems},
    },
};

/// The products on a page unless told otherwise.
const DEFAULT_PAGE: u64 = 50;

pub struct ProductsApi {
    pub app: Option<App>,
}

#[derive(ApiResponse)]
pub enum ListAnswer {
    /// A page of products.
    #[oai(status = 200)]
    Page(
        RawJson<ProductPageBody>,
        /// Changes with the content; send it back in If-None-Match.
        #[oai(header = "ETag")]
        String,
        /// `no-cache`: keep it, and ask with If-None-Match before using it again.
        #[oai(header = "Cache-Control")]
        String,
    ),
    /// The page is the one that If-None-Match names.
    #[oai(status = 304)]
    NotModified(
        /// Of the page that the caller has.
        #[oai(header = "ETag")]
        String,
        /// `no-cache`: keep it, and ask with If-None-Match before using it again.
        #[oai(header = "Cache-Control")]
        String,
    ),
}

#[derive(ApiResponse)]
pub enum FindAnswer {
    /// The product.
    #[oai(status = 200)]
    Product(RawJson<ProductBody>),
}

#[derive(ApiResponse)]
pub enum CreateAnswer {
    /// The product is in the catalogue.
    #[oai(status = 201)]
    Created(
        RawJson<ProductBody>,
        /// Where the product is.
        #[oai(header = "Location")]
        String,
    ),
}

problems!(ListProblem:
    InvalidRequest, Unauthorized, TooManyRequests, Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(FindProblem:
    InvalidRequest, Unauthorized, NotFound, TooManyRequests, Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(CreateProblem:
    InvalidRequest, Unauthorized, Forbidden, RequestTimeout, PayloadTooLarge, UnsupportedMediaType, TooManyRequests,
    Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(ChangeProblem:
    InvalidRequest, Unauthorized, Forbidden, NotFound, RequestTimeout, PayloadTooLarge, UnsupportedMediaType,
    TooManyRequests, Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(StockProblem:
    InvalidRequest, Unauthorized, Forbidden, NotFound, RequestTimeout, StockOutOfRange, PayloadTooLarge,
    UnsupportedMediaType, TooManyRequests, Internal, Overloaded, DatabaseUnavailable, Timeout);

#[OpenApi(tag = "Tag::Catalogue")]
impl ProductsApi {
    /// List products
    ///
    /// By id, a page at a time. What it shows is at most a second old.
    #[oai(path = "/products", method = "get", operation_id = "listProducts")]
    async fn list(
        &self,
        request: &Request,
        /// How many products to a page.
        #[oai(default = "default_page", validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<i64>,
        /// `next_cursor` of the page before.
        #[oai(validator(pattern = "^[0-9]{1,18}$"))]
        cursor: Query<Option<String>>,
        /// Only products whose name contains this, in upper or lower case. No name holds a control character.
        #[oai(validator(max_length = 100, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"))]
        q: Query<Option<String>>,
        /// The ETag of a page that the caller has.
        #[oai(name = "If-None-Match")]
        _if_none_match: Header<Option<String>>,
    ) -> Result<ListAnswer, ListProblem> {
        let query = ProductQuery {
            limit: u64::try_from(limit.0).unwrap_or(DEFAULT_PAGE).min(MAX_PAGE),
            after: parse_cursor(cursor.0.as_deref())?,
            name_contains: q.0.filter(|part| !part.is_empty()),
        };
        let app = super::wired(self.app.as_ref())?;
        let page = app.cache.page(page_key(request), load_page(app, &query)).await?;
        Ok(ListAnswer::new(page, request.headers()))
    }

    /// Find a product
    ///
    /// As it is now: price and stock come from the database.
    #[oai(path = "/products/:id", method = "get", operation_id = "findProduct")]
    async fn find(
        &self,
        /// The product's id.
        id: Path<i64>,
    ) -> Result<FindAnswer, FindProblem> {
        let app = super::wired(self.app.as_ref())?;
        let product = app.db.timeout(READ_TIMEOUT, catalog::find(app.db.read(), id.0)).await?;
        let body = ProductBody::new(product, &app.config.catalog.currency);
        Ok(FindAnswer::Product(RawJson::new(super::to_json(&body)?)))
    }

    /// Add a product
    ///
    /// For administrators. Its first stock is kept as a stock movement.
    #[oai(path = "/products", method = "post", operation_id = "createProduct")]
    async fn create(&self, request: &Request, body: ValidJson<NewProductBody>) -> Result<CreateAnswer, CreateProblem> {
        let app = super::wired(self.app.as_ref())?;
        caller(request)?.require_admin()?;
        let new = &body.0.product();
        let add = app
            .db
            .transaction_once(|txn| async move { catalog::add(&txn, Timestamp::now(), new).await });
        let product = app.db.timeout(READ_TIMEOUT, add).await?;
        let location = format!("/products/{}", product.id);
        Ok(CreateAnswer::Created(changed(app, product).await?, location))
    }

    /// Change a product
    ///
    /// For administrators. What is left out stays as it is. Orders that were made keep the price they were made at.
    #[oai(path = "/products/:id", method = "patch", operation_id = "changeProduct")]
    async fn change(
        &self,
        request: &Request,
        /// The product's id.
        id: Path<i64>,
        body: ValidJson<ProductChangeBody>,
    ) -> Result<FindAnswer, ChangeProblem> {
        let app = super::wired(self.app.as_ref())?;
        caller(request)?.require_admin()?;
        let change = &body.0.change();
        let update = app
            .db
            .transaction(|txn| async move { catalog::change(&*txn, Timestamp::now(), id.0, change).await });
        let product = app.db.timeout(READ_TIMEOUT, update).await?;
        Ok(FindAnswer::Product(changed(app, product).await?))
    }

    /// Change a product's stock
    ///
    /// For administrators. Puts units on the shelf, or writes them off with a negative number; never below zero. The
    /// reason is kept with the movement, so that the books can always be checked.
    #[oai(path = "/products/:id/stock", method = "post", operation_id = "changeStock")]
    async fn change_stock(
        &self,
        request: &Request,
        /// The product's id.
        id: Path<i64>,
        body: ValidJson<StockChangeBody>,
    ) -> Result<FindAnswer, StockProblem> {
        let app = super::wired(self.app.as_ref())?;
        caller(request)?.require_admin()?;
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
        Ok(FindAnswer::Product(changed(app, product).await?))
    }
}

/// What has been changed is forgotten by the cache before it is answered.
async fn changed(app: &App, product: product::Model) -> Result<RawJson<ProductBody>, Error> {
    app.cache.invalidate_pages().await;
    Ok(RawJson::new(super::to_json(&ProductBody::new(
        product,
        &app.config.catalog.currency,
    ))?))
}

/// Answers a page that is near at hand before anything else is looked at: whatever is kept under a query was valid, and
/// found, when it was asked for last.
pub struct CachedPages<E> {
    pub inner: E,
    pub app: App,
}

impl<E: Endpoint<Output = Response>> Endpoint for CachedPages<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !reads || request.uri().path() != "/products" {
            return self.inner.call(request).await;
        }
        let cache = &self.app.cache;
        if let Some(page) = cache.local_page(page_key(&request)).await {
            return Ok(answer(page, request.headers()));
        }
        if !takes_gzip(request.headers()) {
            let mut response = self.inner.call(request).await?;
            let vary = HeaderValue::from_static("accept-encoding");
            response.headers_mut().insert(header::VARY, vary);
            return Ok(response);
        }
        let (key, headers) = (page_key(&request).to_owned(), request.headers().clone());
        let response = self.inner.call(request).await?;
        Ok(match cache.local_page(&key).await {
            Some(page) if response.status() == StatusCode::OK => answer(page, &headers),
            _ => response,
        })
    }
}

/// The page, compressed if the caller takes that. What is compressed has a tag of its own (RFC 9110, section 8.8.3.3).
fn answer(page: CachedPage, headers: &HeaderMap) -> Response {
    let gzip = takes_gzip(headers);
    let page = if gzip { page.compressed() } else { page };
    let mut response = ListAnswer::new(page, headers).into_response();
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if gzip && response.status() == StatusCode::OK {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// RFC 9110, section 12.5.3: named, or any is taken, and not with a weight of 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return false;
    }
    let weight_of = |name: &str| {
        elements(headers, "accept-encoding").find_map(|coding| {
            let mut parts = parts(coding, ';');
            let named = parts.next()?.eq_ignore_ascii_case(name);
            let weight = parts.find_map(|part| parameter(part, "q"));
            named.then(|| weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
        })
    };
    weight_of("gzip")
        .or_else(|| weight_of("*"))
        .is_some_and(|weight: f64| weight > 0.0)
}

/// A page is kept under the query that asked for it, as it was spelled.
fn page_key(request: &Request) -> &str {
    request.uri().query().unwrap_or_default()
}

impl ListAnswer {
    fn new(page: CachedPage, headers: &HeaderMap) -> Self {
        let etag = page.etag.to_string();
        let cache_control = "no-cache".to_owned();
        if knows(headers, &etag) {
            return Self::NotModified(etag, cache_control);
        }
        Self::Page(RawJson::new(page.body), etag, cache_control)
    }
}

async fn load_page(app: &App, query: &ProductQuery) -> Result<Bytes, Error> {
    let list = app.db.snapshot(
        Some(READ_TIMEOUT),
        |txn| async move { catalog::list(&*txn, query).await },
    );
    let page = app.db.timeout(READ_TIMEOUT, list).await?;
    let next_cursor = page
        .products
        .last()
        .filter(|_| page.more)
        .map(|last| last.id.to_string());
    let currency = &app.config.catalog.currency;
    let items = page
        .products
        .into_iter()
        .map(|product| ProductBody::new(product, currency));
    super::to_json(&ProductPageBody {
        items: items.collect(),
        next_cursor,
    })
}

fn default_page() -> i64 {
    i64::try_from(DEFAULT_PAGE).unwrap_or(i64::MAX)
}

/// A cursor is the last id of the page before; callers are told nothing but to hand it back.
fn parse_cursor(cursor: Option<&str>) -> Result<i64, Problem> {
    let Some(cursor) = cursor else { return Ok(0) };
    let id = cursor.parse().ok().filter(|id| *id >= 0);
    id.ok_or_else(|| Problem::fault("/query/cursor", "`cursor` is not one that this server gave out"))
}

/// Whether `If-None-Match` names the tag (RFC 9110, section 13.1.2): `*`, or a list of entity tags compared weakly.
fn knows(headers: &HeaderMap, etag: &str) -> bool {
    elements(headers, "if-none-match").any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, lines: &[&'static str]) -> HeaderMap {
        let line = |line: &&'static str| (name.parse().expect("a name"), HeaderValue::from_static(line));
        lines.iter().map(line).collect()
    }

    #[test]
    fn if_none_match_takes_lists_weak_tags_several_lines_and_a_star() {
        let knows = |lines: &[&'static str]| knows(&headers("if-none-match", lines), "\"b\"");
        assert!(knows(&["\"a\", W/\"b\""]) && knows(&["*"]) && knows(&["\"a\"", "\"b\""]));
        assert!(!knows(&["\"a\""]) && !knows(&[]));
    }

    #[test]
    fn gzip_is_taken_where_it_is_named_or_anything_is_and_not_refused() {
        let takes = |lines: &[&'static str]| takes_gzip(&headers("accept-encoding", lines));
        for taken in [&["br, GZip;q=0.5"][..], &["br", "gzip"], &["*"], &["gzip;foo=1"]] {
            assert!(takes(taken), "{taken:?}");
        }
        for refused in [
            &["gzip;Q=0"][..],
            &["gzip;foo=1;q=0.000"],
            &["*;q=0"],
            &["gzip;q=0, *"],
            &["br"],
            &[],
        ] {
            assert!(!takes(refused), "{refused:?}");
        }
    }
}
