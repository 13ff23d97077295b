//! The answers of the operations on stock, as the document describes them, and the problems that each can end in.

use poem_openapi::ApiResponse;

use super::bodies::{MovementPageBody, StockLevelsBody};
use crate::{
    api::{
        errors::{
            DATABASE_UNAVAILABLE, FORBIDDEN, IDEMPOTENCY_KEY_REUSED, INTERNAL, INVALID_REQUEST, NOT_FOUND, OVERLOADED,
            PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT, STOCK_CHANGED, STOCK_OUT_OF_RANGE, TIMEOUT, TOO_MANY_REQUESTS,
            UNAUTHORIZED, UNKNOWN_PRODUCT, UNSUPPORTED_MEDIA_TYPE,
        },
        products::bodies::ProductBody,
    },
    http::{json::RawJson, problem::problems},
};

#[derive(ApiResponse)]
pub enum ChangeAnswer {
    /// The product, with its stock as it was after the change.
    #[oai(status = 200)]
    Changed(
        RawJson<ProductBody>,
        /// `true` when this is the first answer again.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
pub enum ChangesAnswer {
    /// The stock of every product that was named, as it was after the change.
    #[oai(status = 200)]
    Changed(
        RawJson<StockLevelsBody>,
        /// `true` when this is the first answer again.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
pub enum MovementsAnswer {
    /// A page of movements, newest first.
    #[oai(status = 200)]
    Page(RawJson<MovementPageBody>),
}

problems!(ChangeProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, REQUEST_TIMEOUT, STOCK_CHANGED, STOCK_OUT_OF_RANGE,
    PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, IDEMPOTENCY_KEY_REUSED, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED,
    DATABASE_UNAVAILABLE, TIMEOUT);
problems!(ChangesProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, REQUEST_TIMEOUT, STOCK_CHANGED, STOCK_OUT_OF_RANGE, PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE, UNKNOWN_PRODUCT, IDEMPOTENCY_KEY_REUSED, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED,
    DATABASE_UNAVAILABLE, TIMEOUT);
problems!(MovementsProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED,
    DATABASE_UNAVAILABLE, TIMEOUT);
