//! The framework's own errors as problems: no route, no such method, a parameter that cannot be parsed.

use poem::http::StatusCode;
use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError};

use super::{
    super::routes::Route,
    Problem,
    types::{INVALID_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, PAYLOAD_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE},
};

impl From<&poem::Error> for Problem {
    fn from(error: &poem::Error) -> Self {
        if let Some(error) = error.downcast_ref::<ParseParamError>() {
            let detail = format!("`{}`: {}", error.name, reason(&error.reason));
            return Self::invalid_field(format!("/query/{}", error.name), detail);
        }
        if error.is::<ContentTypeError>() {
            return not_json();
        }

        match error.status() {
            StatusCode::NOT_FOUND => Self::new(NOT_FOUND, "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => Self::new(METHOD_NOT_ALLOWED, "this path does not know this method"),
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(PAYLOAD_TOO_LARGE, "the body is larger than 64 KiB"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => not_json(),
            status if status.is_client_error() => Self::new(INVALID_REQUEST, error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

/// The problem of a path whose parameter cannot be read, if it is that. The framework counts parameters; the template of
/// the route names them.
pub(crate) fn of_path(error: &poem::Error, route: &Route) -> Option<Problem> {
    let error = error.downcast_ref::<ParsePathError>()?;
    let index = error.name.strip_prefix("param").and_then(|index| index.parse().ok());
    let name = index
        .and_then(|index| route.parameter_name(index))
        .unwrap_or(error.name);

    let detail = format!("the {name} in the path is not valid: {}", reason(&error.reason));
    Some(Problem::invalid_field(format!("/path/{name}"), detail))
}

fn not_json() -> Problem {
    Problem::new(
        UNSUPPORTED_MEDIA_TYPE,
        "send the body with Content-Type: application/json",
    )
}

/// The framework's reason without what it says of its own parsing.
fn reason(text: &str) -> &str {
    let text = text.strip_prefix("verification failed. ").unwrap_or(text);
    match text.split_once(": ") {
        Some((doing, reason)) if doing.starts_with("failed to parse") => reason,
        _ => text,
    }
}
