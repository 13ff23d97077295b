//! The one place where an error of the shop becomes a problem document, and the types of problem that only a shop
//! knows. Their names are part of the contract: add, never change.

use poem::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

pub use crate::http::problem::types::{
    EXPECTATION_FAILED, FORBIDDEN, INTERNAL, INVALID_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, NOT_IMPLEMENTED,
    OVERLOADED, PAYLOAD_TOO_LARGE, PRECONDITION_FAILED, REQUEST_TIMEOUT, TIMEOUT, TOO_MANY_REQUESTS, UNAUTHORIZED,
    UNSUPPORTED_MEDIA_TYPE,
};
use crate::{
    api::refused::RefusedLineBody,
    domain::{Error, OrderId, ProductId, refunds::Excess},
    entities::order::{Failure, FailureReason, ShortLine, StoredFailure},
    http::problem::{FieldError, MAX_ERRORS, Problem, types::ProblemType},
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
pub const STOCK_CHANGED: ProblemType = ProblemType::new(
    "stock-changed",
    "The stock is not what you expect",
    StatusCode::CONFLICT,
);
pub const SKU_TAKEN: ProblemType = ProblemType::new("sku-taken", "Another product has this SKU", StatusCode::CONFLICT);
pub const REFERENCE_TAKEN: ProblemType = ProblemType::new(
    "reference-taken",
    "Another order has this reference",
    StatusCode::CONFLICT,
);
pub const PAYMENT_REFERENCE_USED: ProblemType = ProblemType::new(
    "payment-reference-used",
    "The charge has paid another order",
    StatusCode::CONFLICT,
);
pub const ORDER_NOT_PAID: ProblemType =
    ProblemType::new("order-not-paid", "The order is not paid", StatusCode::CONFLICT);
pub const REFUND_EXCEEDS_PAYMENT: ProblemType = ProblemType::new(
    "refund-exceeds-payment",
    "The refund is more than is left of the payment",
    StatusCode::CONFLICT,
);
pub const UNKNOWN_PRODUCT: ProblemType = ProblemType::new(
    "unknown-product",
    "A product does not exist, or is not for sale",
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
pub const ALL: [ProblemType; 35] = [
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
    REFERENCE_TAKEN,
    PAYMENT_REFERENCE_USED,
    ORDER_NOT_PAID,
    REFUND_EXCEEDS_PAYMENT,
    STOCK_OUT_OF_RANGE,
    CART_CHECKED_OUT,
    CART_EMPTY,
    CART_FULL,
    STOCK_CHANGED,
    SKU_TAKEN,
    PRECONDITION_FAILED,
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
            Error::InsufficientStock(lines) => Self::new(INSUFFICIENT_STOCK, detail).with_extension("lines", &lines),
            Error::PaymentAccepted(_) => Self::new(PAYMENT_ACCEPTED, detail),
            Error::OrderPaid(_) => Self::new(ORDER_PAID, detail),
            Error::ProductChanged(_) => Self::new(PRECONDITION_FAILED, detail),
            Error::SkuTaken(_) => Self::new(SKU_TAKEN, detail),
            Error::StockChanged { stock, .. } => Self::new(STOCK_CHANGED, detail).with_extension("stock", &stock),
            Error::StockOutOfRange { stock, held, .. } => Self::new(STOCK_OUT_OF_RANGE, detail)
                .with_extension("stock", &stock)
                .with_extension("available", &(stock - held)),
            Error::StockChangesRefused(refused) => stock_changes_refused(detail, &refused),
            Error::OrderFailed(_, failure) => order_failed(detail, failure),
            Error::ReferenceTaken(id) => Self::new(REFERENCE_TAKEN, detail).with_extension("order_id", &id),
            Error::PaymentReferenceUsed(_) => Self::new(PAYMENT_REFERENCE_USED, detail),
            Error::OrderNotPaid(_) => Self::new(ORDER_NOT_PAID, detail),
            Error::RefundExceedsPayment(excess) => refund_exceeds_payment(detail, &excess),
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
        detail: format!("there is no product {id} for sale"),
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
/// Every line that does not hold, whatever is wrong with it. An unknown product counts for more than a stock that changed,
/// and that for more than one that would be out of range.
fn stock_changes_refused(detail: String, refused: &[(usize, Error)]) -> Problem {
    let kinds = [UNKNOWN_PRODUCT, STOCK_CHANGED, STOCK_OUT_OF_RANGE];
    let lines = refused.iter().filter_map(|(index, error)| {
        let (kind, field, product_id, stock) = match error {
            Error::ProductNotFound(id) => (UNKNOWN_PRODUCT, "/product_id", *id, None),
            Error::StockChanged { id, stock, .. } => (STOCK_CHANGED, "/expected_stock", *id, Some(*stock)),
            Error::StockOutOfRange { id, stock, .. } => (STOCK_OUT_OF_RANGE, "", *id, Some(*stock)),
            _ => return None,
        };
        let field_error = FieldError {
            pointer: format!("/{index}{field}"),
            detail: error.to_string(),
        };
        let line = RefusedLineBody {
            line: *index as u64,
            product_id,
            problem: kind.slug.to_owned(),
            stock,
        };
        Some((field_error, line))
    });
    let (mut errors, lines): (Vec<FieldError>, Vec<RefusedLineBody>) = lines.unzip();
    errors.truncate(MAX_ERRORS);

    let found = |kind: &ProblemType| lines.iter().any(|line| line.problem == kind.slug);
    let kind = kinds.into_iter().find(found).unwrap_or(STOCK_OUT_OF_RANGE);
    Problem::new(kind, detail)
        .with_errors(errors)
        .with_extension("refused", &lines)
}

fn refund_exceeds_payment(detail: String, excess: &Excess) -> Problem {
    let amount = excess.exceeds_refundable.then(|| FieldError {
        pointer: "/amount".to_owned(),
        detail: format!("{} can be refunded", excess.refundable),
    });
    let items = excess.items.iter().map(|item| FieldError {
        pointer: format!("/items/{}/quantity", item.index),
        detail: format!(
            "{} units of product {} can be refunded",
            item.refundable, item.product_id
        ),
    });

    Problem::new(REFUND_EXCEEDS_PAYMENT, detail)
        .with_errors(amount.into_iter().chain(items).collect())
        .with_extension("refundable", &excess.refundable)
}

/// A problem of this type as the document shows it.
pub fn example(kind: ProblemType, instance: &str) -> Value {
    let problem = match kind {
        UNKNOWN_PRODUCT => Error::UnknownProducts(vec![(1, 9_999)]).into(),
        REFERENCE_TAKEN => Error::ReferenceTaken(EXAMPLE_ORDER).into(),
        PAYMENT_REFERENCE_USED => Error::PaymentReferenceUsed("ch_3PqL8x".to_owned()).into(),
        STOCK_CHANGED => stock_changed().into(),
        REFUND_EXCEEDS_PAYMENT => refund_too_large().into(),
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

fn refund_too_large() -> Error {
    Error::RefundExceedsPayment(Box::new(Excess {
        order_id: Uuid::nil(),
        refundable: 3_680,
        exceeds_refundable: true,
        items: Vec::new(),
    }))
}

fn stock_changed() -> Error {
    Error::StockChanged {
        id: 1,
        stock: 279,
        expected: 300,
    }
}
