//! JSON in and out. A request's body is validated against the schema that the OpenAPI document publishes for it, and
//! all its faults are answered at once. Answers are bytes that were made beforehand.

use std::marker::PhantomData;

use bytes::Bytes;
use poem::{
    FromRequest, IntoResponse, Request, RequestBody, Response,
    http::{HeaderValue, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    error::ContentTypeError,
    payload::Payload,
    registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry},
    types::{ParseFromJSON, Type},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    body,
    negotiation::elements,
    problem::{FieldError, Problem, pointer::escaped, types::UNSUPPORTED_MEDIA_TYPE},
    strict_json::StrictJson,
    validation::{self, ExtraValidation},
};

const JSON: &str = "application/json";

/// A body that fits its schema and breaks none of the rules of [`ExtraValidation`].
pub struct ValidJson<T>(pub T);

impl<T: ParseFromJSON> Payload for ValidJson<T> {
    const CONTENT_TYPE: &'static str = JSON;

    fn check_content_type(content_type: &str) -> bool {
        is_json(content_type)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<'a, T: ParseFromJSON + ExtraValidation + 'static> ApiExtractor<'a> for ValidJson<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Self as Payload>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType {
                content_type: JSON,
                schema: T::schema_ref(),
            }],
            required: !T::BODY_OPTIONAL,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        let bytes = body::read(request, body, T::MAX_BODY).await?;
        if bytes.is_empty() && T::BODY_OPTIONAL {
            return Ok(Self(validation::parse(request.headers(), StrictJson::empty())?));
        }

        let body = parse(request, &bytes)?;
        Ok(Self(validation::parse(request.headers(), body)?))
    }
}

/// The body of an operation that takes none: nothing, or an empty object. Whoever sends more believes that it is heeded.
pub struct NoBody;

impl<'a> FromRequest<'a> for NoBody {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let bytes = body::read(request, body, body::MAX_BODY).await?;
        if bytes.is_empty() {
            return Ok(Self);
        }

        let Value::Object(fields) = parse(request, &bytes)?.value else {
            return Err(Problem::invalid_field("", "the body must be empty, or an empty object").into());
        };
        if fields.is_empty() {
            return Ok(Self);
        }
        let unknown = fields.keys().map(|name| FieldError {
            pointer: format!("/{}", escaped(name)),
            detail: "there is no such field".to_owned(),
        });
        Err(Problem::invalid_fields(unknown.collect()).into())
    }
}

/// The body of a request that has one, as JSON.
fn parse(request: &Request, bytes: &Bytes) -> poem::Result<StrictJson> {
    check_encoding(request)?;
    check_content_type(request, bytes)?;
    if bytes.is_empty() {
        return Err(Problem::invalid_field("", "the body is missing").into());
    }
    let parsed = StrictJson::parse(bytes);
    Ok(parsed.map_err(|error| Problem::invalid_field("", format!("the body is not valid JSON: {error}")))?)
}

/// Content codings are the same in any case (RFC 9110, section 8.4.1). What is not ASCII is none.
fn check_encoding(request: &Request) -> Result<(), Problem> {
    let mut lines = request.headers().get_all(header::CONTENT_ENCODING).iter().peekable();
    if lines.peek().is_none() {
        return Ok(());
    }

    let are_ascii = lines.all(|line| line.to_str().is_ok());
    let mut codings = elements(request.headers(), "content-encoding");
    if are_ascii && codings.all(|coding| coding.eq_ignore_ascii_case("identity")) {
        return Ok(());
    }
    let detail = "send the body as it is, without Content-Encoding";
    let accepted = HeaderValue::from_static("identity");
    Err(Problem::new(UNSUPPORTED_MEDIA_TYPE, detail).with_header(header::ACCEPT_ENCODING, accepted))
}

fn check_content_type(request: &Request, bytes: &Bytes) -> Result<(), ContentTypeError> {
    // Of two types, another reader may believe the other one.
    let is_one = request.headers().get_all(header::CONTENT_TYPE).iter().nth(1).is_none();
    match request.content_type() {
        Some(content_type) if is_one && is_json(content_type) => Ok(()),
        Some(content_type) => Err(ContentTypeError::NotSupported {
            content_type: content_type.to_owned(),
        }),
        // A missing body is named before its missing type.
        None if bytes.is_empty() => Ok(()),
        None => Err(ContentTypeError::ExpectContentType),
    }
}

/// `application/json`, or a type that is built on it, such as `application/vnd.example+json` (RFC 6839).
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(JSON) {
        return true;
    }

    let essence = essence.to_ascii_lowercase();
    let name = essence.strip_prefix("application/");
    name.and_then(|name| name.strip_suffix("+json"))
        .is_some_and(|name| !name.is_empty())
}

/// An answer of type `T` as bytes.
pub struct RawJson<T> {
    body: Bytes,
    of: PhantomData<fn() -> T>,
}

impl<T> RawJson<T> {
    pub fn new(body: Bytes) -> Self {
        Self { body, of: PhantomData }
    }
}

impl<T: Serialize> RawJson<T> {
    pub fn of(body: &T) -> serde_json::Result<Self> {
        to_bytes(body).map(Self::new)
    }
}

pub fn to_bytes(body: &impl Serialize) -> serde_json::Result<Bytes> {
    serde_json::to_vec(body).map(Bytes::from)
}

impl<T: Type> Payload for RawJson<T> {
    const CONTENT_TYPE: &'static str = JSON;

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Send> IntoResponse for RawJson<T> {
    fn into_response(self) -> Response {
        Response::builder().content_type(JSON).body(self.body)
    }
}
