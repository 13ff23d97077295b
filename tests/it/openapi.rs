//! The OpenAPI document, held against what programs need of it: bounds, names, answers for every outcome; and answers of
//! the server held against the document.

use std::collections::BTreeSet;

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Client, Shop, run_to_end};

fn document() -> Value {
    let printed = run_to_end(&Backend::embedded(), &["openapi"], &[]);
    serde_json::from_slice(&printed.stdout).expect("JSON")
}

/// Every operation, as `GET /products`.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, operations)| {
        let operations = operations.as_object().expect("operations");
        operations
            .iter()
            .map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    });
    operations.collect()
}

/// Every schema that has a type, with the place where it stands. Headers of requests are bounded together.
fn typed_schemas<'a>(place: &str, value: &'a Value, found: &mut Vec<(String, String, &'a Value)>) {
    match value {
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                typed_schemas(&format!("{place}/{index}"), value, found);
            }
        }
        Value::Object(fields) if fields.get("in") == Some(&json!("header")) => {}
        Value::Object(fields) => {
            let kind = match &fields.get("type") {
                Some(Value::Array(kinds)) => kinds[0].as_str(),
                kind => kind.and_then(Value::as_str),
            };
            if let Some(kind) = kind {
                found.push((place.to_owned(), kind.to_owned(), value));
            }
            for (key, value) in fields.iter().filter(|(key, _)| !key.starts_with("example")) {
                typed_schemas(&format!("{place}/{key}"), value, found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_value_has_bounds() {
    let document = document();
    let mut schemas = Vec::new();
    typed_schemas("#", &document["paths"], &mut schemas);
    typed_schemas("#/schemas", &document["components"]["schemas"], &mut schemas);
    typed_schemas("#/headers", &document["components"]["headers"], &mut schemas);

    let mut unbounded = Vec::new();
    for (place, kind, schema) in &schemas {
        let has = |key: &str| schema.get(key).is_some();
        let is_bounded = match kind.as_str() {
            "integer" => {
                has("minimum") && has("maximum") && ["int32", "int64"].iter().any(|it| schema["format"] == *it)
            }
            "string" => has("maxLength") || has("enum"),
            "array" => has("maxItems"),
            "number" => false,
            _ => true,
        };
        if !is_bounded {
            unbounded.push(place);
        }
    }

    assert!(schemas.len() > 80, "{}", schemas.len());
    assert!(unbounded.is_empty(), "no bounds: {unbounded:#?}");
}

#[test]
fn every_operation_says_how_it_can_end_and_no_name_is_an_abbreviation_of_the_code() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let problem = json!({ "$ref": "#/components/schemas/Problem" });

    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let responses = &operation["responses"];
        assert_eq!(
            responses["default"]["content"]["application/problem+json"]["schema"], problem,
            "{name}"
        );
        if operation["tags"][0] != "Health" {
            let headers = &responses["429"]["headers"];
            for header in ["Retry-After", "RateLimit", "RateLimit-Policy"] {
                assert_eq!(
                    headers[header]["$ref"],
                    format!("#/components/headers/{header}"),
                    "{name}"
                );
                assert!(
                    document["components"]["headers"][header]["schema"].is_object(),
                    "{header}"
                );
            }
        }
        let id = operation["operationId"].as_str().expect("an id");
        assert!(!id.starts_with("find"), "GET is get, as everywhere: {id}");
        ids.insert(id);
    }
    for id in ["getOrder", "getProduct", "followOrder", "getHealth", "getReadiness"] {
        assert!(ids.contains(id), "{ids:?}");
    }

    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for name in ["FieldError", "HealthState", "OrderFailure", "OrderFailureReason"] {
        assert!(schemas.contains_key(name), "{name}");
    }
    let known = schemas["Problem"]["properties"]["type"]["enum"]
        .as_array()
        .expect("types");
    assert!(known.contains(&json!("urn:shop:problem:order-failed")));
    let text = document.to_string();
    assert!(
        !text.contains("nullable") && !text.contains("uint"),
        "words of OpenAPI 3.0"
    );
}

/// Whether answers are as the document says.
struct Checker {
    document: Value,
    client: Client,
}

impl Checker {
    async fn send(&self, operation: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let method = operation.split(' ').next().expect("a method");
        let mut request = self.client.request(method.parse::<Method>().expect("a method"), path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }

        let answer = Answer::of(request).await;
        self.check(operation, &answer);
        answer
    }

    fn check(&self, operation: &str, answer: &Answer) {
        let (_, described) = operations(&self.document)
            .into_iter()
            .find(|(name, _)| name == operation)
            .unwrap_or_else(|| panic!("no {operation}"));
        let status = answer.status.to_string();
        let response = &described["responses"][&status];
        assert!(response.is_object(), "{operation} does not say {status}: {answer:?}");

        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let value = answer.header(&name.to_lowercase());
            assert!(
                value.is_some() || self.resolve(header)["required"] != true,
                "{operation} {status} has no {name}"
            );
            if let Some(value) = value {
                let schema = &self.resolve(header)["schema"];
                let number = value.parse::<i64>().ok().filter(|_| schema["type"] == "integer");
                self.validate(schema, &number.map_or_else(|| json!(value), |number| json!(number)));
            }
        }

        let content = answer.header("content-type").unwrap_or_default();
        if response["content"].is_object() {
            let schema = &response["content"][content]["schema"];
            assert!(schema.is_object(), "{operation} {status} is {content}");
            self.validate(schema, &answer.body);
        }
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        reference.map_or(value, |pointer| self.document.pointer(pointer).expect("it exists"))
    }

    fn validate(&self, schema: &Value, value: &Value) {
        let schema = json!({ "allOf": [schema], "components": self.document["components"] });
        let validator: Validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .expect("a schema");
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{value} is not as documented: {errors:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_is_as_the_document_says() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 5), (200, 0)]).await;
    let shop = Shop::serve(&backend);
    let checker = Checker {
        document: document(),
        client: shop.client(),
    };
    let send = async |operation: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>| {
        let answer = checker.send(operation, path, headers, body).await;
        (answer.status, answer)
    };

    // The catalogue.
    let product = json!({ "name": "Mug", "price": 500, "stock": 5 });
    assert_eq!(send("POST /products", "/products", &[], Some(product)).await.0, 201);
    let (status, page) = send("GET /products", "/products?limit=2", &[], None).await;
    let etag = page.header("etag").expect("a tag").to_owned();
    assert!(status == 200 && page.body["next_cursor"].is_string());
    let known = [("If-None-Match", etag.as_str())];
    assert_eq!(send("GET /products", "/products?limit=2", &known, None).await.0, 304);
    assert!(send("GET /products", "/products", &[], None).await.1.body["next_cursor"].is_null());
    assert_eq!(send("GET /products/{id}", "/products/1", &[], None).await.0, 200);
    let (path, change) = ("/products/3", Some(json!({ "price": 700 })));
    assert_eq!(send("PATCH /products/{id}", path, &[], change).await.0, 200);
    let (path, change) = ("/products/3/stock", |delta: i64| {
        Some(json!({ "delta": delta, "reason": "counted" }))
    });
    assert_eq!(send("POST /products/{id}/stock", path, &[], change(3)).await.0, 200);
    assert_eq!(send("POST /products/{id}/stock", path, &[], change(-300)).await.0, 409);

    // An order that is paid, one that fails, and what can be wrong with one.
    let order = |product: i64| Some(json!({ "user_id": 7, "items": [{ "product_id": product, "quantity": 2 }] }));
    for (product, settled) in [(1, 200), (2, 409)] {
        let (_, made) = send("POST /orders", "/orders", &[("Idempotency-Key", "k")], order(product)).await;
        assert_eq!(made.status, if product == 1 { 201 } else { 422 }, "{made:?}");
        let (_, made) = send("POST /orders", "/orders", &[], order(product)).await;
        let path = format!("/orders/{}", made.body["order_id"].as_str().expect("an id"));
        let pay = format!("{path}/pay");
        let declined = Some(json!({ "payment_method": "pm_card_declined" }));
        assert_eq!(send("POST /orders/{id}/pay", &pay, &[], declined).await.0, 402);
        let wait = [("Prefer", "wait=20")];
        assert_eq!(send("POST /orders/{id}/pay", &pay, &wait, None).await.0, settled);
        assert_eq!(send("GET /orders/{id}", &path, &wait, None).await.0, 200);
    }
    assert_eq!(send("GET /orders", "/orders?limit=1", &[], None).await.0, 200);
    assert_eq!(send("POST /orders", "/orders", &[], order(99)).await.0, 422);
    let odd = Some(json!({ "user_id": 0, "a/b~c": [], "items": {} }));
    assert_eq!(send("POST /orders", "/orders", &[], odd).await.0, 400);
    let unknown = "/orders/01900000-0000-7000-8000-000000000000";
    assert_eq!(send("GET /orders/{id}", unknown, &[], None).await.0, 404);
    assert_eq!(send("GET /healthz", "/healthz", &[], None).await.0, 200);
    assert_eq!(send("GET /readyz", "/readyz", &[], None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_around_an_order_is_answered_as_the_document_says() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 50), (200, 50)]).await;
    let shop = Shop::serve(&backend);
    let checker = Checker {
        document: document(),
        client: shop.client(),
    };
    let send = async |operation: &str, path: &str, key: &str, body: Option<Value>| {
        let headers = [("Idempotency-Key", key), ("Prefer", "wait=20")];
        let headers = if key.is_empty() { &headers[1..] } else { &headers[..] };
        let answer = checker.send(operation, path, headers, body).await;
        (answer.status, answer.body)
    };

    // A cart becomes an order, which is paid and refunded.
    let (status, cart) = send("POST /carts", "/carts", "", None).await;
    assert_eq!(status, 201);
    let cart = format!("/carts/{}", cart["cart_id"].as_str().expect("an id"));
    let (item, two) = (format!("{cart}/items/1"), Some(json!({ "quantity": 2 })));
    assert_eq!(send("PUT /carts/{id}/items/{product_id}", &item, "", two).await.0, 200);
    let (other, one) = (format!("{cart}/items/2"), Some(json!({ "quantity": 1 })));
    assert_eq!(send("PUT /carts/{id}/items/{product_id}", &other, "", one).await.0, 200);
    assert_eq!(
        send("DELETE /carts/{id}/items/{product_id}", &other, "", None).await.0,
        200
    );
    assert_eq!(send("GET /carts/{id}", &cart, "", None).await.0, 200);
    let (path, buyer) = (format!("{cart}/checkout"), json!({ "user_id": 7, "hold_seconds": 60 }));
    let (status, order) = send("POST /carts/{id}/checkout", &path, "", Some(buyer)).await;
    assert_eq!(status, 201);

    let order = format!("/orders/{}", order["order_id"].as_str().expect("an id"));
    let (path, all) = (
        format!("{order}/refunds"),
        json!({ "amount": 200, "reason": "returned" }),
    );
    let refund = "POST /orders/{id}/refunds";
    assert_eq!(send(refund, &path, "early", Some(all.clone())).await.0, 409);
    assert_eq!(
        send("POST /orders/{id}/pay", &format!("{order}/pay"), "", None).await.0,
        200
    );
    assert_eq!(
        send("POST /orders/{id}/cancel", &format!("{order}/cancel"), "", None)
            .await
            .0,
        409
    );
    assert_eq!(send(refund, &path, "first", Some(all.clone())).await.0, 201);
    assert_eq!(send(refund, &path, "too-much", Some(all)).await.0, 409);
    assert_eq!(send("GET /orders/{id}/refunds", &path, "", None).await.0, 200);

    // An order that is cancelled, and stock that is changed.
    let body = json!({ "user_id": 7, "hold_seconds": 60, "items": [{ "product_id": 1, "quantity": 1 }] });
    let (_, order) = send("POST /orders", "/orders", "", Some(body)).await;
    let cancel = format!("/orders/{}/cancel", order["order_id"].as_str().expect("an id"));
    assert_eq!(send("POST /orders/{id}/cancel", &cancel, "", None).await.0, 200);
    let line = |expected: i64| {
        let line = json!({ "product_id": 1, "set_to": 40, "expected_stock": expected, "reason": "counted" });
        Some(json!([line]))
    };
    assert_eq!(send("POST /stock-changes", "/stock-changes", "", line(48)).await.0, 200);
    assert_eq!(send("POST /stock-changes", "/stock-changes", "", line(48)).await.0, 409);
    let movements = send("GET /products/{id}/movements", "/products/1/movements", "", None).await;
    assert_eq!(movements.0, 200);
}

/// JSON Schema has one kind of number: 2.0 is an integer. What floating point has rounded is not taken for one.
#[tokio::test]
async fn a_number_without_a_fraction_is_taken_for_an_integer() {
    let backend = Backend::embedded();
    let shop = Shop::serve(&backend);
    let send = async |price: &str| {
        let body = format!(r#"{{ "name": "Mug", "price": {price}, "stock": 5e2 }}"#);
        let request = shop.client().request(Method::POST, "/products");
        Answer::of(request.header("Content-Type", "application/json").body(body)).await
    };

    let made = send("1664.0").await;
    assert_eq!(
        (made.status, &made.body["price"], &made.body["stock"]),
        (201, &json!(1664), &json!(500))
    );
    for refused in ["1664.5", "9007199254740993.0", "1e300"] {
        send(refused).await.problem(400, "invalid-request");
    }
}
