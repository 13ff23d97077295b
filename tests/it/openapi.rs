//! The OpenAPI document, held against what programs need of it: bounds, names, answers for every outcome.

mod answers;

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Shop, run_to_end};

/// Words for people, and what a payment provider calls a method (docs/adr/0024): any characters.
const FREE_TEXTS: [&str; 4] = [
    "FieldError/properties/detail",
    "Problem/properties/detail",
    "Problem/properties/title",
    "Payment/properties/payment_method",
];

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

    let is_free = |(place, kind, schema): &&(String, String, &Value)| {
        let has_form = ["format", "pattern", "enum"]
            .iter()
            .any(|key| schema.get(key).is_some());
        kind == "string" && !has_form && !FREE_TEXTS.iter().any(|text| place.ends_with(text))
    };
    let free: Vec<&String> = schemas.iter().filter(is_free).map(|(place, ..)| place).collect();
    assert!(free.is_empty(), "any text: {free:#?}");
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

/// Swagger UI sends them as they are.
#[test]
fn every_example_fits_its_schema() {
    let document = document();
    let mut tried = 0;
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        let components = &document["components"];
        let of_name = json!({ "$ref": format!("#/components/schemas/{name}"), "components": components });
        let validator = jsonschema::draft202012::new(&of_name).expect("a schema");
        for example in schema["examples"].as_array().into_iter().flatten() {
            let errors: Vec<String> = validator.iter_errors(example).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{name}: {errors:#?}");
            tried += 1;
        }
    }
    assert!(tried > 15, "{tried}");
}

/// Generators make of `anyOf` and `oneOf` types that lack all fields outside of them.
#[test]
fn no_schema_of_fields_is_a_choice() {
    let document = document();
    let mut schemas = Vec::new();
    typed_schemas("#/schemas", &document["components"]["schemas"], &mut schemas);
    let is_choice = |(_, kind, schema): &&(String, String, &Value)| {
        kind == "object" && ["allOf", "anyOf", "oneOf"].iter().any(|key| schema.get(key).is_some())
    };
    let choices: Vec<&String> = schemas.iter().filter(is_choice).map(|(place, ..)| place).collect();
    assert!(choices.is_empty(), "{choices:#?}");
    assert!(document["components"]["schemas"]["NewRefund"]["if"].is_object());
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
