//! The answers of the operations on carts, as the document describes them, and the problems that each can end in.

use poem_openapi::ApiResponse;

use super::bodies::CartBody;
use crate::{
    api::{
        errors::{
            CART_CHECKED_OUT, CART_EMPTY, CART_FULL, CARTS_UNAVAILABLE, DATABASE_UNAVAILABLE, FORBIDDEN,
            INSUFFICIENT_STOCK, INTERNAL, INVALID_REQUEST, NOT_FOUND, OVERLOADED, PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT,
            TIMEOUT, TOO_MANY_REQUESTS, TOTAL_TOO_LARGE, UNAUTHORIZED, UNKNOWN_PRODUCT, UNSUPPORTED_MEDIA_TYPE,
        },
        orders::bodies::OrderBody,
    },
    http::{json::RawJson, problem::problems},
};

#[derive(ApiResponse)]
pub enum CreateAnswer {
    /// The cart is there, and empty.
    #[oai(status = 201)]
    Created(
        RawJson<CartBody>,
        /// Where the cart is.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(ApiResponse)]
pub enum CartAnswer {
    /// The cart as it is now.
    #[oai(status = 200)]
    Cart(RawJson<CartBody>),
}

#[derive(ApiResponse)]
pub enum CheckoutAnswer {
    /// The order that the cart became, now or before.
    #[oai(status = 201)]
    Created(
        RawJson<OrderBody>,
        /// Where the order is.
        #[oai(header = "Location")]
        String,
        /// `true` when the cart became this order before.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

problems!(CreateProblem:
    INVALID_REQUEST, UNAUTHORIZED, REQUEST_TIMEOUT, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, CARTS_UNAVAILABLE, TIMEOUT);
problems!(FindProblem:
    INVALID_REQUEST, UNAUTHORIZED, NOT_FOUND, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, CARTS_UNAVAILABLE,
    DATABASE_UNAVAILABLE, TIMEOUT);
problems!(PutProblem:
    INVALID_REQUEST, UNAUTHORIZED, NOT_FOUND, REQUEST_TIMEOUT, CART_CHECKED_OUT, CART_FULL, PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE, UNKNOWN_PRODUCT, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED, CARTS_UNAVAILABLE,
    DATABASE_UNAVAILABLE, TIMEOUT);
problems!(RemoveProblem:
    INVALID_REQUEST, UNAUTHORIZED, NOT_FOUND, CART_CHECKED_OUT, TOO_MANY_REQUESTS, INTERNAL, OVERLOADED,
    CARTS_UNAVAILABLE, DATABASE_UNAVAILABLE, TIMEOUT);
problems!(CheckoutProblem:
    INVALID_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, REQUEST_TIMEOUT, INSUFFICIENT_STOCK, CART_CHECKED_OUT, CART_EMPTY,
    PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, UNKNOWN_PRODUCT, TOTAL_TOO_LARGE, TOO_MANY_REQUESTS, INTERNAL,
    OVERLOADED, CARTS_UNAVAILABLE, DATABASE_UNAVAILABLE, TIMEOUT);
