//! Problem documents (RFC 9457): what every request that fails is answered with. What the answer says is safe to say;
//! the cause of a 5xx goes to the log alone.

use poem::{
    Response,
    error::ResponseError,
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::Object;
use serde::Serialize;
use serde_json::{Map, Value};

mod document;
mod framework;
mod instance;
pub mod pointer;
pub mod types;

pub(crate) use document::{problems, responses};
pub(super) use framework::of_path;
use types::{INVALID_REQUEST, ProblemType};

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";
/// The most faults that one answer lists.
pub const MAX_ERRORS: usize = 100;
/// How long a client should wait after a 503, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A problem document, as in RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
#[oai(rename = "Problem")]
pub struct ProblemBody {
    /// Names the type of problem. Others may be added: go by `status` where you do not know the type.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The type in words, the same for every occurrence.
    #[oai(validator(max_length = 100))]
    pub title: String,
    /// The HTTP status.
    #[oai(validator(minimum(value = "400"), maximum(value = "599")))]
    pub status: u16,
    /// What went wrong this time, for people to read.
    #[oai(validator(max_length = 131_072))]
    pub detail: String,
    /// The path of the request, as a URI reference (RFC 3986).
    #[oai(validator(max_length = 393_216, pattern = "^/[!-~]*$"))]
    pub instance: String,
    /// The single faults, where there can be several.
    #[oai(skip_serializing_if_is_empty, validator(max_items = 100))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What only this type of problem has (RFC 9457, section 3.2). `api` adds it to the document.
    #[oai(skip)]
    #[serde(flatten)]
    pub extensions: Map<String, Value>,
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Object, Serialize)]
#[oai(rename = "FieldError")]
pub struct FieldError {
    /// Where in the body (JSON Pointer, RFC 6901). Elsewhere it is `/query/NAME`, `/path/NAME` or `/header/NAME`.
    #[oai(validator(max_length = 131_072, pattern = "^(/[^/]*)*$"))]
    pub pointer: String,
    /// What is wrong there, for people to read.
    #[oai(validator(max_length = 131_072))]
    pub detail: String,
}

/// Headers that an answer has beside those of its kind. They travel in the data of a [`poem::Error`] too.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// A problem that has not been answered yet.
#[derive(Clone, Debug)]
#[must_use]
pub struct Problem {
    kind: ProblemType,
    /// Boxed, since it travels in the error of many results.
    body: Box<ProblemBody>,
    headers: Headers,
    /// For the log alone.
    cause: Option<String>,
}

impl Problem {
    pub fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        let problem = Self {
            kind,
            body: Box::new(ProblemBody {
                kind: kind.uri(),
                title: kind.title.to_owned(),
                status: kind.status.as_u16(),
                detail: detail.into(),
                instance: String::new(),
                errors: Vec::new(),
                extensions: Map::new(),
            }),
            headers: Headers::new(),
            cause: None,
        };
        match kind.status {
            StatusCode::SERVICE_UNAVAILABLE => problem.with_retry_after(RETRY_AFTER_SECONDS),
            _ => problem,
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

    /// The request has all of these faults. Of very many the answer lists the first.
    pub fn invalid_fields(mut errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "the request has a fault".to_owned(),
            count if count > MAX_ERRORS => format!("the request has more than {MAX_ERRORS} faults"),
            count => format!("the request has {count} faults"),
        };
        errors.truncate(MAX_ERRORS);

        Self::new(INVALID_REQUEST, detail).with_errors(errors)
    }

    /// A fault of ours; only the log says which.
    pub fn internal(cause: impl Into<String>) -> Self {
        Self::new(types::INTERNAL, "the cause has been logged").with_cause(cause)
    }

    /// The problem that a request ended in.
    pub fn of(error: &poem::Error) -> Self {
        let own = error.downcast_ref::<Self>().cloned();
        let mut problem = own.unwrap_or_else(|| Self::from(error));
        problem
            .headers
            .extend(error.data::<Headers>().into_iter().flatten().cloned());
        problem
    }

    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.body.errors = errors;
        self
    }

    /// Adds an extension member: something that a program can act on, beside what `detail` says in words.
    pub fn with_extension(mut self, name: &str, value: &impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.body.extensions.insert(name.to_owned(), value);
        self
    }

    /// Says how long the client should wait, in seconds.
    pub fn with_retry_after(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, seconds.into())
    }

    /// Says how to authenticate (RFC 9110, section 11.6.1).
    pub fn with_challenge(self, challenge: &'static str) -> Self {
        self.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// Adds headers to the answer.
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Adds a header to the answer, in place of one of the same name.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value));
        self
    }

    /// Notes what only the log may say.
    pub fn with_cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub fn kind(&self) -> ProblemType {
        self.kind
    }

    /// What only the log may say.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The document, about a request for `path`.
    pub fn body(mut self, path: &str) -> ProblemBody {
        self.body.instance = instance::reference(path);
        *self.body
    }

    /// The answer to a request for `path`.
    pub fn respond(self, path: &str) -> Response {
        let mut response = Response::builder()
            .status(self.kind.status)
            .content_type(CONTENT_TYPE)
            .header(header::CACHE_CONTROL, "no-store");
        for (name, value) in &self.headers {
            response = response.header(name, value);
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
