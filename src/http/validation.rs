//! Every fault of a body in one answer: those that its schema finds, numbers that are too large for the schema to see,
//! and those of its own rules.

use std::{
    any::TypeId,
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use jsonschema::{Draft, ValidationError, Validator, error::ValidationErrorKind};
use poem::http::HeaderMap;
use poem_openapi::{registry::Registry, types::ParseFromJSON};
use serde_json::{Map, Number, Value, json};

use super::{
    body,
    problem::{FieldError, MAX_ERRORS, Problem, pointer::escaped},
    schema,
    strict_json::StrictJson,
};

/// The pattern of values that are of visible ASCII characters.
pub const VISIBLE: &str = "^[!-~]*$";
/// The pattern of values that do not hold the character U+0000.
pub const NO_NUL: &str = "^[^\\x00]*$";

/// What the derived schema of a body cannot say.
pub trait ExtraValidation {
    /// Whether a request without a body stands for an empty object.
    const BODY_OPTIONAL: bool = false;
    /// The largest body, in bytes.
    const MAX_BODY: u64 = body::MAX_BODY;

    /// Adds to the derived schemas, by their names, what the derive macro has no word for.
    fn extend_schemas(_schemas: &mut Map<String, Value>) {}

    /// Faults that no schema finds, whether or not the body fits its schema. The headers are here so that their faults
    /// come in the same answer as those of the body.
    fn errors(_headers: &HeaderMap, _body: &Value) -> Vec<FieldError> {
        Vec::new()
    }
}

/// The body as a `T`, or everything that is wrong with the request.
pub(super) fn parse<T: ParseFromJSON + ExtraValidation + 'static>(
    headers: &HeaderMap,
    body: StrictJson,
) -> Result<T, Problem> {
    let StrictJson { mut value, repeated } = body;
    schema::write_whole_numbers(&mut value);

    let mut errors: Vec<FieldError> = repeated
        .into_iter()
        .map(|pointer| field_error(pointer, "the name comes more than once"))
        .collect();
    errors.extend(schema_errors::<T>(&value));
    errors.extend(T::errors(headers, &value));
    if errors.is_empty() {
        match T::parse_from_json(Some(value)) {
            Ok(parsed) => return Ok(parsed),
            Err(error) => errors.push(field_error("", error.into_message())),
        }
    }

    // Of very many, those of the whole before those of its parts.
    errors.sort_by_key(|error| error.pointer.matches('/').count());
    Err(Problem::invalid_fields(errors))
}

fn schema_errors<T: ParseFromJSON + ExtraValidation + 'static>(value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut faulty: HashSet<String> = HashSet::new();

    let validator = validator::<T>();
    if !validator.is_valid(value) {
        for error in validator.iter_errors(value).take(10 * MAX_ERRORS) {
            // A text that is empty is also one that is blank: one fault is enough of a value without parts.
            let has_parts = error.instance().is_object() || error.instance().is_array();
            if faulty.insert(error.instance_path().to_string()) || has_parts {
                errors.extend(field_errors(&error));
            }
        }
    }

    let mut inexact = Vec::new();
    find_inexact(value, &mut String::new(), &mut inexact);
    errors.extend(inexact.into_iter().filter(|error| !faulty.contains(&error.pointer)));
    errors
}

/// What the schema found, at the very field: also at one that is missing, or that is not known.
fn field_errors(error: &ValidationError) -> Vec<FieldError> {
    let parent = error.instance_path();
    let at = |field: &str, detail: &str| field_error(format!("{parent}/{}", escaped(field)), detail);

    let detail = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown = unexpected.iter().map(|field| at(field, "there is no such field"));
            return unknown.collect();
        }
        ValidationErrorKind::Required { property } => {
            return vec![at(property.as_str().unwrap_or_default(), "the field is missing")];
        }
        ValidationErrorKind::Pattern { pattern } => match pattern.as_str() {
            VISIBLE => "the value must be of visible ASCII characters".to_owned(),
            NO_NUL => "the value must not hold the character U+0000".to_owned(),
            _ => "the value must not be blank or hold control characters".to_owned(),
        },
        ValidationErrorKind::AnyOf { context } => format!("one of these fields is needed: {}", missing(context)),
        ValidationErrorKind::OneOfNotValid { context } => {
            format!("one of these fields is needed: {}", missing(context))
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => "fields are given that exclude one another".to_owned(),
        ValidationErrorKind::Not { .. } => "the value must not be 0".to_owned(),
        _ => error.masked_with("the value").to_string(),
    };
    vec![field_error(parent.to_string(), detail)]
}

/// The fields whose absence is a fault in one of the alternatives.
fn missing(alternatives: &[Vec<ValidationError>]) -> String {
    let faults = alternatives.iter().flatten();
    let names = faults.filter_map(|fault| match fault.kind() {
        ValidationErrorKind::Required { property } => Some(format!("`{}`", property.as_str()?)),
        _ => None,
    });
    names.collect::<Vec<_>>().join(", ")
}

fn field_error(pointer: impl Into<String>, detail: impl Into<String>) -> FieldError {
    FieldError {
        pointer: pointer.into(),
        detail: detail.into(),
    }
}

/// Finds whole numbers that were read as others than were written, or do not fit 64 bits. A schema cannot distinguish them
/// from others.
fn find_inexact(value: &Value, pointer: &mut String, errors: &mut Vec<FieldError>) {
    let length = pointer.len();
    match value {
        Value::Number(number) if errors.len() < MAX_ERRORS => {
            let detail = inexactness(number);
            errors.extend(detail.map(|detail| field_error(pointer.clone(), detail)));
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                let _ = write!(pointer, "/{index}");
                find_inexact(value, pointer, errors);
                pointer.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let _ = write!(pointer, "/{}", escaped(name));
                find_inexact(value, pointer, errors);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

fn inexactness(number: &Number) -> Option<&'static str> {
    /// 2 to the power of 63.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if number.as_i64().is_some() {
        return None;
    }

    // What was written with a point or an exponent, and can be told exactly, is a whole number by now.
    let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
    if (-END..END).contains(&float) {
        Some("a value as large as this must be written without a point or an exponent")
    } else {
        Some("the value does not fit 64 bits")
    }
}

/// The validator of a type, made once from the schema that the type registers for the document.
fn validator<T: ParseFromJSON + ExtraValidation + 'static>() -> Arc<Validator> {
    static MADE: LazyLock<RwLock<HashMap<TypeId, Arc<Validator>>>> = LazyLock::new(RwLock::default);

    let key = TypeId::of::<T>();
    if let Some(made) = MADE.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Arc::clone(made);
    }

    let validator = Arc::new(build::<T>());
    MADE.write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key, Arc::clone(&validator));
    validator
}

fn build<T: ParseFromJSON + ExtraValidation>() -> Validator {
    let mut registry = Registry::new();
    T::register(&mut registry);

    let body = json!(T::schema_ref());
    let mut schemas = json!(registry.schemas);
    schema::correct(&mut schemas);
    if let Some(schemas) = schemas.as_object_mut() {
        schema::deny_unknown_fields(schemas, schema::references(&body));
        T::extend_schemas(schemas);
    }

    let schema = json!({ "allOf": [body], "components": { "schemas": schemas } });
    jsonschema::options()
        .with_draft(Draft::Draft4)
        .build(&schema)
        .unwrap_or_else(|error| panic!("the schema of {} is not valid: {error}", T::name()))
}
