//! The types of problem that any HTTP service answers with. Their names are part of the contract: add, never change.
//! Those that only a shop knows stand in `api::errors`.

use poem::http::StatusCode;

/// What every problem's `type` starts with.
const TYPE_PREFIX: &str = "urn:shop:problem:";

/// One type of problem (RFC 9457, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemType {
    /// The last part of the problem's `type`.
    pub slug: &'static str,
    pub title: &'static str,
    pub status: StatusCode,
}

impl ProblemType {
    pub const fn new(slug: &'static str, title: &'static str, status: StatusCode) -> Self {
        Self { slug, title, status }
    }

    /// What the member `type` of such a problem says.
    pub fn uri(&self) -> String {
        format!("{TYPE_PREFIX}{}", self.slug)
    }
}

pub const INVALID_REQUEST: ProblemType =
    ProblemType::new("invalid-request", "The request is not valid", StatusCode::BAD_REQUEST);
pub const UNAUTHORIZED: ProblemType =
    ProblemType::new("unauthorized", "It is not known who you are", StatusCode::UNAUTHORIZED);
pub const FORBIDDEN: ProblemType =
    ProblemType::new("forbidden", "You are not allowed to do this", StatusCode::FORBIDDEN);
pub const NOT_FOUND: ProblemType = ProblemType::new("not-found", "There is no such thing", StatusCode::NOT_FOUND);
pub const METHOD_NOT_ALLOWED: ProblemType = ProblemType::new(
    "method-not-allowed",
    "The method is not allowed here",
    StatusCode::METHOD_NOT_ALLOWED,
);
pub const REQUEST_TIMEOUT: ProblemType = ProblemType::new(
    "request-timeout",
    "The request came too slowly",
    StatusCode::REQUEST_TIMEOUT,
);
pub const PRECONDITION_FAILED: ProblemType = ProblemType::new(
    "precondition-failed",
    "It is not as If-Match says",
    StatusCode::PRECONDITION_FAILED,
);
pub const PAYLOAD_TOO_LARGE: ProblemType = ProblemType::new(
    "payload-too-large",
    "The body is too large",
    StatusCode::PAYLOAD_TOO_LARGE,
);
pub const UNSUPPORTED_MEDIA_TYPE: ProblemType = ProblemType::new(
    "unsupported-media-type",
    "The body is not JSON",
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
);
pub const EXPECTATION_FAILED: ProblemType = ProblemType::new(
    "expectation-failed",
    "The expectation is not understood",
    StatusCode::EXPECTATION_FAILED,
);
pub const TOO_MANY_REQUESTS: ProblemType =
    ProblemType::new("too-many-requests", "Too many requests", StatusCode::TOO_MANY_REQUESTS);
pub const INTERNAL: ProblemType = ProblemType::new(
    "internal",
    "Something went wrong here",
    StatusCode::INTERNAL_SERVER_ERROR,
);
pub const NOT_IMPLEMENTED: ProblemType = ProblemType::new(
    "not-implemented",
    "The transfer coding is not understood",
    StatusCode::NOT_IMPLEMENTED,
);
pub const OVERLOADED: ProblemType = ProblemType::new("overloaded", "The shop is busy", StatusCode::SERVICE_UNAVAILABLE);
pub const TIMEOUT: ProblemType =
    ProblemType::new("timeout", "The answer took too long", StatusCode::SERVICE_UNAVAILABLE);
