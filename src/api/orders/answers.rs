//! The answers of the operations on orders, as the document describes them, and the problems that each can end in.

use bytes::Bytes;
use poem_openapi::ApiResponse;

use super::bodies::{OrderBody, OrderPageBody};
use crate::{
    api::errors::{
        DATABASE_UNAVAILABLE, FORBIDDEN, IDEMPOTENCY_KEY_REUSED, INSUFFICIENT_STOCK, INTERNAL, INVALID_REQUEST,
        NOT_FOUND, ORDER_FAILED, ORDER_PAID, OVERLOADED, PAYLOAD_TOO_LARGE, PAYMENT_ACCEPTED, PAYMENT_DECLINED,
        PAYMENT_REFERENCE_USED, REFERENCE_TAKEN, REQUEST_TIMEOUT, TIMEOUT, TOO_MANY_REQUESTS, TOTAL_TOO_LARGE,
        UNAUTHORIZED, UNKNOWN_PRODUCT, UNSUPPORTED_MEDIA_TYPE,
    },
    http::{
        conditional::{IfNoneMatch, entity_tag},
        event_stream::EventStream,
        json::RawJson,
        problem::problems,
    },
};

#[derive(ApiResponse)]
pub enum CreateAnswer {
    /// The order was created, now or before under the same Idempotency-Key.
    #[oai(status = 201)]
    Created(
        RawJson<OrderBody>,
        /// Where the order is.
        #[oai(header = "Location")]
        String,
        /// `true` when this is the first answer again.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
pub enum FindAnswer {
    /// The order.
    #[oai(status = 200)]
    Order(
        RawJson<OrderBody>,
        /// Changes with the content; send it back in If-None-Match.
        #[oai(header = "ETag")]
        String,
        /// `wait=N` if `Prefer: wait=N` was heeded (RFC 7240).
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
    /// The order is as If-None-Match says, also after waiting.
    #[oai(status = 304)]
    NotModified(
        /// The tag of the order that the caller has.
        #[oai(header = "ETag")]
        String,
        /// `wait=N` if `Prefer: wait=N` was heeded (RFC 7240).
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
}

impl FindAnswer {
    pub fn new(body: Bytes, if_none_match: &IfNoneMatch, applied: Option<String>) -> Self {
        let etag = entity_tag(&body);
        if if_none_match.matches(&etag) {
            return Self::NotModified(etag, applied);
        }
        Self::Order(RawJson::new(body), etag, applied)
    }
}

#[derive(ApiResponse)]
pub enum ListAnswer {
    /// A page of orders.
    #[oai(status = 200)]
    Page(RawJson<OrderPageBody>),
}

#[derive(ApiResponse)]
pub enum EventsAnswer {
    /// The order as it is, unless Last-Event-ID names that event, then again after every change, until it is settled.
    #[oai(status = 200)]
    Events(EventStream<OrderBody>),
    /// The order is settled, and Last-Event-ID names the event that said so. A browser does not reconnect any more.
    #[oai(status = 204)]
    NothingToCome,
}

#[derive(ApiResponse)]
pub enum PayAnswer {
    /// The order is paid and settled.
    #[oai(status = 200)]
    Paid(
        RawJson<OrderBody>,
        /// `wait=N` if `Prefer: wait=N` was heeded (RFC 7240).
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
    /// The payment is accepted, and the order will be settled.
    #[oai(status = 202)]
    Accepted(
        RawJson<OrderBody>,
        /// Where the order is.
        #[oai(header = "Location")]
        String,
        /// `wait=N` if `Prefer: wait=N` was heeded (RFC 7240).
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
pub enum CancelAnswer {
    /// The order is cancelled: it was before, or the request would rather wait.
    #[oai(status = 200)]
    Cancelled(
        RawJson<OrderBody>,
        /// `wait=N` if `Prefer: wait=N` was heeded (RFC 7240).
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
    /// The order is cancelled by this request.
    #[oai(status = 202)]
    Accepted(
        RawJson<OrderBody>,
        /// Where the order is.
        #[oai(header = "Location")]
        String,
    ),
}

problems!(CreateProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, REQUEST_TIMEOUT, INSUFFICIENT_STOCK, REFERENCE_TAKEN, PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE, UNKNOWN_PRODUCT, TOTAL_TOO_LARGE, IDEMPOTENCY_KEY_REUSED, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED,
    DATABASE_UNAVAILABLE, TIMEOUT);
problems!(FindProblem:
    INVALID_REQUEST, UNAUTHORIZED, NOT_FOUND, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(ListProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(PayProblem:
    INVALID_REQUEST, UNAUTHORIZED, PAYMENT_DECLINED, NOT_FOUND, REQUEST_TIMEOUT, ORDER_FAILED, PAYMENT_REFERENCE_USED,
    PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(CancelProblem:
    INVALID_REQUEST, UNAUTHORIZED, NOT_FOUND, REQUEST_TIMEOUT, ORDER_FAILED, PAYMENT_ACCEPTED, ORDER_PAID,
    PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, DATABASE_UNAVAILABLE, TIMEOUT);
