//! Every schema of the OpenAPI document: a way to visit them all, the bounds of values whose form implies them, and the
//! step from the OpenAPI 3.0 that the framework writes to 3.1.

use serde_json::{Map, Value, json};

/// A schema as the document writes it.
type Schema = Map<String, Value>;

/// A UUID in its usual form (RFC 9562).
const UUID_LENGTH: u64 = 36;
/// A time of this API: RFC 3339 in UTC with microseconds.
const TIME_LENGTH: u64 = 27;

/// Calls `change` with every schema of the document, and with the name of the property, parameter or header that it
/// describes; with the name of the schema itself where it has one.
pub(super) fn visit(document: &mut Value, change: &mut impl FnMut(&str, &mut Schema)) {
    for (name, schema) in document["components"]["schemas"].as_object_mut().into_iter().flatten() {
        visit_schema(name, schema, change);
    }
    for (name, header) in document["components"]["headers"].as_object_mut().into_iter().flatten() {
        visit_schema(name, &mut header["schema"], change);
    }
    visit_described("", &mut document["paths"], change);
}

/// Finds the schemas of parameters, headers and contents.
fn visit_described(name: &str, value: &mut Value, change: &mut impl FnMut(&str, &mut Schema)) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| visit_described(name, value, change)),
        Value::Object(fields) => {
            let own_name = fields.get("name").and_then(Value::as_str).map(str::to_owned);
            for (key, value) in fields.iter_mut() {
                match key.as_str() {
                    "schema" => visit_schema(own_name.as_deref().unwrap_or(name), value, change),
                    "example" | "examples" => {}
                    key => visit_described(key, value, change),
                }
            }
        }
        _ => {}
    }
}

fn visit_schema(name: &str, schema: &mut Value, change: &mut impl FnMut(&str, &mut Schema)) {
    let Value::Object(schema) = schema else { return };

    change(name, schema);
    for (property, schema) in schema
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        visit_schema(property, schema, change);
    }
    for key in ["items", "not", "additionalProperties"] {
        if let Some(schema) = schema.get_mut(key) {
            visit_schema(name, schema, change);
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for schema in schema.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            visit_schema(name, schema, change);
        }
    }
}

/// Bounds what the form of a value bounds: an id counts from 1, an integer has as many bits as its format, a UUID and a
/// time have a length. Other bounds stand where the value is declared.
pub(super) fn set_bounds(name: &str, schema: &mut Schema) {
    let (kind, format) = (text(schema, "type"), text(schema, "format"));
    let mut set = |key: &str, bound: Value| {
        schema.entry(key).or_insert(bound);
    };

    match (kind.as_str(), format.as_str()) {
        ("integer", format) => {
            let is_id = name == "id" || name.ends_with("_id");
            let (min, max) = match format {
                "int64" => (i64::MIN, i64::MAX),
                _ => (i32::MIN.into(), i32::MAX.into()),
            };
            set("minimum", if is_id { 1 } else { min }.into());
            set("maximum", max.into());
            if format != "int64" {
                // The registry of formats has no others for whole numbers that every generator knows.
                schema.insert("format".to_owned(), json!("int32"));
            }
        }
        ("string", "uuid") => set("maxLength", UUID_LENGTH.into()),
        ("string", "date-time") => set("maxLength", TIME_LENGTH.into()),
        _ => {}
    }
}

/// Writes in JSON Schema 2020-12 what OpenAPI 3.0 has words of its own for.
pub(super) fn to_2020_12(schema: &mut Schema) {
    if schema.remove("nullable") == Some(Value::Bool(true)) {
        let kind = schema.remove("type").unwrap_or_default();
        schema.insert("type".to_owned(), json!([kind, "null"]));
    }
    if let Some(mut example) = schema.remove("example") {
        leave_out_absent(&mut example, schema);
        schema.insert("examples".to_owned(), json!([example]));
    }
}

/// The framework writes a field that an example does not have as null, which most fields must not be.
fn leave_out_absent(example: &mut Value, schema: &Schema) {
    let properties = schema.get("properties");
    let may_be_null = |name: &str| properties.is_some_and(|properties| properties[name]["nullable"] == true);
    if let Some(fields) = example.as_object_mut() {
        fields.retain(|name, value| !value.is_null() || may_be_null(name));
    }
}

fn text(schema: &Schema, key: &str) -> String {
    schema.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_visited_by_the_name_of_what_it_describes_and_no_example_is() {
        let mut document = json!({
            "paths": { "/things": { "get": {
                "parameters": [{ "name": "limit", "schema": { "type": "integer" }, "example": { "schema": {} } }],
                "responses": { "200": {
                    "headers": { "ETag": { "schema": { "type": "string" } } },
                    "content": { "application/json": { "schema": { "items": { "type": "object" } } } },
                } },
            } } },
            "components": {
                "schemas": { "Thing": { "properties": { "part": { "allOf": [{ "not": {} }] } } } },
                "headers": { "Age": { "schema": {} } },
            },
        });

        let mut visited = Vec::new();
        visit(&mut document, &mut |name, _| visited.push(name.to_owned()));

        visited.sort_unstable();
        let json = "application/json";
        assert_eq!(
            visited,
            ["Age", "ETag", "Thing", json, json, "limit", "part", "part", "part"]
        );
    }

    #[test]
    fn bounds_come_from_the_form_of_a_value_unless_they_are_declared() {
        let bounded = |name: &str, schema: Value| {
            let Value::Object(mut schema) = schema else {
                panic!("a schema")
            };
            set_bounds(name, &mut schema);
            Value::Object(schema)
        };

        let big = json!({ "type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX });
        assert_eq!(bounded("delta", json!({ "type": "integer", "format": "int64" })), big);
        let id = bounded("user_id", json!({ "type": "integer", "format": "int64" }));
        assert_eq!(id["minimum"], 1);
        let small = json!({ "type": "integer", "format": "int32", "minimum": 400, "maximum": i32::MAX });
        assert_eq!(
            bounded(
                "status",
                json!({ "type": "integer", "format": "uint16", "minimum": 400 })
            ),
            small
        );
        assert_eq!(
            bounded("id", json!({ "type": "string", "format": "uuid" }))["maxLength"],
            36
        );
        assert_eq!(
            bounded("name", json!({ "type": "string" })),
            json!({ "type": "string" })
        );
    }

    #[test]
    fn what_may_be_null_and_what_has_an_example_is_written_as_json_schema_writes_it() {
        let schema = json!({ "type": "string", "nullable": true, "example": "x", "maxLength": 3 });
        let Value::Object(mut schema) = schema else {
            panic!("a schema")
        };

        to_2020_12(&mut schema);

        let expected = json!({ "type": ["string", "null"], "examples": ["x"], "maxLength": 3 });
        assert_eq!(Value::Object(schema), expected);

        let properties = json!({ "a": { "type": "string", "nullable": true }, "b": { "type": "string" } });
        let schema = json!({ "properties": properties, "example": { "a": null, "b": null, "c": 1 } });
        let Value::Object(mut schema) = schema else {
            panic!("a schema")
        };
        to_2020_12(&mut schema);
        assert_eq!(schema["examples"], json!([{ "a": null, "c": 1 }]));
    }
}
