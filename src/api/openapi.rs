//! The OpenAPI document, and Swagger UI around it. What the framework cannot say about the API is added here, once.

use poem_openapi::{LicenseObject, OpenApiService, ServerObject};
use serde_json::{Map, Value, json};

use super::{
    health::{HealthApi, Role},
    orders::{OrdersApi, bodies::OrderBody},
    products::ProductsApi,
};
use crate::{
    config::AuthMode,
    http::problem::{self, Kind, Problem},
};

/// The name of the way to say who one is.
const SCHEME: &str = "bearer";
const TOKENS: &str = "\
A JSON Web Token, asked for when the server runs with SHOP_AUTH=jwt. `sub` is the user id, `exp` is required, and the \
scope `shop:admin` allows catalogue changes and every order. `shop token --user 1` mints one for trying things out.";

const DESCRIPTION: &str = "\
A headless order service. **The way of an order:**

1. `GET /products` shows what there is.
2. `POST /orders` makes an order. It is `PENDING`, and the prices are kept with it. Stock is not looked at yet.
3. `POST /orders/{id}/pay` accepts the payment: `202`. From then on the order will be settled, whatever happens.
4. A worker takes the stock and sets `PAID`, or `FAILED` with the lines that were short. `GET /orders/{id}` shows it,
   `Prefer: wait=10` waits for it, and `GET /orders/{id}/events` follows it.

An administrator adds products, changes their prices, and puts units on the shelf or writes them off.

Money is a whole number of the currency's minor unit: 1999 is 19.99 USD. Times are RFC 3339 in UTC. Every error is a \
problem document (RFC 9457) whose `type` names its kind.";

/// The operations, before they are put to work. `apis` may be built without any back end when only the document is
/// wanted.
pub type Apis = (ProductsApi, OrdersApi, HealthApi);

/// The document as a value.
///
/// # Panics
/// Never: the framework writes valid JSON.
#[must_use]
pub fn document(service: &OpenApiService<Apis, ()>, auth: AuthMode) -> Value {
    let mut document: Value = serde_json::from_str(&service.spec()).expect("the framework writes valid JSON");
    let closed = deny_unknown_fields(&document["components"]["schemas"]);
    document["components"]["schemas"] = closed;
    write_whole_numbers(&mut document["paths"]);
    document["components"]["securitySchemes"] = json!({ SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": TOKENS,
    } });
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, operations) in paths {
        for (_, operation) in operations.as_object_mut().into_iter().flatten() {
            if path == "/products/{id}" {
                operation["parameters"][0]["example"] = json!(1);
            }
            describe_parameters(operation);
            secure(operation, path, auth);
            for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
                describe_headers(response);
                describe_retry_after(response, status);
                add_examples(response, path);
                add_order_example(response, status);
                describe_events(response);
            }
        }
    }
    document
}

#[must_use]
pub fn service(apis: Apis) -> OpenApiService<Apis, ()> {
    OpenApiService::new(apis, "shop", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(LicenseObject::new("MIT").url("https://opensource.org/license/mit"))
        .server(ServerObject::new("/").description("this server"))
}

/// The operations without any back end, for the document alone.
#[must_use]
pub fn unconnected() -> OpenApiService<Apis, ()> {
    service((
        ProductsApi { app: None },
        OrdersApi {
            app: None,
            desk: None,
            watch: None,
        },
        HealthApi {
            app: None,
            role: Role::Serve,
        },
    ))
}

/// Swagger UI with all that it needs in one page.
#[must_use]
pub fn swagger_ui(auth: AuthMode) -> String {
    let service = unconnected();
    // `</` would end the script that the document stands in.
    let document = document(&service, auth).to_string().replace("</", "<\\/");
    let page = service.swagger_ui_html().replacen(&service.spec(), &document, 1);
    page.replacen("<html charset=\"UTF-8\">", "<!DOCTYPE html>\n<html lang=\"en\">", 1)
        .replacen(
            "<title>Swagger UI</title>",
            "<title>shop · API</title><link rel=\"icon\" href=\"data:,\">",
            1,
        )
}

/// Which methods a path knows, for the header `Allow` of a 405 (RFC 9110, section 15.5.6).
pub struct Allowed(Vec<(String, String)>);

impl Allowed {
    #[must_use]
    pub fn new(document: &Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        let methods = |operations: &Value| {
            let names = operations.as_object().into_iter().flatten();
            let names = names.map(|(name, _)| match name.as_str() {
                "get" => "GET, HEAD".to_owned(),
                other => other.to_uppercase(),
            });
            names.collect::<Vec<_>>().join(", ")
        };
        let documented = paths.map(|(path, operations)| (path.clone(), methods(operations)));
        let fixed = ["/docs", "/openapi.json", "/openapi.yaml", "/metrics"];
        let fixed = fixed.map(|path| (path.to_owned(), "GET, HEAD".to_owned()));
        Self(documented.chain(fixed).collect())
    }

    #[must_use]
    pub fn at(&self, path: &str) -> Option<&str> {
        let fits = |template: &str| {
            let (mut parts, mut given) = (template.split('/'), path.split('/'));
            parts
                .by_ref()
                .zip(given.by_ref())
                .all(|(part, given)| part.starts_with('{') || part == given)
                && template.split('/').count() == path.split('/').count()
        };
        let found = self.0.iter().find(|(template, _)| fits(template));
        found.map(|(_, methods)| methods.as_str())
    }
}

/// The schemas of a registry as a schema for `name`, closed to fields that are not known.
#[must_use]
pub(crate) fn closed_schemas(schemas: &Value, name: &str) -> Value {
    json!({
        "components": { "schemas": deny_unknown_fields(schemas) },
        "$ref": format!("#/components/schemas/{name}"),
    })
}

/// What the framework does not check by itself, but the shop does.
fn describe_parameters(operation: &mut Value) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        if parameter["name"] == "Idempotency-Key" {
            parameter["schema"]["minLength"] = json!(1);
            parameter["schema"]["maxLength"] = json!(255);
            parameter["schema"]["pattern"] = json!("^[!-~]+$");
        }
    }
}

/// Says which operations ask for a token. Without authentication a token does no harm.
fn secure(operation: &mut Value, path: &str, auth: AuthMode) {
    operation["security"] = match auth {
        _ if matches!(path, "/healthz" | "/readyz") => json!([]),
        AuthMode::Jwt => json!([{ SCHEME: [] }]),
        AuthMode::None => json!([{}, { SCHEME: [] }]),
    };
}

/// The framework writes the names of headers in capitals.
fn describe_headers(response: &mut Value) {
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

/// A problem that will pass says when to try again.
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

/// An example for every problem that an answer can be.
fn add_examples(response: &mut Value, path: &str) {
    let description = response["description"].as_str().unwrap_or_default().to_owned();
    let Some(content) = response
        .get_mut("content")
        .and_then(|content| content.get_mut(problem::CONTENT_TYPE))
    else {
        return;
    };
    let named = |kind: &Kind| description.contains(&format!("{}{}`", problem::TYPE_PREFIX, kind.slug()));
    let examples: Map<String, Value> = Kind::ALL
        .into_iter()
        .filter(named)
        .map(|kind| {
            let example = json!({ "summary": kind.title(), "value": Problem::example(kind, path) });
            (kind.slug().to_owned(), example)
        })
        .collect();
    content["examples"] = Value::Object(examples);
}

/// An order shows what is known of it by then: nothing more when it is made, more once it is accepted or settled.
fn add_order_example(response: &mut Value, status: &str) {
    let [accepted, settled] = OrderBody::examples();
    let example = match status {
        "202" => json!(accepted),
        "200" => json!(settled),
        _ => return,
    };
    let content = response.pointer_mut("/content/application~1json");
    if let Some(content) = content.filter(|content| content["schema"]["$ref"] == "#/components/schemas/Order") {
        content["example"] = example;
    }
}

/// A stream is described by one of its events, as the fields that the standard gives it.
fn describe_events(response: &mut Value) {
    if let Some(stream) = response.pointer_mut("/content/text~1event-stream") {
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
}

/// What is null on the last page, and what is left out where there is nothing to list.
fn mark_optional(schemas: &mut Map<String, Value>) {
    for page in ["ProductPage", "OrderPage"] {
        if let Some(cursor) = schemas
            .get_mut(page)
            .and_then(|page| page.pointer_mut("/properties/next_cursor"))
        {
            cursor["nullable"] = Value::Bool(true);
        }
        if let Some(required) = schemas
            .get_mut(page)
            .and_then(|page| page.get_mut("required"))
            .and_then(Value::as_array_mut)
        {
            required.push(json!("next_cursor"));
        }
    }
    let problem = schemas
        .get_mut("Problem")
        .and_then(|problem| problem.get_mut("required"));
    if let Some(required) = problem.and_then(Value::as_array_mut) {
        required.retain(|field| field != "errors");
    }
}

/// The schemas of requests refuse fields that they do not know, and say so.
fn deny_unknown_fields(schemas: &Value) -> Value {
    const REQUESTS: [&str; 6] = [
        "NewOrder",
        "NewOrderItem",
        "Payment",
        "NewProduct",
        "ProductChange",
        "StockChange",
    ];
    let mut closed = schemas.as_object().cloned().unwrap_or_else(Map::new);
    for name in REQUESTS {
        if let Some(schema) = closed.get_mut(name).and_then(Value::as_object_mut) {
            schema.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
    if let Some(delta) = closed
        .get_mut("StockChange")
        .and_then(|schema| schema.pointer_mut("/properties/delta"))
    {
        delta["not"] = json!({ "enum": [0] });
    }
    mark_optional(&mut closed);
    let mut closed = Value::Object(closed);
    write_whole_numbers(&mut closed);
    dedupe_descriptions(&mut closed);
    closed
}

/// The framework says a field's description twice, and so hides that the field is just of another type.
fn dedupe_descriptions(value: &mut Value) {
    if let Some(parts) = value.get_mut("allOf").and_then(Value::as_array_mut) {
        parts.retain(|part| {
            part.get("$ref").is_some()
                || part
                    .as_object()
                    .is_none_or(|part| part.len() != 1 || !part.contains_key("description"))
        });
    }
    match value {
        Value::Array(values) => values.iter_mut().for_each(dedupe_descriptions),
        Value::Object(fields) => fields.values_mut().for_each(dedupe_descriptions),
        _ => {}
    }
}

/// The framework keeps bounds as floating point: 1.0 where 1 is meant.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)
                && let Ok(whole) = float.to_string().parse::<i64>()
            {
                *value = Value::from(whole);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(write_whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers),
        _ => {}
    }
}
