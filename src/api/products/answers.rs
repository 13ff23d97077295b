//! The answers of the operations on products, as the document describes them, and the problems that each can end in.

use poem_openapi::ApiResponse;

use super::bodies::{ProductBody, ProductPageBody};
use crate::{
    api::errors::{
        DATABASE_UNAVAILABLE, FORBIDDEN, INTERNAL, INVALID_REQUEST, NOT_FOUND, OVERLOADED, PAYLOAD_TOO_LARGE,
        REQUEST_TIMEOUT, STOCK_OUT_OF_RANGE, TIMEOUT, TOO_MANY_REQUESTS, UNAUTHORIZED, UNSUPPORTED_MEDIA_TYPE,
    },
    cache::CachedPage,
    http::{conditional::IfNoneMatch, json::RawJson, problem::problems},
};

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
        let cache_control = "no-cache".to_owned();

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
    INVALID_REQUEST, UNAUTHORIZED, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(FindProblem:
    INVALID_REQUEST, UNAUTHORIZED, NOT_FOUND, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(CreateProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, REQUEST_TIMEOUT, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE,
    TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(ChangeProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, REQUEST_TIMEOUT, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE,
    TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(StockProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, REQUEST_TIMEOUT, STOCK_OUT_OF_RANGE, PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
