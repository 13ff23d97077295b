//! The one place where an error of the shop becomes a problem document, and the types of problem that only a shop
//! knows. Their names are part of the contract: add, never change.

use poem::http::StatusCode;
use serde_json::{Value, json};

pub use crate::http::problem::types::{
    EXPECTATION_FAILED, FORBIDDEN, INTERNAL, INVALID_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, NOT_IMPLEMENTED,
    OVERLOADED, PAYLOAD_TOO_LARGE, REQUEST_TIMEOUT, TIMEOUT, TOO_MANY_REQUESTS, UNAUTHORIZED, UNSUPPORTED_MEDIA_TYPE,
};
use crate::{
    domain::{Error, OrderId, ProductId},
    entities::order::{Failure, FailureReason, ShortLine, StoredFailure},
    http::problem::{FieldError, Problem, types::ProblemType},
};

pub const PAYMENT_DECLINED: ProblemType = ProblemType::new(
    "payment-declined",
    "The payment was declined",
    StatusCode::PAYMENT_REQUIRED,
);
pub const ORDER_FAILED: ProblemType = ProblemType::new("order-failed", "The order has failed", StatusCode::CONFLICT);
pub const INSUFFICIENT_STOCK: ProblemType = ProblemType::new(
    "insufficient-stock",
    "There are not enough units to set aside",
    StatusCode::CONFLICT,
);
pub const PAYMENT_ACCEPTED: ProblemType = ProblemType::new(
    "payment-accepted",
    "The payment was accepted before",
    StatusCode::CONFLICT,
);
pub const ORDER_PAID: ProblemType = ProblemType::new("order-paid", "The order is paid", StatusCode::CONFLICT);
pub const STOCK_OUT_OF_RANGE: ProblemType = ProblemType::new(
    "stock-out-of-range",
    "The stock cannot change by this much",
    StatusCode::CONFLICT,
);
pub const UNKNOWN_PRODUCT: ProblemType = ProblemType::new(
    "unknown-product",
    "A product does not exist",
    StatusCode::UNPROCESSABLE_ENTITY,
);
pub const TOTAL_TOO_LARGE: ProblemType = ProblemType::new(
    "total-too-large",
    "The total is too large",
    StatusCode::UNPROCESSABLE_ENTITY,
);
pub const IDEMPOTENCY_KEY_REUSED: ProblemType = ProblemType::new(
    "idempotency-key-reused",
    "The idempotency key belongs to another request",
    StatusCode::UNPROCESSABLE_ENTITY,
);
pub const CART_CHECKED_OUT: ProblemType =
    ProblemType::new("cart-checked-out", "The cart is checked out", StatusCode::CONFLICT);
pub const CART_EMPTY: ProblemType = ProblemType::new("cart-empty", "The cart is empty", StatusCode::CONFLICT);
pub const CART_FULL: ProblemType = ProblemType::new("cart-full", "The cart is full", StatusCode::CONFLICT);
pub const CARTS_UNAVAILABLE: ProblemType = ProblemType::new(
    "carts-unavailable",
    "The shop cannot reach its carts",
    StatusCode::SERVICE_UNAVAILABLE,
);
pub const DATABASE_UNAVAILABLE: ProblemType = ProblemType::new(
    "database-unavailable",
    "The shop cannot reach its database",
    StatusCode::SERVICE_UNAVAILABLE,
);

/// Every type of problem that the API answers with.
pub const ALL: [ProblemType; 28] = [
    INVALID_REQUEST,
    UNAUTHORIZED,
    PAYMENT_DECLINED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    REQUEST_TIMEOUT,
    ORDER_FAILED,
    INSUFFICIENT_STOCK,
    PAYMENT_ACCEPTED,
    ORDER_PAID,
    STOCK_OUT_OF_RANGE,
    CART_CHECKED_OUT,
    CART_EMPTY,
    CART_FULL,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    EXPECTATION_FAILED,
    UNKNOWN_PRODUCT,
    TOTAL_TOO_LARGE,
    IDEMPOTENCY_KEY_REUSED,
    TOO_MANY_REQUESTS,
    INTERNAL,
    NOT_IMPLEMENTED,
    OVERLOADED,
    CARTS_UNAVAILABLE,
    DATABASE_UNAVAILABLE,
    TIMEOUT,
];

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::ProductNotFound(_) | Error::OrderNotFound(_) | Error::CartNotFound => Self::new(NOT_FOUND, detail),
            Error::CartFull => Self::new(CART_FULL, detail),
            Error::CartEmpty => Self::new(CART_EMPTY, detail),
            Error::CartCheckedOut | Error::CartOfAnotherOrder => Self::new(CART_CHECKED_OUT, detail),
            Error::UnknownProduct(_) => unknown_product("/path/product_id", detail),
            Error::ProductsGone(ids) => Self::new(UNKNOWN_PRODUCT, detail).with_errors(products_gone(ids)),
            Error::CartsUnavailable(_) => Self::new(
                CARTS_UNAVAILABLE,
                "carts are not available now; try again in a moment. A checkout may be sent again: a cart becomes one order",
            )
            .with_cause(detail),
            Error::UnknownProducts(lines) => Self::new(UNKNOWN_PRODUCT, detail).with_errors(unknown_products(lines)),
            Error::TotalTooLarge => Self::new(TOTAL_TOO_LARGE, detail),
            Error::IdempotencyKeyReused => Self::new(IDEMPOTENCY_KEY_REUSED, detail),
            Error::PaymentDeclined => Self::new(PAYMENT_DECLINED, detail),
            Error::StockOutOfRange { .. } => Self::new(STOCK_OUT_OF_RANGE, detail),
            Error::InsufficientStock(lines) => Self::new(INSUFFICIENT_STOCK, detail).with_extension("lines", &lines),
            Error::PaymentAccepted(_) => Self::new(PAYMENT_ACCEPTED, detail),
            Error::OrderPaid(_) => Self::new(ORDER_PAID, detail),
            Error::OrderFailed(_, failure) => order_failed(detail, failure),
            Error::Forbidden(detail) => Self::new(FORBIDDEN, detail),
            Error::Overloaded => Self::new(OVERLOADED, "too many requests are waiting; try again in a moment"),
            Error::Unavailable(_) | Error::Reconnect(_) | Error::Busy(_) => Self::new(
                DATABASE_UNAVAILABLE,
                "the database did not answer in time; try again in a moment, with the same Idempotency-Key if there \
                 was one",
            )
            .with_cause(detail),
            Error::Internal(_) => Self::internal(detail),
        }
    }
}

fn unknown_products(lines: Vec<(usize, i64)>) -> Vec<FieldError> {
    let field_error = |(index, id)| FieldError {
        pointer: format!("/items/{index}/product_id"),
        detail: format!("there is no product {id}"),
    };
    lines.into_iter().map(field_error).collect()
}

/// The problem carries the failure as the order does, so that nobody has to fetch the order, or to read the detail.
fn order_failed(detail: String, failure: Option<StoredFailure>) -> Problem {
    let problem = Problem::new(ORDER_FAILED, detail);
    match failure {
        Some(failure) => problem.with_extension("failure", &failure),
        None => problem,
    }
}

fn unknown_product(pointer: &str, detail: String) -> Problem {
    let error = FieldError {
        pointer: pointer.to_owned(),
        detail: detail.clone(),
    };
    Problem::new(UNKNOWN_PRODUCT, detail).with_errors(vec![error])
}

fn products_gone(ids: Vec<ProductId>) -> Vec<FieldError> {
    let field_error = |id| FieldError {
        pointer: String::new(),
        detail: format!("there is no product {id}"),
    };
    ids.into_iter().map(field_error).collect()
}

/// The order of the examples.
pub const EXAMPLE_ORDER: OrderId = uuid::uuid!("019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11");

/// A problem of this type as the document shows it.
pub fn example(kind: ProblemType, instance: &str) -> Value {
    let problem = match kind {
        UNKNOWN_PRODUCT => Error::UnknownProducts(vec![(1, 9_999)]).into(),
        TOTAL_TOO_LARGE => Error::TotalTooLarge.into(),
        IDEMPOTENCY_KEY_REUSED => Error::IdempotencyKeyReused.into(),
        PAYMENT_DECLINED => Error::PaymentDeclined.into(),
        INSUFFICIENT_STOCK => Error::InsufficientStock(vec![ShortLine {
            product_id: 1,
            requested: 4,
            available: 3,
        }])
        .into(),
        PAYMENT_ACCEPTED => Error::PaymentAccepted(EXAMPLE_ORDER).into(),
        ORDER_PAID => Error::OrderPaid(EXAMPLE_ORDER).into(),
        ORDER_FAILED => {
            let failure = Failure {
                reason: FailureReason::Expired,
                lines: Vec::new(),
            };
            Error::OrderFailed(EXAMPLE_ORDER, Some(failure.into())).into()
        }
        OVERLOADED => Error::Overloaded.into(),
        CART_CHECKED_OUT => Error::CartCheckedOut.into(),
        CART_EMPTY => Error::CartEmpty.into(),
        CART_FULL => Error::CartFull.into(),
        CARTS_UNAVAILABLE => Error::CartsUnavailable(String::new()).into(),
        INVALID_REQUEST => {
            let error = FieldError {
                pointer: "/items/0/quantity".to_owned(),
                detail: "the value is less than the minimum of 1".to_owned(),
            };
            Problem::new(kind, "1 fault in the request").with_errors(vec![error])
        }
        other => Problem::new(other, "what went wrong this time"),
    };

    json!(problem.body(instance))
}
