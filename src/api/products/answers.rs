//! The answers of the operations on products, as the document describes them, and the problems that each can end in.

use bytes::Bytes;
use poem_openapi::ApiResponse;

use super::bodies::{ProductBody, ProductPageBody};
use crate::{
    api::errors::{
        DATABASE_UNAVAILABLE, FORBIDDEN, IDEMPOTENCY_KEY_REUSED, INTERNAL, INVALID_REQUEST, NOT_FOUND, OVERLOADED,
        PAYLOAD_TOO_LARGE, PRECONDITION_FAILED, REQUEST_TIMEOUT, SKU_TAKEN, TIMEOUT, TOO_MANY_REQUESTS, UNAUTHORIZED,
        UNSUPPORTED_MEDIA_TYPE,
    },
    cache::CachedPage,
    entities::product,
    http::{
        conditional::{IfNoneMatch, entity_tag},
        json::{self, RawJson},
        problem::problems,
    },
};

/// The value of `Cache-Control` where everybody may store an answer, and must ask before using it again.
const NO_CACHE: &str = "no-cache";

#[derive(ApiResponse)]
pub enum ListAnswer {
    /// A page of products.
    #[oai(status = 200)]
    Page(
        RawJson<ProductPageBody>,
        /// Changes with the content; send it back in If-None-Match.
        #[oai(header = "ETag")]
        String,
        /// `no-cache`: store it, and ask with If-None-Match before using it again.
        #[oai(header = "Cache-Control")]
        String,
    ),
    /// The page is the one that If-None-Match names.
    #[oai(status = 304)]
    NotModified(
        /// The tag of the page that the caller has.
        #[oai(header = "ETag")]
        String,
        /// `no-cache`: store it, and ask with If-None-Match before using it again.
        #[oai(header = "Cache-Control")]
        String,
    ),
}

impl ListAnswer {
    pub fn new(page: CachedPage, if_none_match: &IfNoneMatch) -> Self {
        let etag = page.etag.to_string();
        let cache_control = NO_CACHE.to_owned();

        if if_none_match.matches(&etag) {
            return Self::NotModified(etag, cache_control);
        }
        Self::Page(RawJson::new(page.body), etag, cache_control)
    }
}

#[derive(ApiResponse)]
pub enum FindAnswer {
    /// The product.
    #[oai(status = 200)]
    Product(
        RawJson<ProductBody>,
        /// Changes with the content; send it back in If-None-Match, or in If-Match to change what was read.
        #[oai(header = "ETag")]
        String,
        /// `no-cache`: store it, and ask with If-None-Match before using it again.
        #[oai(header = "Cache-Control")]
        String,
    ),
    /// The product is as If-None-Match says.
    #[oai(status = 304)]
    NotModified(
        /// The tag of the product that the caller has.
        #[oai(header = "ETag")]
        String,
        /// `no-cache`: store it, and ask with If-None-Match before using it again.
        #[oai(header = "Cache-Control")]
        String,
    ),
}

impl FindAnswer {
    pub fn new(product: product::Model, if_none_match: &IfNoneMatch) -> serde_json::Result<Self> {
        let (body, etag) = representation(product)?;
        let cache_control = NO_CACHE.to_owned();

        if if_none_match.matches(&etag) {
            return Ok(Self::NotModified(etag, cache_control));
        }
        Ok(Self::Product(RawJson::new(body), etag, cache_control))
    }
}

#[derive(ApiResponse)]
pub enum ChangeAnswer {
    /// The product as it is now.
    #[oai(status = 200)]
    Changed(
        RawJson<ProductBody>,
        /// The tag of what the product is now.
        #[oai(header = "ETag")]
        String,
    ),
}

impl ChangeAnswer {
    pub fn new(product: product::Model) -> serde_json::Result<Self> {
        let (body, etag) = representation(product)?;
        Ok(Self::Changed(RawJson::new(body), etag))
    }
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
        /// `true` when this is the first answer again.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

/// A product as JSON, and the entity tag of that.
pub fn representation(product: product::Model) -> serde_json::Result<(Bytes, String)> {
    let body = json::to_bytes(&ProductBody::from(product))?;
    let etag = entity_tag(&body);
    Ok((body, etag))
}

problems!(ListProblem:
    INVALID_REQUEST, UNAUTHORIZED, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(FindProblem:
    INVALID_REQUEST, UNAUTHORIZED, NOT_FOUND, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(CreateProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, REQUEST_TIMEOUT, SKU_TAKEN, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE,
    IDEMPOTENCY_KEY_REUSED, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(ChangeProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, REQUEST_TIMEOUT, SKU_TAKEN, PRECONDITION_FAILED,
    PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
