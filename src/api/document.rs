//! The OpenAPI document, and Swagger UI around it. What the framework cannot say about the API is added here, once.

use poem_openapi::{ContactObject, LicenseObject, OpenApiService, ServerObject};
use serde_json::{Map, Value, json};

use super::{health::HealthApi, orders::OrdersApi, products::ProductsApi};

const DESCRIPTION: &str = "\
A headless order service. **The way of an order:**

1. `GET /products` shows what there is.
2. `POST /orders` makes an order. It is `PENDING`, and the prices are kept with it. Stock is not looked at yet.
3. `POST /orders/{id}/pay` accepts the payment: `202`. From then on the order will be settled, whatever happens.
4. A worker takes the stock and sets `PAID`, or `FAILED` with the lines that were short. `GET /orders/{id}` shows it.

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
pub fn document(service: &OpenApiService<Apis, ()>) -> Value {
    let mut document: Value = serde_json::from_str(&service.spec()).expect("the framework writes valid JSON");
    let closed = close(&document["components"]["schemas"]);
    document["components"]["schemas"] = closed;
    document
}

#[must_use]
pub fn service(apis: Apis) -> OpenApiService<Apis, ()> {
    OpenApiService::new(apis, "shop", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(LicenseObject::new("MIT").url("https://opensource.org/license/mit"))
        .contact(ContactObject::new().name("The shop authors"))
        .server(ServerObject::new("/").description("this server"))
}

/// Swagger UI with all that it needs in one page.
///
/// # Panics
/// Never: the document is a JSON value.
#[must_use]
pub fn swagger_ui(service: &OpenApiService<Apis, ()>, document: &Value) -> String {
    // `</` would end the script that the document stands in.
    let document = document.to_string().replace("</", "<\\/");
    let page = service.swagger_ui_html().replacen(&service.spec(), &document, 1);
    page.replacen("<html charset=\"UTF-8\">", "<!DOCTYPE html>\n<html lang=\"en\">", 1)
        .replacen(
            "<title>Swagger UI</title>",
            "<title>shop · API</title><link rel=\"icon\" href=\"data:,\">",
            1,
        )
}

/// The schemas of a registry as a schema for `name`, closed to fields that are not known.
#[must_use]
pub(super) fn closed_schemas(schemas: &Value, name: &str) -> Value {
    json!({
        "components": { "schemas": close(schemas) },
        "$ref": format!("#/components/schemas/{name}"),
    })
}

/// The schemas of requests refuse fields that they do not know, and say so.
fn close(schemas: &Value) -> Value {
    const REQUESTS: [&str; 3] = ["NewOrder", "NewOrderItem", "Payment"];
    let mut closed = schemas.as_object().cloned().unwrap_or_else(Map::new);
    for name in REQUESTS {
        if let Some(schema) = closed.get_mut(name).and_then(Value::as_object_mut) {
            schema.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
    Value::Object(closed)
}
