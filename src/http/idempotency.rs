//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): makes it safe to send a request again.

use poem::{Request, http::HeaderMap};
use poem_openapi::registry::MetaSchema;

use super::{
    header::FromHeader,
    problem::{FieldError, Problem},
};

const NAME: &str = "Idempotency-Key";
/// The longest key, in characters.
const MAX_LENGTH: usize = 255;

/// One key of up to 255 visible ASCII characters, if the request has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl IdempotencyKey {
    /// Reads the key as it was sent. The framework would ignore a key that is not ASCII, and the client would believe
    /// that the request is safe to repeat.
    ///
    /// # Errors
    /// There are several keys, or the key has another form.
    pub fn read(headers: &HeaderMap) -> Result<Self, FieldError> {
        let mut keys = headers.get_all(NAME).iter();
        let (Some(key), another) = (keys.next(), keys.next()) else {
            return Ok(Self(None));
        };

        let visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
        if another.is_none()
            && visible
            && (1..=MAX_LENGTH).contains(&key.len())
            && let Ok(key) = key.to_str()
        {
            return Ok(Self(Some(key.to_owned())));
        }

        Err(FieldError {
            pointer: format!("/header/{NAME}"),
            detail: format!("`{NAME}` must be one key of 1 to {MAX_LENGTH} visible ASCII characters"),
        })
    }
}

/// A key without which the request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredIdempotencyKey(pub String);

impl RequiredIdempotencyKey {
    /// # Errors
    /// As [`IdempotencyKey::read`], and there is no key.
    pub fn read(headers: &HeaderMap) -> Result<Self, FieldError> {
        let IdempotencyKey(key) = IdempotencyKey::read(headers)?;
        key.map(Self).ok_or_else(|| FieldError {
            pointer: format!("/header/{NAME}"),
            detail: format!("`{NAME}` is missing: without it, sending the request again could do it twice"),
        })
    }
}

impl FromHeader for RequiredIdempotencyKey {
    const IS_REQUIRED: bool = true;

    fn schema() -> MetaSchema {
        IdempotencyKey::schema()
    }

    fn from_request(request: &Request) -> Result<Self, Problem> {
        Self::read(request.headers()).map_err(|error| Problem::invalid_fields(vec![error]))
    }
}

impl FromHeader for IdempotencyKey {
    fn schema() -> MetaSchema {
        MetaSchema {
            min_length: Some(1),
            max_length: Some(MAX_LENGTH),
            pattern: Some("^[!-~]+$".to_owned()),
            ..MetaSchema::new("string")
        }
    }

    fn from_request(request: &Request) -> Result<Self, Problem> {
        Self::read(request.headers()).map_err(|error| Problem::invalid_fields(vec![error]))
    }
}
