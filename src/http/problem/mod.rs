//! Problem documents (RFC 9457): what every request that fails is answered with. What the answer says is safe to say;
//! the cause of a 5xx goes to the log alone.

use poem::{
    Response,
    error::ResponseError,
    http::{StatusCode, header},
};
use poem_openapi::Object;
use serde::Serialize;
use serde_json::{Map, Value};

mod document;
mod framework;
pub mod types;

pub(crate) use document::{problems, responses};
use types::{INVALID_REQUEST, ProblemType};

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";
/// What every problem's `type` starts with.
pub const TYPE_PREFIX: &str = "urn:shop:problem:";
/// How long a client should wait after a 503, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A problem document, as in RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
#[oai(rename = "Problem")]
pub struct ProblemBody {
    /// Names the type of problem; the documentation lists them all.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The type in words, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// The single faults, where there can be several.
    #[oai(skip_serializing_if_is_empty)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Further members that a type of problem has (RFC 9457, section 3.2).
    #[oai(skip)]
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
#[oai(rename = "Fault")]
pub struct FieldError {
    /// Where in the body (JSON Pointer, RFC 6901). Elsewhere it is `/query/NAME`, `/path/NAME` or `/header/NAME`.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// A problem that has not been answered yet.
#[derive(Clone, Debug)]
#[must_use]
pub struct Problem {
    kind: ProblemType,
    /// Boxed, since it travels in the error of many results.
    body: Box<ProblemBody>,
    /// Seconds.
    retry_after: Option<u64>,
    /// The `WWW-Authenticate` of a 401 (RFC 9110, section 11.6.1).
    challenge: Option<&'static str>,
    /// For the log alone.
    cause: Option<String>,
}

impl Problem {
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind,
            body: Box::new(ProblemBody {
                kind: format!("{TYPE_PREFIX}{}", kind.slug),
                title: kind.title.to_owned(),
                status: kind.status.as_u16(),
                detail: detail.into(),
                instance: String::new(),
                errors: Vec::new(),
                extensions: Map::new(),
            }),
            retry_after: (kind.status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS),
            challenge: None,
            cause: None,
        }
    }

    /// The request has this one fault.
    pub fn invalid_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let error = FieldError {
            pointer: pointer.into(),
            detail: detail.clone(),
        };

        Self::new(INVALID_REQUEST, detail).with_errors(vec![error])
    }

    /// The request has all of these faults.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "the request has a fault".to_owned(),
            count => format!("the request has {count} faults"),
        };

        Self::new(INVALID_REQUEST, detail).with_errors(errors)
    }

    /// A fault of ours; only the log says which.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self::new(types::INTERNAL, "the cause has been logged").with_cause(cause)
    }

    /// The problem that a request ended in.
    pub fn of(error: &poem::Error) -> Self {
        let own = error.downcast_ref::<Self>().cloned();
        own.unwrap_or_else(|| Self::from(error))
    }

    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.body.errors = errors;
        self
    }

    /// Adds a member that only this type of problem has.
    pub fn with_extension(mut self, name: &str, value: Value) -> Self {
        self.body.extensions.insert(name.to_owned(), value);
        self
    }

    /// Says how long the client should wait, in seconds.
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Says how to authenticate.
    pub fn with_challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Notes what only the log may say.
    pub fn with_cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What only the log may say.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The document, about a request for `path`.
    pub fn body(mut self, path: &str) -> ProblemBody {
        path.clone_into(&mut self.body.instance);
        *self.body
    }

    /// The answer to a request for `path`.
    pub fn respond(self, path: &str) -> Response {
        let mut response = Response::builder()
            .status(self.kind.status)
            .content_type(CONTENT_TYPE)
            .header(header::CACHE_CONTROL, "no-store");
        if let Some(seconds) = self.retry_after {
            response = response.header(header::RETRY_AFTER, seconds);
        }
        if let Some(challenge) = self.challenge {
            response = response.header(header::WWW_AUTHENTICATE, challenge);
        }

        response.body(serde_json::to_vec(&self.body(path)).unwrap_or_default())
    }
}

/// An answer that cannot be written as JSON is a fault of ours.
impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error.to_string())
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
        self.kind.status
    }
}
