//! Pages of products as ready-made bytes: where they are loaded, and the layer that answers them from the local cache
//! before a request is routed and parsed. A cached page was valid, and found, when its query was sent last.

use bytes::Bytes;
use poem::{
    Endpoint, IntoResponse as _, Request, Response,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
};

use super::{
    answers::ListAnswer,
    bodies::{ProductBody, ProductPageBody},
};
use crate::{
    api::READ_TIMEOUT,
    app::App,
    cache::{Cache, CachedPage},
    domain::{
        Error,
        catalog::{self, ProductQuery},
    },
    http::{
        conditional::IfNoneMatch,
        json,
        negotiation::accepts_gzip,
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

        if let Some(page) = self.cache.local_page(page_key(request.uri())).await {
            return Ok(answer(page, request.headers()));
        }

        if !accepts_gzip(request.headers()) {
            let mut response = self.inner.call(request).await?;
            response.headers_mut().insert(header::VARY, ACCEPT_ENCODING);
            return Ok(response);
        }

        // The handler does not compress. It leaves the page in the cache, where its compressed form is kept as well.
        let (key, headers) = (page_key(request.uri()).to_owned(), request.headers().clone());
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

/// A page is cached under the query that asked for it, as it was spelled.
pub fn page_key(uri: &Uri) -> &str {
    uri.query().unwrap_or_default()
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
