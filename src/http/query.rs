//! All faults of a query in one answer. The framework stops at the first; here every parameter is validated against the
//! schema that the document publishes for it, as bodies are.

use std::collections::HashMap;

use jsonschema::{Draft, ValidationError, Validator, error::ValidationErrorKind};
use poem::{Request, http::Uri};
use serde_json::{Value, json};
use uuid::Uuid;

use super::problem::FieldError;

/// The query parameters of every path that has any.
pub struct QueryParameters(HashMap<String, Vec<Parameter>>);

struct Parameter {
    name: String,
    is_number: bool,
    schema: Validator,
}

impl QueryParameters {
    /// Those of the `GET` operations of an OpenAPI document.
    pub fn new(document: &Value) -> Self {
        let mut by_path = HashMap::new();
        for (path, operations) in document["paths"].as_object().into_iter().flatten() {
            let parameters = operations["get"]["parameters"].as_array().into_iter().flatten();
            let in_query = parameters.filter(|parameter| parameter["in"] == "query");
            let parameters: Vec<Parameter> = in_query
                .map(|parameter| Parameter::new(parameter, &document["components"]))
                .collect();
            if !parameters.is_empty() {
                by_path.insert(path.clone(), parameters);
            }
        }

        Self(by_path)
    }

    /// What is wrong with the query of a request for `uri`.
    pub fn errors(&self, uri: &Uri) -> Vec<FieldError> {
        let Some(parameters) = self.0.get(uri.path()) else {
            return Vec::new();
        };

        let request = Request::builder().uri(uri.clone()).finish();
        let given: Vec<(String, String)> = request.params().unwrap_or_default();

        let errors = parameters.iter().flat_map(|parameter| {
            let value = given.iter().find(|(name, _)| *name == parameter.name);
            value.map(|(_, value)| parameter.errors(value)).unwrap_or_default()
        });
        errors.collect()
    }
}

impl Parameter {
    fn new(parameter: &Value, components: &Value) -> Self {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        let schema = json!({ "allOf": [parameter["schema"]], "components": components });
        let schema = jsonschema::options()
            .with_draft(Draft::Draft4)
            .with_format("uuid", |text: &str| Uuid::try_parse(text).is_ok())
            .should_validate_formats(true)
            .build(&schema)
            .unwrap_or_else(|error| panic!("the schema of the parameter {name} is not valid: {error}"));

        Self {
            name,
            is_number: parameter["schema"]["type"] == "integer",
            schema,
        }
    }

    fn errors(&self, value: &str) -> Vec<FieldError> {
        let number = value.parse().ok().filter(|_| self.is_number);
        let value = number.map_or_else(|| Value::from(value), |number: i64| Value::from(number));

        let field_error = |error: ValidationError| FieldError {
            pointer: format!("/query/{}", self.name),
            detail: self.detail(&error),
        };
        self.schema.iter_errors(&value).map(field_error).collect()
    }

    fn detail(&self, error: &ValidationError) -> String {
        match error.kind() {
            _ if self.name == "cursor" => "the value is not a cursor that this server gave out".to_owned(),
            ValidationErrorKind::Pattern { .. } => "the value must not hold control characters".to_owned(),
            _ => error.masked_with("the value").to_string(),
        }
    }
}
