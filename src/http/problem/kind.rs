//! The types of problem that the API answers with. Their names are part of the contract: add, never change.

use poem::http::StatusCode;

/// Every type of problem that the API answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidRequest,
    Unauthorized,
    PaymentDeclined,
    Forbidden,
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
    TooManyRequests,
    Internal,
    Overloaded,
    DatabaseUnavailable,
    Timeout,
}

impl Kind {
    pub const ALL: [Self; 19] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::PaymentDeclined,
        Self::Forbidden,
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
        Self::TooManyRequests,
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
            Self::Unauthorized => "unauthorized",
            Self::PaymentDeclined => "payment-declined",
            Self::Forbidden => "forbidden",
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
            Self::TooManyRequests => "too-many-requests",
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
            Self::Unauthorized => "It is not known who you are",
            Self::PaymentDeclined => "The payment was declined",
            Self::Forbidden => "You are not allowed to do this",
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
            Self::TooManyRequests => "Too many requests",
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
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::PaymentDeclined => StatusCode::PAYMENT_REQUIRED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::OrderFailed | Self::StockOutOfRange => StatusCode::CONFLICT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UnknownProduct | Self::TotalTooLarge | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded | Self::DatabaseUnavailable | Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
