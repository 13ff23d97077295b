//! JSON in and out. A request's body is held against the schema that the OpenAPI document publishes for it, so what is
//! documented is what is enforced, and all faults are found in one pass. Answers are bytes made ready beforehand.

use std::{
    any::TypeId,
    collections::HashMap,
    fmt::Write as _,
    io,
    marker::PhantomData,
    pin::pin,
    sync::{Arc, LazyLock, PoisonError, RwLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use jsonschema::{Draft, ValidationError, Validator, error::ValidationErrorKind};
use poem::{
    Body, IntoResponse, Request, RequestBody, Response,
    http::{HeaderMap, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    error::ContentTypeError,
    payload::Payload,
    registry::{MetaMediaType, MetaRequest, MetaSchemaRef, Registry},
    types::{ParseFromJSON, Type},
};
use serde_json::{Value, json};

use super::problem::{FieldError, Kind, Problem};

/// The largest body that is accepted, in bytes.
pub const MAX_BODY: u64 = 64 * 1024;
/// The most that is read of one that is larger, in bytes.
const MAX_DRAINED: u64 = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The most faults that one answer lists.
const MAX_FAULTS: usize = 100;
const JSON: &str = "application/json";

/// A body that has been checked against its schema.
pub struct ValidJson<T>(pub T);

/// ExtraValidation that a schema cannot say.
pub trait ExtraValidation {
    /// What breaks them in a request, whether or not its body fits the schema.
    fn faults(_headers: &HeaderMap, _body: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// Whether a request without a body stands for an empty object.
    const BODY_OPTIONAL: bool = false;
}

impl<T: ParseFromJSON> Payload for ValidJson<T> {
    const CONTENT_TYPE: &'static str = JSON;

    fn check_content_type(content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(JSON)
            || (essence.len() > "application/+json".len()
                && essence.is_char_boundary("application/".len())
                && essence[.."application/".len()].eq_ignore_ascii_case("application/")
                && essence.to_ascii_lowercase().ends_with("+json"))
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
        let bytes = read(request, body).await?;
        if bytes.is_empty() && T::BODY_OPTIONAL {
            return parse::<T>(request.headers(), json!({})).map_err(poem::Error::from);
        }
        if request
            .header(header::CONTENT_ENCODING)
            .is_some_and(|coding| coding != "identity")
        {
            let detail = "send the body as it is, without Content-Encoding";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail).into());
        }
        match request.content_type() {
            Some(content_type) if Self::check_content_type(content_type) => {}
            Some(content_type) => {
                let content_type = content_type.to_owned();
                return Err(ContentTypeError::NotSupported { content_type }.into());
            }
            // A missing body is the fault to name, before the missing name of its kind.
            None if bytes.is_empty() => {}
            None => return Err(ContentTypeError::ExpectContentType.into()),
        }
        if bytes.is_empty() {
            return Err(Problem::fault("", "the body is missing").into());
        }
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| poem::Error::from(Problem::fault("", format!("the body is not valid JSON: {error}"))))?;
        parse::<T>(request.headers(), value).map_err(poem::Error::from)
    }
}

async fn read(request: &Request, body: &mut RequestBody) -> poem::Result<Bytes> {
    let too_large = || poem::Error::from(Problem::new(Kind::PayloadTooLarge, "the body is larger than 64 KiB"));
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_DRAINED) {
        return Err(too_large());
    }
    let reading = read_to_end(body.take()?);
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(error)) => Err(Problem::fault("", format!("the body could not be read: {error}")).into()),
        Err(_) => Err(Problem::new(Kind::RequestTimeout, "the body did not arrive within 5 seconds").into()),
    }
}

/// The body, or nothing if it is larger than [`MAX_BODY`]. Of a larger one somewhat more is read and dropped: a client
/// that is cut off in the middle of sending never sees the answer.
async fn read_to_end(body: Body) -> io::Result<Option<Bytes>> {
    let mut pieces = pin!(body.into_bytes_stream());
    let (mut bytes, mut length) = (BytesMut::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        length += piece.len() as u64;
        if length > MAX_DRAINED {
            break;
        }
        if length <= MAX_BODY {
            bytes.extend_from_slice(&piece);
        }
    }
    Ok((length <= MAX_BODY).then(|| bytes.freeze()))
}

fn parse<T: ParseFromJSON + ExtraValidation + 'static>(
    headers: &HeaderMap,
    value: Value,
) -> Result<ValidJson<T>, Problem> {
    let mut faults = faults_of::<T>(&value);
    faults.extend(T::faults(headers, &value));
    if faults.is_empty() {
        match T::parse_from_json(Some(value)) {
            Ok(parsed) => return Ok(ValidJson(parsed)),
            Err(error) => faults.push(fault(String::new(), error.into_message())),
        }
    }
    // Of very many, those of the whole before those of its parts.
    faults.sort_by_key(|fault| fault.pointer.matches('/').count());
    let more = faults.len() > MAX_FAULTS;
    faults.truncate(MAX_FAULTS);
    Err(if more {
        Problem::invalid(format!("the request has more than {MAX_FAULTS} faults"), faults)
    } else {
        Problem::faults(faults)
    })
}

/// Every fault that the schema finds, and every number that is too large for it to see.
fn faults_of<T: ParseFromJSON + 'static>(value: &Value) -> Vec<FieldError> {
    let validator = validator::<T>();
    let mut faults: Vec<FieldError> = Vec::new();
    find_oversized(value, &mut String::new(), &mut faults);
    if !validator.is_valid(value) {
        let by_schema = validator.iter_errors(value).take(10 * MAX_FAULTS);
        faults.extend(by_schema.flat_map(|error| faults_in(&error)));
    }
    faults
}

/// What the schema found, at the very field: also at one that is missing, or that is not known.
fn faults_in(error: &ValidationError) -> Vec<FieldError> {
    let place = error.instance_path();
    let at = |field: &str, detail: &str| fault(format!("{place}/{}", escaped(field)), detail.to_owned());
    let detail = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            return unexpected
                .iter()
                .map(|field| at(field, "there is no such field"))
                .collect();
        }
        ValidationErrorKind::Required { property } => {
            return vec![at(property.as_str().unwrap_or_default(), "the field is missing")];
        }
        ValidationErrorKind::Pattern { .. } => "the value must not be blank or hold control characters".to_owned(),
        ValidationErrorKind::Not { .. } => "the value must not be 0".to_owned(),
        _ => error.masked_with("the value").to_string(),
    };
    vec![fault(place.to_string(), detail)]
}

fn fault(pointer: String, detail: String) -> FieldError {
    FieldError { pointer, detail }
}

/// A field's name as a part of a JSON Pointer (RFC 6901, section 3).
fn escaped(field: &str) -> String {
    field.replace('~', "~0").replace('/', "~1")
}

/// Whole numbers that do not fit 64 bits, which a schema cannot tell from others.
fn find_oversized(value: &Value, pointer: &mut String, faults: &mut Vec<FieldError>) {
    let length = pointer.len();
    match value {
        Value::Number(number) if number.is_u64() && number.as_i64().is_none() && faults.len() < MAX_FAULTS => {
            faults.push(fault(pointer.clone(), "the value does not fit 64 bits".to_owned()));
        }
        Value::Array(values) => {
            for (place, value) in values.iter().enumerate() {
                let _ = write!(pointer, "/{place}");
                find_oversized(value, pointer, faults);
                pointer.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let _ = write!(pointer, "/{}", escaped(name));
                find_oversized(value, pointer, faults);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

/// The validator of a type, made from the schema that the type registers for the document.
fn validator<T: ParseFromJSON + 'static>() -> Arc<Validator> {
    static MADE: LazyLock<RwLock<HashMap<TypeId, Arc<Validator>>>> = LazyLock::new(RwLock::default);
    let key = TypeId::of::<T>();
    if let Some(made) = MADE.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Arc::clone(made);
    }
    let mut registry = Registry::new();
    T::register(&mut registry);
    let schema = crate::api::openapi::closed_schemas(&json!(registry.schemas), &T::name());
    let validator = jsonschema::options()
        .with_draft(Draft::Draft4)
        .build(&schema)
        .unwrap_or_else(|error| panic!("the schema of {} is not valid: {error}", T::name()));
    let validator = Arc::new(validator);
    MADE.write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key, Arc::clone(&validator));
    validator
}

/// An answer of type `T`, ready as bytes.
pub struct RawJson<T> {
    body: Bytes,
    of: PhantomData<fn() -> T>,
}

impl<T> RawJson<T> {
    #[must_use]
    pub fn new(body: Bytes) -> Self {
        Self { body, of: PhantomData }
    }
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
