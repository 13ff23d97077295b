//! Pages of products as ready-made bytes: where they are loaded, and the layer that answers them from the local cache
//! before a request is routed. A page is cached under what its query means: however it is spelled, it is one page.

use std::borrow::Cow;

use bytes::Bytes;
use poem::{
    Endpoint, IntoResponse as _, Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
};

use super::{
    DEFAULT_PAGE,
    answers::ListAnswer,
    bodies::{ProductBody, ProductPageBody},
};
use crate::{
    api::READ_TIMEOUT,
    app::App,
    cache::{Cache, CachedPage},
    domain::{
        Error,
        catalog::{self, MAX_PAGE, ProductQuery},
    },
    http::{
        conditional::IfNoneMatch,
        json,
        negotiation::accepts_gzip,
        query::pairs,
        routes::{Route, Routes},
    },
};

/// Answers pages from the local cache, compressed for those who accept that.
pub struct CachedPages<E> {
    inner: E,
    cache: Cache,
    /// The path of the list of products.
    path: String,
}

impl<E> CachedPages<E> {
    pub fn new(inner: E, cache: Cache, routes: &Routes) -> Self {
        let list = routes.of_operation("listProducts").map(Route::template);
        Self {
            inner,
            cache,
            path: list.unwrap_or_default().to_owned(),
        }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for CachedPages<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !reads || request.uri().path() != self.path {
            return self.inner.call(request).await;
        }

        // What is not understood here is answered by the handler.
        let Some(query) = understood(request.uri()) else {
            return self.inner.call(request).await;
        };
        let key = page_key(&query);
        if let Some(page) = self.cache.local_page(&key).await {
            return Ok(answer(page, request.headers()));
        }

        if !accepts_gzip(request.headers()) {
            let mut response = self.inner.call(request).await?;
            response.headers_mut().insert(header::VARY, ACCEPT_ENCODING);
            return Ok(response);
        }

        // The handler does not compress. It leaves the page in the cache, where its compressed form is kept as well.
        let headers = request.headers().clone();
        let response = self.inner.call(request).await?;
        Ok(match self.cache.local_page(&key).await {
            Some(page) if response.status() == StatusCode::OK => answer(page, &headers),
            _ => response,
        })
    }
}

const ACCEPT_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// The page, compressed if the client accepts that. A compressed page has a tag of its own (RFC 9110, section 8.8.3.3).
fn answer(page: CachedPage, headers: &HeaderMap) -> Response {
    let gzip = accepts_gzip(headers);
    let page = if gzip { page.compressed() } else { page };
    let mut response = ListAnswer::new(page, &IfNoneMatch::of(headers)).into_response();

    let is_page = response.status() == StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::VARY, ACCEPT_ENCODING);
    if gzip && is_page {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// What a query means whose names are known and come once, if its values are valid.
fn understood(uri: &Uri) -> Option<ProductQuery> {
    let mut understood = ProductQuery {
        limit: DEFAULT_PAGE,
        after: 0,
        name_contains: None,
        sku: None,
        active: Some(true),
    };

    for (name, value) in pairs(uri.query().unwrap_or_default()) {
        match &*name {
            "limit" => understood.limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit))?,
            "cursor" => understood.after = parse_cursor(&value)?,
            "q" if value.is_empty() => {}
            "q" => understood.name_contains = Some(value.into_owned()),
            _ => return None,
        }
    }
    Some(understood)
}

/// The key of the page that a query means.
pub fn page_key(query: &ProductQuery) -> Cow<'static, str> {
    match query {
        ProductQuery {
            limit: DEFAULT_PAGE,
            after: 0,
            name_contains: None,
            sku: None,
            active: Some(true),
        } => Cow::Borrowed(""),
        ProductQuery {
            limit,
            after,
            name_contains,
            sku,
            active,
        } => {
            let part = name_contains.as_deref().unwrap_or_default();
            format!("{limit},{after},{active:?},{sku:?},{part}").into()
        }
    }
}

/// A cursor is the last id of the page before; to callers it is an opaque text.
pub fn parse_cursor(cursor: &str) -> Option<i64> {
    let is_number = cursor.len() <= 18 && cursor.bytes().all(|byte| byte.is_ascii_digit());
    cursor.parse().ok().filter(|_| is_number)
}

/// # Errors
/// The page cannot be read, or not within [`READ_TIMEOUT`].
pub async fn load_page(app: &App, query: &ProductQuery) -> Result<Bytes, Error> {
    let read = app.db.snapshot(
        Some(READ_TIMEOUT),
        |txn| async move { catalog::list(&*txn, query).await },
    );
    let page = app.db.timeout(READ_TIMEOUT, read).await?;

    let last = page.products.last().filter(|_| page.more);
    let next_cursor = last.map(|product| product.id.to_string());
    let body = ProductPageBody {
        items: page.products.into_iter().map(ProductBody::from).collect(),
        next_cursor,
    };

    json::to_bytes(&body).map_err(|error| Error::Internal(error.to_string()))
}
