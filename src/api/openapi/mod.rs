//! The OpenAPI document, and Swagger UI around it. What the framework cannot say about the API is added here, once.

use std::collections::BTreeSet;

use poem_openapi::{LicenseObject, OpenApiService, ServerObject, Tags as _, registry::Registry, types::Type};
use serde_json::{Map, Value, json};

use super::{
    Tag,
    carts::CartsApi,
    errors,
    failure::{FailureBody, ShortLineBody},
    health::HealthApi,
    orders::{OrdersApi, bodies::NewOrderBody},
    products::ProductsApi,
    refunds::{RefundsApi, bodies::NewRefundBody},
    refused::RefusedLineBody,
    stock::{
        StockApi,
        bodies::{MAX_LINES, StockChangeBody, StockLineBody},
    },
};
use crate::{
    config::AuthMode,
    http::{
        problem::{
            ProblemBody,
            types::{INVALID_REQUEST, ProblemType},
        },
        schema,
        validation::ExtraValidation as _,
    },
};

mod responses;
mod schemas;

/// The version of OpenAPI that the document is brought to; the framework writes 3.0.0.
const VERSION: &str = "3.1.0";
/// The longest form of a time (RFC 3339) that a parameter takes.
const MAX_TIME_LENGTH: usize = "9999-12-31T23:59:59.999999999+23:59".len();
/// The name of the security scheme.
const SCHEME: &str = "bearer";
const TOKENS: &str = "\
A JSON Web Token, asked for when the server runs with SHOP_AUTH=jwt. `sub` is the user id, `exp` is required, and the \
scope `shop:admin` allows catalogue changes and every order. It is checked as RFC8725 recommends: the configured key \
decides the one algorithm. `shop token --user 1` mints one for trying things out.";

const DESCRIPTION: &str = "\
A headless order service. **The way of an order:**

1. `GET /products` lists what is for sale.
2. `POST /orders` creates an order. It is `PENDING` and keeps the prices of this moment. With `hold_seconds` its units are
   set aside until `expires_at`; without, stock is not checked yet. `POST /orders/{id}/cancel` cancels it.
3. `POST /orders/{id}/pay` accepts the payment: `202`. From then on the order will be settled, whatever happens.
4. A worker takes the stock and sets `PAID`, or `FAILED` with the lines that were short: never those of an order that was
   paid while its units were set aside. `GET /orders/{id}` shows it,
   `Prefer: wait=10` waits for it, and `GET /orders/{id}/events` follows it.

A cart (`POST /carts`) is a place to put an order together: checking it out creates the order, once.

An administrator adds products, changes what is said of them, takes them off the list, and changes their stock.

**The life of an order:**

| from | by | to |
| --- | --- | --- |
| | `POST /orders` | `PENDING`; with `hold_seconds` until `expires_at`, or `409` if too few units are available |
| `PENDING` | `POST /orders/{id}/pay`, before `expires_at` if there is one | `PENDING` with `accepted_at` |
| `PENDING` without `accepted_at` | `POST /orders/{id}/cancel` | `FAILED`, reason `cancelled` |
| `PENDING` without `accepted_at` | `expires_at` is past | `FAILED`, reason `expired` |
| `PENDING` with `accepted_at` | a worker; every line is in stock, or was set aside | `PAID` |
| `PENDING` with `accepted_at` | a worker; a line is short | `FAILED`, reason `insufficient_stock` |

Pay, cancel and expiry exclude each other: the first one counts. `PAID` and `FAILED` are final.

Money is a whole number of the currency's minor unit: 1999 is 19.99 USD. Times are RFC 3339 in UTC. Every error is a \
problem document (RFC 9457) whose `type` names its kind.";

/// All operations.
pub type Apis = (ProductsApi, StockApi, CartsApi, OrdersApi, RefundsApi, HealthApi);

pub fn service() -> OpenApiService<Apis, ()> {
    let apis = (ProductsApi, StockApi, CartsApi, OrdersApi, RefundsApi, HealthApi);
    OpenApiService::new(apis, "shop", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(LicenseObject::new("MIT").url("https://opensource.org/license/mit"))
        .server(
            ServerObject::new("/")
                .description("The server that this document comes from, be it local, staging or production"),
        )
}

/// The document as a value.
///
/// # Panics
/// Never: the framework writes valid JSON.
pub fn document(auth: AuthMode) -> Value {
    let mut document: Value = serde_json::from_str(&service().spec()).expect("the framework writes valid JSON");

    let requests = request_schemas(&document["paths"]);
    if let Value::Object(schemas) = &mut document["components"]["schemas"] {
        schema::deny_unknown_fields(schemas, requests);
        complete(schemas);
    }
    schema::correct(&mut document["components"]["schemas"]);
    schema::write_whole_numbers(&mut document["paths"]);
    document["components"]["headers"] = responses::headers();
    bound_stock_changes(&mut document["paths"]["/stock-changes"]["post"]["requestBody"]);

    document["components"]["securitySchemes"] = json!({ SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": TOKENS,
    } });
    for (path, operations) in document["paths"].as_object_mut().into_iter().flatten() {
        for (_, operation) in operations.as_object_mut().into_iter().flatten() {
            describe_parameters(operation);
            describe_security(operation, auth);
            responses::describe(operation, path);
        }
    }

    schemas::visit(&mut document, &mut |name, fields| {
        schemas::set_bounds(name, fields);
        schema::choice_to_condition(fields);
        schemas::to_2020_12(fields);
    });
    document["openapi"] = json!(VERSION);
    document["servers"][0]["x-internal"] = json!(false);
    document
}

pub fn to_yaml(document: &Value) -> String {
    serde_norway::to_string(document).unwrap_or_default()
}

/// Swagger UI with all that it needs in one page.
pub fn swagger_ui(auth: AuthMode) -> String {
    let service = service();
    // `</` would end the script that the document stands in.
    let document = document(auth).to_string().replace("</", "<\\/");

    service
        .swagger_ui_html()
        .replacen(&service.spec(), &document, 1)
        .replacen("<html charset=\"UTF-8\">", "<!DOCTYPE html>\n<html lang=\"en\">", 1)
        .replacen(
            "<title>Swagger UI</title>",
            "<title>shop · API</title><link rel=\"icon\" href=\"data:,\">",
            1,
        )
}

/// The names of the schemas that request bodies refer to.
fn request_schemas(paths: &Value) -> BTreeSet<String> {
    let operations = paths.as_object().into_iter().flatten();
    let operations = operations.flat_map(|(_, operations)| operations.as_object().into_iter().flatten());
    operations
        .flat_map(|(_, operation)| schema::references(&operation["requestBody"]))
        .collect()
}

/// Adds what the derive macros have no word for.
fn complete(schemas: &mut Map<String, Value>) {
    for (_, schema) in schemas.iter_mut() {
        mark_optional(schema);
    }

    NewOrderBody::extend_schemas(schemas);
    StockChangeBody::extend_schemas(schemas);
    Vec::<StockLineBody>::extend_schemas(schemas);
    NewRefundBody::extend_schemas(schemas);
    schemas.entry(ProblemBody::name()).and_modify(|problem| {
        problem["example"] = errors::example(INVALID_REQUEST, "/orders");
        problem["properties"]["type"]["enum"] = errors::ALL.iter().map(ProblemType::uri).collect();
        problem["properties"]["lines"] = json!({
            "type": "array",
            "maxItems": 100,
            "description": "The lines that are short; only of the type `insufficient-stock`.",
            "items": { "$ref": schema::reference(&ShortLineBody::name()) },
        });
        problem["properties"]["failure"] = json!({
            "description": "Why the order has failed, as the order itself says it; only of the type `order-failed`.",
            "allOf": [{ "$ref": schema::reference(&FailureBody::name()) }],
        });
        describe_extensions(&mut problem["properties"]);
    });
    register::<RefusedLineBody>(schemas);
}

/// What some types of problem say of stock and of refunds.
fn describe_extensions(properties: &mut Value) {
    properties["stock"] = json!({
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "description": "The units in stock; only of the types `stock-changed` and `stock-out-of-range`.",
    });
    properties["available"] = json!({
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "description": "The units in stock that are not on hold; only of the type `stock-out-of-range`.",
    });
    properties["order_id"] = json!({
        "type": "string",
        "format": "uuid",
        "description": "The order that has the reference; only of the type `reference-taken`.",
    });
    properties["refused"] = json!({
        "type": "array",
        "maxItems": MAX_LINES,
        "description": "Every line that does not hold; only of a request that changes the stock of many products.",
        "items": { "$ref": schema::reference(&RefusedLineBody::name()) },
    });
    properties["refundable"] = json!({
        "type": "integer",
        "format": "int64",
        "minimum": 0,
        "description": "What can be refunded, in the currency's minor unit; only of the type `refund-exceeds-payment`.",
    });
}

/// Adds the schema of a type that no operation names.
fn register<T: Type>(schemas: &mut Map<String, Value>) {
    let mut registry = Registry::new();
    T::register(&mut registry);
    if let Value::Object(own) = json!(registry.schemas) {
        schemas.extend(own);
    }
}

/// The framework has no word for the length of a body that is a list.
fn bound_stock_changes(body: &mut Value) {
    let list = &mut body["content"]["application/json"]["schema"];
    list["minItems"] = json!(1);
    list["maxItems"] = json!(MAX_LINES);
}

/// Marks what is null on the last page, and what is left out where there is nothing to list.
fn mark_optional(schema: &mut Value) {
    if let Some(cursor) = schema.pointer_mut("/properties/next_cursor") {
        cursor["nullable"] = Value::Bool(true);
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.push(json!("next_cursor"));
        }
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field != "errors");
    }
}

/// An example stands beside the schema of its parameter, where Swagger UI fills it in. A time may be written with nanoseconds
/// and with an offset.
fn describe_parameters(operation: &mut Value) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let schema = &mut parameter["schema"];
        if schema["format"] == "date-time" {
            schema["maxLength"] = json!(MAX_TIME_LENGTH);
        }
        if let Some(example) = schema.as_object_mut().and_then(|schema| schema.remove("example")) {
            parameter["example"] = example;
        }
    }
}

/// Says which operations ask for a token. Without authentication a token does no harm.
fn describe_security(operation: &mut Value, auth: AuthMode) {
    operation["security"] = match auth {
        _ if operation["tags"][0] == Tag::Health.name() => json!([]),
        AuthMode::Jwt => json!([{ SCHEME: [] }]),
        AuthMode::None => json!([{}, { SCHEME: [] }]),
    };
}
