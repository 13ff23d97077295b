//! The answers of an operation in the OpenAPI document: the names of their headers, and examples.

use poem_openapi::types::Type as _;
use serde_json::{Map, Value, json};

use crate::{
    api::{errors, orders::bodies::OrderBody},
    http::{problem, schema},
};

/// Completes what the framework says of all answers to an operation at `path`.
pub(super) fn describe(operation: &mut Value, path: &str) {
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        name_headers(response);
        describe_retry_after(response, status);
        add_problem_examples(response, path);
        add_order_example(response, path, status);
        describe_events(response);
    }
}

/// The framework writes the names of headers in capitals.
fn name_headers(response: &mut Value) {
    const NAMES: [&str; 5] = [
        "Location",
        "ETag",
        "Cache-Control",
        "Idempotent-Replayed",
        "Preference-Applied",
    ];

    let Some(headers) = response.get_mut("headers").and_then(Value::as_object_mut) else {
        return;
    };
    for name in NAMES {
        if let Some(header) = headers.remove(&name.to_uppercase()) {
            headers.insert(name.to_owned(), header);
        }
    }
}

/// A problem that passes by itself says when to try again.
fn describe_retry_after(response: &mut Value, status: &str) {
    let is_problem = response["content"].get(problem::CONTENT_TYPE).is_some();
    if is_problem && matches!(status, "429" | "503") {
        response["headers"]["Retry-After"] = json!({
            "description": "Seconds to wait before trying again.",
            "required": true,
            "schema": { "type": "integer", "minimum": 1 },
        });
    }
}

/// Adds an example for every problem that an answer can be.
fn add_problem_examples(response: &mut Value, path: &str) {
    let description = response["description"].as_str().unwrap_or_default().to_owned();
    let content = response.get_mut("content");
    let Some(content) = content.and_then(|content| content.get_mut(problem::CONTENT_TYPE)) else {
        return;
    };

    let mut examples = Map::new();
    for kind in errors::ALL {
        if description.contains(&format!("{}{}`", problem::TYPE_PREFIX, kind.slug)) {
            let example = json!({ "summary": kind.title, "value": errors::example(kind, path) });
            examples.insert(kind.slug.to_owned(), example);
        }
    }
    content["examples"] = Value::Object(examples);
}

/// An order shows what is known of it by then: nothing more when it is created, more once it is accepted or settled.
fn add_order_example(response: &mut Value, path: &str, status: &str) {
    let [accepted, settled] = OrderBody::examples();
    let example = match status {
        "200" | "202" if path.ends_with("/cancel") => json!(OrderBody::cancelled_example()),
        "202" => json!(accepted),
        "200" => json!(settled),
        _ => return,
    };

    let content = response.pointer_mut("/content/application~1json");
    let order = schema::reference(&OrderBody::name());
    if let Some(content) = content.filter(|content| content["schema"]["$ref"] == order) {
        content["example"] = example;
    }
}

/// A stream is described by one of its events, as the fields that the standard gives it.
fn describe_events(response: &mut Value) {
    let Some(stream) = response.pointer_mut("/content/text~1event-stream") else {
        return;
    };

    let [_, settled] = OrderBody::examples();
    *stream = json!({
        "schema": {
            "type": "object",
            "description": "One event. Its data is an Order, as JSON on one line.",
            "properties": {
                "event": { "type": "string", "enum": ["order"] },
                "data": { "type": "string" },
            },
        },
        "example": { "event": "order", "data": json!(settled).to_string() },
    });
}
