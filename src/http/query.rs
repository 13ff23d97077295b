//! The query of a request: parameters that the operation does not take, and such that are given twice, are refused, and
//! every value is validated against the schema that the document publishes for it, as bodies are. All faults are in one
//! answer; the framework would stop at the first.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use jsonschema::{Draft, ValidationError, Validator, error::ValidationErrorKind};
use poem::{Endpoint, Request, Response, http::Method};
use poem_openapi::error::ParseParamError;
use serde_json::Value;
use uuid::Uuid;

use super::{
    problem::{FieldError, Problem, pointer::escaped},
    routes::{Access, Routes},
    schema,
    validation::VISIBLE,
};

/// Lets requests pass whose query their operation understands. Routes that are open to everybody are left alone: pages,
/// and the health checks of others, which may add what they like.
pub struct CheckedQuery<E> {
    inner: E,
    routes: Arc<Routes>,
    operations: HashMap<String, Vec<(Method, Parameters)>>,
}

/// The query parameters of one operation.
struct Parameters(Vec<Parameter>);

struct Parameter {
    name: String,
    /// What the text of the value stands for.
    kind: Kind,
    /// The most characters of a value.
    max_length: Option<usize>,
    /// Made when a value is refused for the first time.
    validator: LazyLock<Validator, Box<dyn FnOnce() -> Validator + Send>>,
}

impl<E> CheckedQuery<E> {
    /// `document` describes what `inner` answers.
    pub fn new(inner: E, routes: Arc<Routes>, document: &Value) -> Self {
        let schemas = &document["components"]["schemas"];
        let parameters = |operations: &Value| -> Vec<(Method, Parameters)> {
            let operations = operations.as_object().into_iter().flatten();
            let of_method = operations.filter_map(|(method, operation)| {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).ok()?;
                Some((method, Parameters::of(operation, schemas)))
            });
            of_method.collect()
        };

        let paths = document["paths"].as_object().into_iter().flatten();
        let operations = paths.map(|(path, operations)| (path.clone(), parameters(operations)));
        Self {
            inner,
            routes,
            operations: operations.collect(),
        }
    }

    /// The parameters of the operation that a request asks for, if there is one.
    fn parameters(&self, request: &Request) -> Option<&Parameters> {
        let route = self.routes.at(request.uri().path());
        if route.access() == Access::Anyone {
            return None;
        }

        let method = match *request.method() {
            Method::HEAD => &Method::GET,
            ref other => other,
        };
        let mut operations = self.operations.get(route.template())?.iter();
        operations.find_map(|(known, parameters)| (known == method).then_some(parameters))
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for CheckedQuery<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        if request.uri().query().is_none() {
            return self.inner.call(request).await;
        }
        let Some(parameters) = self.parameters(&request) else {
            return self.inner.call(request).await;
        };

        let uri = request.uri().clone();
        let query = uri.query().unwrap_or_default();
        if !parameters.know_all_of(query) {
            return Err(parameters.problem(query).into());
        }

        match self.inner.call(request).await {
            Err(error) if error.is::<ParseParamError>() && !parameters.errors(query).is_empty() => {
                Err(parameters.problem(query).into())
            }
            answer => answer,
        }
    }
}

impl Parameters {
    fn of(operation: &Value, schemas: &Value) -> Self {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let in_query = parameters.filter(|parameter| parameter["in"] == "query");
        Self(in_query.map(|parameter| Parameter::new(parameter, schemas)).collect())
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|parameter| parameter.name == name)
    }

    /// Whether every name is that of a parameter and comes once, and no value is longer than it may be: what is parsed, such as
    /// a time, has longer forms than the document allows.
    fn know_all_of(&self, query: &str) -> bool {
        let mut seen = vec![false; self.0.len()];
        pairs(query).all(|(name, value)| {
            let index = self.find(&name);
            index.is_some_and(|index| !std::mem::replace(&mut seen[index], true) && self.0[index].has_room_for(&value))
        })
    }

    fn problem(&self, query: &str) -> Problem {
        Problem::invalid_fields(self.errors(query))
    }

    /// What is wrong with a query.
    fn errors(&self, query: &str) -> Vec<FieldError> {
        let mut given: BTreeMap<Cow<str>, Vec<Cow<str>>> = BTreeMap::new();
        for (name, value) in pairs(query) {
            given.entry(name).or_default().push(value);
        }

        let errors = given.iter().flat_map(|(name, values)| match self.find(name) {
            None => vec![field_error(name, self.unknown())],
            Some(_) if values.len() > 1 => vec![field_error(name, "the parameter is given more than once")],
            // One fault is enough of a value.
            Some(index) => self.0[index].errors(&values[0]).into_iter().take(1).collect(),
        });
        errors.collect()
    }

    fn unknown(&self) -> String {
        let names: Vec<String> = self.0.iter().map(|known| format!("`{}`", known.name)).collect();
        match names.as_slice() {
            [] => "there is no such parameter; none is taken here".to_owned(),
            names => format!("there is no such parameter; those taken here are {}", names.join(", ")),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Boolean,
    Text,
}

impl Parameter {
    fn new(parameter: &Value, schemas: &Value) -> Self {
        let schema = schema::with_components(&parameter["schema"], schemas);
        Self {
            name: parameter["name"].as_str().unwrap_or_default().to_owned(),
            kind: match parameter["schema"]["type"].as_str() {
                Some("integer") => Kind::Integer,
                Some("boolean") => Kind::Boolean,
                _ => Kind::Text,
            },
            max_length: parameter["schema"]["maxLength"]
                .as_u64()
                .and_then(|length| length.try_into().ok()),
            validator: LazyLock::new(Box::new(move || validator(&schema))),
        }
    }

    fn has_room_for(&self, value: &str) -> bool {
        let is_within = |max: usize| value.len() <= max || value.chars().count() <= max;
        self.max_length.is_none_or(is_within)
    }

    fn errors(&self, value: &str) -> Vec<FieldError> {
        let parsed = match self.kind {
            Kind::Integer => value.parse::<i64>().ok().map(Value::from),
            Kind::Boolean => value.parse::<bool>().ok().map(Value::from),
            Kind::Text => None,
        };
        let value = parsed.unwrap_or_else(|| Value::from(value));

        let found = self.validator.iter_errors(&value);
        found
            .map(|error| field_error(&self.name, self.detail(&error)))
            .collect()
    }

    fn detail(&self, error: &ValidationError) -> String {
        match error.kind() {
            _ if self.name == "cursor" => "the value is not a cursor that this server gave out".to_owned(),
            ValidationErrorKind::Pattern { pattern } if pattern == VISIBLE => {
                "the value must be of visible ASCII characters".to_owned()
            }
            ValidationErrorKind::Pattern { .. } => "the value must not hold control characters".to_owned(),
            _ => error.masked_with("the value").to_string(),
        }
    }
}

/// What validates the values of a parameter.
///
/// # Panics
/// If the schema is not valid. A test makes the validators of the whole document.
pub fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .with_draft(Draft::Draft4)
        .with_format("uuid", |text: &str| Uuid::try_parse(text).is_ok())
        .should_validate_formats(true)
        .build(schema)
        .unwrap_or_else(|error| panic!("the schema of a parameter is not valid: {error}: {schema}"))
}

fn field_error(name: &str, detail: impl Into<String>) -> FieldError {
    FieldError {
        pointer: format!("/query/{}", escaped(name)),
        detail: detail.into(),
    }
}

/// The names and values of a query, as the framework reads them (WHATWG URL, `application/x-www-form-urlencoded`).
pub fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }

    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'+', after) => (b' ', after),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', &rest[1..]),
            },
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    let digit = char::from(digit).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_the_framework_reads_it() {
        for query in [
            "",
            "a=1&b=2",
            "a=1&&b&=c&d==",
            "a+b=%63+%2B%2b&%6Cimit=%35",
            "a=%&b=%4&c=%zz&d=%ff%fe&e=%C3%BC&f=ü",
            "a=1;b=2",
        ] {
            let uri = poem::http::Uri::try_from(format!("/?{query}")).expect("a URI");
            let request = Request::builder().uri(uri).finish();
            let expected: Vec<(String, String)> = request.params().expect("read");

            let found = pairs(query).map(|(name, value)| (name.into_owned(), value.into_owned()));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{query}");
        }
    }
}
