//! The answers of an operation in the OpenAPI document: their headers, the answer that any operation can end in, and
//! examples.

use poem_openapi::types::Type as _;
use serde_json::{Map, Value, json};

use crate::{
    api::{
        errors::{self, EXPECTATION_FAILED, NOT_IMPLEMENTED},
        orders::bodies::OrderBody,
    },
    http::{
        problem::{self, ProblemBody, types::ProblemType},
        schema,
    },
};

/// Headers that many answers have, under the names that answers refer to.
pub(super) fn headers() -> Value {
    let numbers = |first: char, second: char| {
        let pattern = format!("^\"default\";{first}=[0-9]+;{second}=[0-9]+$");
        json!({ "type": "string", "maxLength": 64, "pattern": pattern })
    };
    json!({
        "X-Request-Id": {
            "description": "The caller's own X-Request-Id if it is a short word, else a new one. The log holds the same id.",
            "required": true,
            "schema": { "type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9._-]+$" },
        },
        "Retry-After": {
            "description": "Seconds to wait before trying again.",
            "required": true,
            "schema": { "type": "integer", "format": "int32", "minimum": 1, "maximum": 3600 },
        },
        "Access-Control-Allow-Origin": {
            "description": "The origin of the page that asks, if it is one of SHOP_CORS_ORIGINS.",
            "schema": { "type": "string", "format": "uri", "maxLength": 255 },
        },
        "RateLimit": {
            "description": "How many requests are left (`r`), and for how many seconds that is so (`t`), as \
                            draft-ietf-httpapi-ratelimit-headers has it. Only where a limit is set.",
            "schema": numbers('r', 't'),
            "example": "\"default\";r=0;t=1",
        },
        "RateLimit-Policy": {
            "description": "The limit: requests (`q`) in so many seconds (`w`). Only where a limit is set.",
            "schema": numbers('q', 'w'),
            "example": "\"default\";q=100;w=1",
        },
    })
}

/// Completes what the framework says of all answers to an operation at `path`.
pub(super) fn describe(operation: &mut Value, path: &str) {
    let is_limited = operation["responses"].get("429").is_some();
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    responses.insert("default".to_owned(), any_problem());
    responses.insert("308".to_owned(), moved());
    for kind in [EXPECTATION_FAILED, NOT_IMPLEMENTED] {
        responses.insert(kind.status.as_str().to_owned(), refused(kind));
    }

    for (status, response) in responses {
        name_headers(response);
        refer_to_headers(response, status, is_limited);
        add_problem_examples(response, path);
        add_order_example(response, path, status);
        describe_events(response);
    }
}

/// What no operation lists, since any can end in it: a method that a path does not have, a fault on the way.
fn any_problem() -> Value {
    json!({
        "description": "Any other problem. Go by its status, and expect types that are not listed here.",
        "content": { problem::CONTENT_TYPE: { "schema": { "$ref": schema::reference(&ProblemBody::name()) } } },
    })
}

/// A path with a slash at its end leads to the one without.
fn moved() -> Value {
    json!({
        "description": "The path has a slash at its end: send the same request to `Location`.",
        "headers": { "Location": { "required": true, "schema": { "type": "string" } } },
    })
}

/// A request whose head asks for what the server does not do, whatever the operation.
fn refused(kind: ProblemType) -> Value {
    json!({
        "description": format!("{} (`{}`)", kind.title, kind.uri()),
        "content": { problem::CONTENT_TYPE: { "schema": { "$ref": schema::reference(&ProblemBody::name()) } } },
    })
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
        let written = headers.remove(&name.to_uppercase()).or_else(|| headers.remove(name));
        if let Some(mut header) = written {
            describe_value(name, &mut header["schema"]);
            headers.insert(name.to_owned(), header);
        }
    }
}

/// What the value of a header looks like.
fn describe_value(name: &str, schema: &mut Value) {
    let form = match name {
        "Location" => json!({ "format": "uri-reference", "maxLength": 255 }),
        "ETag" => json!({ "pattern": "^\"[^\"]+\"$", "maxLength": 64 }),
        "Cache-Control" => json!({ "enum": ["no-cache"] }),
        "Idempotent-Replayed" => json!({ "enum": ["true"] }),
        _ => json!({ "pattern": "^wait=[0-9]{1,2}$", "maxLength": 7 }),
    };
    for (key, value) in form.as_object().into_iter().flatten() {
        schema[key] = value.clone();
    }
}

/// A problem that passes by itself says when to try again, and a limited operation how much of the limit is left.
fn refer_to_headers(response: &mut Value, status: &str, is_limited: bool) {
    let is_problem = response["content"].get(problem::CONTENT_TYPE).is_some();
    let mut refer_to = |name: &str| {
        let reference = format!("#/components/headers/{name}");
        response["headers"][name] = json!({ "$ref": reference });
    };

    refer_to("Access-Control-Allow-Origin");
    refer_to("X-Request-Id");
    if is_problem && matches!(status, "429" | "503") {
        refer_to("Retry-After");
    }
    if is_limited {
        refer_to("RateLimit");
        refer_to("RateLimit-Policy");
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
        if description.contains(&format!("{}`", kind.uri())) {
            let example = json!({ "summary": kind.title, "value": errors::example(kind, path) });
            examples.insert(kind.slug.to_owned(), example);
        }
    }
    if !examples.is_empty() {
        content["examples"] = Value::Object(examples);
    }
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

/// A stream has no schema, as its payload says.
fn describe_events(response: &mut Value) {
    let Some(stream) = response.pointer_mut("/content/text~1event-stream") else {
        return;
    };

    let [_, settled] = OrderBody::examples();
    *stream = json!({
        "schema": {
            "description": "Events as the WHATWG HTML standard writes them (section 9.2). The `data` of an event is an Order \
                            as JSON on one line, and its `id` names the state that the order is in.",
        },
        "example": format!(
            "retry: 2000\n\nid: paid@2026-01-15T09:31:40.508127Z\nevent: order\ndata: {}\n\n",
            json!(settled)
        ),
    });
}
