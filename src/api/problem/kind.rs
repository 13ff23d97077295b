//! The types of problem that the API answers with. Their names are part of the contract: add, never change.

use poem::http::StatusCode;

/// Every type of problem that the API answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidRequest,
    PaymentDeclined,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    OrderFailed,
    StockOutOfRange,
    PayloadTooLarge,
    UnsupportedMediaType,
    UnknownProduct,
    TotalTooLarge,
    IdempotencyKeyReused,
    Internal,
    Overloaded,
    DatabaseUnavailable,
    Timeout,
}

impl Kind {
    pub const ALL: [Self; 16] = [
        Self::InvalidRequest,
        Self::PaymentDeclined,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::OrderFailed,
        Self::StockOutOfRange,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::UnknownProduct,
        Self::TotalTooLarge,
        Self::IdempotencyKeyReused,
        Self::Internal,
        Self::Overloaded,
        Self::DatabaseUnavailable,
        Self::Timeout,
    ];

    /// The last part of the problem's `type`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::PaymentDeclined => "payment-declined",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::OrderFailed => "order-failed",
            Self::StockOutOfRange => "stock-out-of-range",
            Self::PayloadTooLarge => "payload-too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::UnknownProduct => "unknown-product",
            Self::TotalTooLarge => "total-too-large",
            Self::IdempotencyKeyReused => "idempotency-key-reused",
            Self::Internal => "internal",
            Self::Overloaded => "overloaded",
            Self::DatabaseUnavailable => "database-unavailable",
            Self::Timeout => "timeout",
        }
    }

    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is not valid",
            Self::PaymentDeclined => "The payment was declined",
            Self::NotFound => "There is no such thing",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::RequestTimeout => "The request came too slowly",
            Self::OrderFailed => "The order has failed",
            Self::StockOutOfRange => "The stock cannot change by this much",
            Self::PayloadTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body is not JSON",
            Self::UnknownProduct => "A product does not exist",
            Self::TotalTooLarge => "The total is too large",
            Self::IdempotencyKeyReused => "The idempotency key belongs to another request",
            Self::Internal => "Something went wrong here",
            Self::Overloaded => "The shop is busy",
            Self::DatabaseUnavailable => "The shop cannot reach its database",
            Self::Timeout => "The answer took too long",
        }
    }

    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::PaymentDeclined => StatusCode::PAYMENT_REQUIRED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::OrderFailed | Self::StockOutOfRange => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UnknownProduct | Self::TotalTooLarge | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded | Self::DatabaseUnavailable | Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
