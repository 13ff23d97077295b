//! Turns every error into a problem document (RFC 9457): those of the shop and those of the framework. What the answer
//! tells is safe to tell; the cause of a 5xx goes to the log alone.

use poem::{
    Response,
    error::ResponseError,
    http::{StatusCode, header},
};
use poem_openapi::{
    Object,
    error::{ContentTypeError, ParseParamError, ParsePathError},
    types::Example,
};
use serde::Serialize;

use crate::domain::Error;

mod kind;

pub use kind::Kind;

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";
/// What every problem's `type` starts with.
pub const TYPE_PREFIX: &str = "urn:shop:problem:";
/// How long a client had better wait after a 503.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A problem document, as in RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
#[oai(rename = "Problem", example)]
pub struct ProblemBody {
    /// Names the type of problem; the README lists them all.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The type in words, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// The path that was asked for.
    pub instance: String,
    /// The single faults, where there can be several.
    #[oai(skip_serializing_if_is_empty)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Example for ProblemBody {
    fn example() -> Self {
        let fault = FieldError {
            pointer: "/items/0/quantity".to_owned(),
            detail: "the value is less than the minimum of 1".to_owned(),
        };
        let mut problem = *Problem::invalid("1 fault in the request", vec![fault]).body;
        "/orders".clone_into(&mut problem.instance);
        problem
    }
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
#[oai(rename = "Fault")]
pub struct FieldError {
    /// Where in the body (JSON Pointer, RFC 6901); `/query/NAME`, `/path/NAME` and `/header/NAME` for what is not in it.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// A problem on its way out.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    /// Boxed, since it travels in the error of many results.
    body: Box<ProblemBody>,
    /// Seconds.
    retry_after: Option<u64>,
    /// For the log alone.
    cause: Option<String>,
    /// A token was sent, and does not hold (RFC 6750, section 3.1).
    invalid_token: bool,
}

impl Problem {
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            body: Box::new(ProblemBody {
                kind: format!("{TYPE_PREFIX}{}", kind.slug()),
                title: kind.title().to_owned(),
                status: kind.status().as_u16(),
                detail: detail.into(),
                instance: String::new(),
                errors: Vec::new(),
            }),
            cause: None,
            invalid_token: false,
            retry_after: (kind.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS),
        }
    }

    #[must_use]
    pub fn invalid(detail: impl Into<String>, errors: Vec<FieldError>) -> Self {
        Self::new(Kind::InvalidRequest, detail).with_errors(errors)
    }

    #[must_use]
    pub fn fault(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let fault = FieldError {
            pointer: pointer.into(),
            detail: detail.clone(),
        };
        Self::invalid(detail, vec![fault])
    }

    /// All that is wrong with a request.
    #[must_use]
    pub fn faults(faults: Vec<FieldError>) -> Self {
        let detail = match faults.len() {
            1 => "the request has a fault".to_owned(),
            count => format!("the request has {count} faults"),
        };
        Self::invalid(detail, faults)
    }

    /// The document, about a request for `path`.
    #[must_use]
    pub fn respond(mut self, path: &str) -> Response {
        path.clone_into(&mut self.body.instance);
        let mut response = Response::builder()
            .status(self.kind.status())
            .content_type(CONTENT_TYPE)
            .header(header::CACHE_CONTROL, "no-store");
        if let Some(seconds) = self.retry_after {
            response = response.header(header::RETRY_AFTER, seconds);
        }
        if self.kind == Kind::Unauthorized {
            let challenge = if self.invalid_token {
                "Bearer realm=\"shop\", error=\"invalid_token\""
            } else {
                "Bearer realm=\"shop\""
            };
            response = response.header(header::WWW_AUTHENTICATE, challenge);
        }
        response.body(serde_json::to_vec(&*self.body).unwrap_or_default())
    }

    /// As the document shows it.
    #[must_use]
    pub fn example(kind: Kind, instance: &str) -> serde_json::Value {
        let example = match kind {
            Kind::InvalidRequest => Box::new(ProblemBody::example()),
            Kind::UnknownProduct => Self::from(Error::UnknownProducts(vec![(1, 9_999)])).body,
            Kind::TotalTooLarge => Self::from(Error::TotalTooLarge).body,
            Kind::IdempotencyKeyReused => Self::from(Error::IdempotencyKeyReused).body,
            Kind::PaymentDeclined => Self::from(Error::PaymentDeclined).body,
            Kind::Overloaded => Self::from(Error::Overloaded).body,
            other => Self::new(other, "what went wrong this time").body,
        };
        let instance = instance.to_owned();
        serde_json::json!(ProblemBody { instance, ..*example })
    }

    #[must_use]
    pub fn invalid_token(mut self) -> Self {
        self.invalid_token = true;
        self
    }

    fn because(mut self, cause: String) -> Self {
        self.cause = Some(cause);
        self
    }

    /// What only the log may tell, and under which status it was answered.
    #[must_use]
    pub fn cause(&self) -> Option<(&str, StatusCode)> {
        Some((self.cause.as_deref()?, self.kind.status()))
    }

    /// How long the client had better wait, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.body.errors = errors;
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::ProductNotFound(_) | Error::OrderNotFound(_) => Self::new(Kind::NotFound, detail),
            Error::UnknownProducts(lines) => {
                let fault = |(place, id): (usize, i64)| FieldError {
                    pointer: format!("/items/{place}/product_id"),
                    detail: format!("there is no product {id}"),
                };
                Self::new(Kind::UnknownProduct, detail).with_errors(lines.into_iter().map(fault).collect())
            }
            Error::TotalTooLarge => Self::new(Kind::TotalTooLarge, detail),
            Error::IdempotencyKeyReused => Self::new(Kind::IdempotencyKeyReused, detail),
            Error::PaymentDeclined => Self::new(Kind::PaymentDeclined, detail),
            Error::StockOutOfRange { .. } => Self::new(Kind::StockOutOfRange, detail),
            Error::OrderFailed(_, failure) => {
                let short = failure
                    .into_iter()
                    .flat_map(|failure| failure.lines)
                    .map(|line| FieldError {
                        pointer: String::new(),
                        detail: format!(
                            "product {}: {} ordered, {} there",
                            line.product_id, line.requested, line.available
                        ),
                    });
                Self::new(Kind::OrderFailed, detail).with_errors(short.collect())
            }
            Error::Forbidden(detail) => Self::new(Kind::Forbidden, detail),
            Error::Overloaded => Self::new(Kind::Overloaded, "too many requests are waiting; try again in a moment"),
            Error::Unavailable(_) | Error::Busy(_) => {
                Self::new(Kind::DatabaseUnavailable, "the database did not answer in time; try again in a moment, with the same Idempotency-Key if there was one").because(detail)
            }
            Error::Internal(_) => Self::new(Kind::Internal, "the cause has been logged").because(detail),
        }
    }
}

/// The framework's own errors.
impl From<&poem::Error> for Problem {
    fn from(error: &poem::Error) -> Self {
        if let Some(error) = error.downcast_ref::<ParsePathError>() {
            return Self::fault(
                "/path/id",
                format!("the id in the path is not valid: {}", cause(&error.reason)),
            );
        }
        if let Some(error) = error.downcast_ref::<ParseParamError>() {
            return Self::fault(
                format!("/query/{}", error.name),
                format!("`{}`: {}", error.name, cause(&error.reason)),
            );
        }
        if error.is::<ContentTypeError>() {
            return Self::new(
                Kind::UnsupportedMediaType,
                "send the body with Content-Type: application/json",
            );
        }
        match error.status() {
            StatusCode::NOT_FOUND => Self::new(Kind::NotFound, "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(Kind::MethodNotAllowed, "this path does not know this method"),
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(Kind::PayloadTooLarge, "the body is larger than 64 KiB"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::new(
                Kind::UnsupportedMediaType,
                "send the body with Content-Type: application/json",
            ),
            status if status.is_client_error() => Self::new(Kind::InvalidRequest, error.to_string()),
            _ => Self::new(Kind::Internal, "the cause has been logged").because(error.to_string()),
        }
    }
}

/// The framework's reason, less its own words for what it was doing.
fn cause(reason: &str) -> &str {
    let reason = reason.strip_prefix("verification failed. ").unwrap_or(reason);
    match reason.split_once(": ") {
        Some((doing, cause)) if doing.starts_with("failed to parse") => cause,
        _ => reason,
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.body.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.kind.status()
    }
}

/// The problem that a request ended in.
#[must_use]
pub fn of(error: &poem::Error) -> Problem {
    let own = error.downcast_ref::<Problem>().cloned();
    own.unwrap_or_else(|| Problem::from(error))
}

/// Declares the error side of an operation: which kinds of problem it can answer with.
macro_rules! problems {
    ($(#[$doc:meta])* $name:ident: $($kind:ident),+ $(,)?) => {
        $(#[$doc])*
        pub struct $name($crate::http::problem::Problem);

        impl $name {
            const KINDS: &'static [$crate::http::problem::Kind] = &[$($crate::http::problem::Kind::$kind),+];
        }

        impl<T: Into<$crate::http::problem::Problem>> From<T> for $name {
            fn from(problem: T) -> Self {
                Self(problem.into())
            }
        }

        impl From<$name> for poem::Error {
            fn from(problem: $name) -> Self {
                problem.0.into()
            }
        }

        impl poem_openapi::ApiResponse for $name {
            fn meta() -> poem_openapi::registry::MetaResponses {
                $crate::http::problem::meta(Self::KINDS)
            }

            fn register(registry: &mut poem_openapi::registry::Registry) {
                <$crate::http::problem::ProblemBody as poem_openapi::types::Type>::register(registry);
            }
        }
    };
}
pub(crate) use problems;

/// What the OpenAPI document says of these kinds: one answer a status.
pub(crate) fn meta(kinds: &[Kind]) -> poem_openapi::registry::MetaResponses {
    use poem_openapi::{
        registry::{MetaMediaType, MetaResponse, MetaResponses},
        types::Type,
    };
    let mut statuses: Vec<u16> = kinds.iter().map(|kind| kind.status().as_u16()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let response = |status: u16| {
        let described: Vec<String> = kinds
            .iter()
            .filter(|kind| kind.status().as_u16() == status)
            .map(|kind| format!("{} (`{TYPE_PREFIX}{}`)", kind.title(), kind.slug()))
            .collect();
        MetaResponse {
            // The document is made once in the life of the process.
            description: described.join("; ").leak(),
            status: Some(status),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: CONTENT_TYPE,
                schema: ProblemBody::schema_ref(),
            }],
            headers: Vec::new(),
        }
    };
    MetaResponses {
        responses: statuses.into_iter().map(response).collect(),
    }
}
