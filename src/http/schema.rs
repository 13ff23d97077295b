//! Corrections to the JSON schemas that the framework writes. The published document and the validation of bodies use
//! the same ones, so what is documented is what is enforced.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

const PREFIX: &str = "#/components/schemas/";

/// A reference to the schema of this name.
pub fn reference(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Corrects what the framework writes in a way that says something else than it means.
pub fn correct(schemas: &mut Value) {
    write_whole_numbers(schemas);
    dedupe_descriptions(schemas);
}

/// Adds `additionalProperties: false` to the schemas of objects that requests send: those of `roots`, and all that they
/// refer to.
pub fn deny_unknown_fields(schemas: &mut Map<String, Value>, roots: BTreeSet<String>) {
    for name in reachable(schemas, roots) {
        if let Some(Value::Object(schema)) = schemas.get_mut(&name)
            && schema.get("type").is_some_and(|kind| kind == "object")
        {
            schema.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
}

/// `schema` as a document of its own, which has those components out of `schemas` that it refers to, and no others: a
/// validator keeps copies of what it is made from.
pub fn with_components(schema: &Value, schemas: &Value) -> Value {
    let none = Map::new();
    let schemas = schemas.as_object().unwrap_or(&none);
    let needed = reachable(schemas, references(schema));
    let needed: Map<String, Value> = needed
        .into_iter()
        .map(|name| (name.clone(), schemas[&name].clone()))
        .collect();
    json!({ "allOf": [schema], "components": { "schemas": needed } })
}

/// The names of those `schemas` that `roots` name, directly or not.
fn reachable(schemas: &Map<String, Value>, roots: BTreeSet<String>) -> BTreeSet<String> {
    let mut reachable = BTreeSet::new();
    let mut open: Vec<String> = roots.into_iter().collect();
    while let Some(name) = open.pop() {
        if let Some(schema) = schemas.get(&name)
            && reachable.insert(name)
        {
            open.extend(references(schema));
        }
    }
    reachable
}

/// The names of the schemas that `value` refers to anywhere in it.
pub fn references(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(references).collect(),
        Value::Object(fields) => {
            let named = fields.get("$ref").and_then(Value::as_str);
            let named = named.and_then(|reference| reference.strip_prefix(PREFIX));
            let below = fields.values().flat_map(references);
            below.chain(named.map(str::to_owned)).collect()
        }
        _ => BTreeSet::new(),
    }
}

/// Drops a description that the framework writes a second time beside a reference: it would hide that the field is just
/// of another type.
fn dedupe_descriptions(value: &mut Value) {
    if let Some(parts) = value.get_mut("allOf").and_then(Value::as_array_mut) {
        let is_description = |part: &Value| {
            let fields = part.as_object();
            fields.is_some_and(|fields| fields.len() == 1 && fields.contains_key("description"))
        };
        parts.retain(|part| !is_description(part));
    }

    match value {
        Value::Array(values) => values.iter_mut().for_each(dedupe_descriptions),
        Value::Object(fields) => fields.values_mut().for_each(dedupe_descriptions),
        _ => {}
    }
}

/// Writes 1 where `value` has 1.0: the framework, which keeps bounds as floating point, and clients whose language has one
/// kind of number. To JSON Schema both are integers. A number that floating point cannot tell from others stays as it is.
pub fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && is_whole(*float))
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

fn is_whole(float: f64) -> bool {
    /// 2 to the power of 53: beyond it, neighbours are more than 1 apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    float.fract() == 0.0 && float.abs() < EXACT
}

/// Writes a choice between two sets of fields as a condition. Of `anyOf` and `oneOf` generators make types that lack all other
/// fields; conditions they pass over.
pub fn choice_to_condition(schema: &mut Map<String, Value>) {
    if let Some([one, other]) = choice(schema, "anyOf") {
        schema.insert("if".to_owned(), json!({ "not": { "required": one["required"] } }));
        schema.insert("then".to_owned(), other);
    }
    if let Some([one, other]) = choice(schema, "oneOf") {
        schema.insert("then".to_owned(), json!({ "not": { "required": other["required"] } }));
        schema.insert("if".to_owned(), one);
        schema.insert("else".to_owned(), other);
    }
}

/// Takes two alternatives, of which each asks for fields, out of a schema.
fn choice(schema: &mut Map<String, Value>, key: &str) -> Option<[Value; 2]> {
    let [one, other] = schema.get(key)?.as_array()?.as_slice() else {
        return None;
    };
    let asks = |alternative: &Value| alternative.get("required").is_some() && alternative.get("type").is_none();
    if !(asks(one) && asks(other)) {
        return None;
    }

    let choice = [one.clone(), other.clone()];
    schema.remove(key);
    Some(choice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_without_a_fraction_is_an_integer_if_it_is_exact() {
        let mut value = json!({ "a": [2.0, -0.0, 1e3], "b": 2.5, "c": 9_007_199_254_740_992.0_f64, "d": 1e300 });
        write_whole_numbers(&mut value);
        let expected = json!({ "a": [2, 0, 1_000], "b": 2.5, "c": 9_007_199_254_740_992.0_f64, "d": 1e300 });
        assert_eq!(value, expected);
    }

    #[test]
    fn unknown_fields_are_denied_in_what_requests_send_and_nowhere_else() {
        let mut schemas = json!({
            "Sent": { "type": "object", "properties": { "part": { "items": { "$ref": reference("Part") } } } },
            "Part": { "type": "object", "properties": { "whole": { "allOf": [{ "$ref": reference("Sent") }] } } },
            "Answered": { "type": "object" },
            "Word": { "type": "string" },
        });
        let schemas = schemas.as_object_mut().expect("an object");

        deny_unknown_fields(schemas, ["Sent".to_owned(), "Word".to_owned()].into());

        let closed = schemas
            .iter()
            .filter(|(_, schema)| schema["additionalProperties"] == false);
        assert_eq!(closed.map(|(name, _)| name).collect::<Vec<_>>(), ["Part", "Sent"]);
    }

    #[test]
    fn a_choice_between_fields_is_a_condition_that_says_the_same() {
        let schemas = [
            json!({ "anyOf": [
                { "required": ["a"] },
                { "required": ["b"], "properties": { "b": { "minimum": 1 } } },
            ] }),
            json!({ "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] }),
        ];
        let is_valid = |schema: &Value, value: &Value| jsonschema::draft202012::is_valid(schema, value);

        for choice in schemas {
            let mut condition = choice.clone();
            choice_to_condition(condition.as_object_mut().expect("an object"));
            assert!(condition.get("anyOf").is_none() && condition.get("oneOf").is_none());
            for value in [
                json!({}),
                json!({ "a": 0 }),
                json!({ "b": 0 }),
                json!({ "b": 1 }),
                json!({ "a": 0, "b": 0 }),
            ] {
                assert_eq!(
                    is_valid(&condition, &value),
                    is_valid(&choice, &value),
                    "{condition}: {value}"
                );
            }
        }

        let other = json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] });
        let mut same = other.clone();
        choice_to_condition(same.as_object_mut().expect("an object"));
        assert_eq!(same, other);
    }
}
