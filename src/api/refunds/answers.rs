//! The answers of the operations on refunds, as the document describes them, and the problems that each can end in.

use poem_openapi::ApiResponse;

use super::bodies::{RefundBody, RefundPageBody};
use crate::{
    api::errors::{
        DATABASE_UNAVAILABLE, FORBIDDEN, IDEMPOTENCY_KEY_REUSED, INTERNAL, INVALID_REQUEST, NOT_FOUND, ORDER_NOT_PAID,
        OVERLOADED, PAYLOAD_TOO_LARGE, REFUND_EXCEEDS_PAYMENT, REQUEST_TIMEOUT, STOCK_OUT_OF_RANGE, TIMEOUT,
        TOO_MANY_REQUESTS, UNAUTHORIZED, UNSUPPORTED_MEDIA_TYPE,
    },
    http::{json::RawJson, problem::problems},
};

#[derive(ApiResponse)]
pub enum CreateAnswer {
    /// The refund was made, now or before under the same Idempotency-Key.
    #[oai(status = 201)]
    Created(
        RawJson<RefundBody>,
        /// `true` when this is the first answer again.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
pub enum ListAnswer {
    /// A page of refunds, newest first.
    #[oai(status = 200)]
    Page(RawJson<RefundPageBody>),
}

problems!(CreateProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, REQUEST_TIMEOUT, ORDER_NOT_PAID, REFUND_EXCEEDS_PAYMENT,
    STOCK_OUT_OF_RANGE, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, IDEMPOTENCY_KEY_REUSED, TOO_MANY_REQUESTS, INTERNAL,
    OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(ListProblem:
    INVALID_REQUEST, UNAUTHORIZED, NOT_FOUND, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
