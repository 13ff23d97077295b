//! JSON in which no name comes twice in an object (RFC 8259, section 4), however it is spelled. Most readers take the last
//! one of two, others the first, so that a proxy that checks a request and the server that obeys it may see two
//! different ones.

use std::{cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value, map::Entry};

use super::problem::{MAX_ERRORS, pointer::escaped};

/// As many repeated names are listed: more than one answer has room for.
const MAX_REPEATED: usize = MAX_ERRORS + 1;

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub struct StrictJson {
    /// Of a name that is repeated, the last value.
    pub value: Value,
    /// Where names are repeated, as JSON Pointers (RFC 6901).
    pub repeated: Vec<String>,
}

impl StrictJson {
    /// # Errors
    /// Where the text is no JSON.
    pub fn parse(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }

    /// An object with nothing in it.
    pub fn empty() -> Self {
        Self {
            value: Value::Object(Map::new()),
            repeated: Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for StrictJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let repeated = RefCell::default();
        let root = Place {
            parent: None,
            step: Step::Root,
            repeated: &repeated,
        };

        let value = root.deserialize(deserializer)?;
        Ok(Self {
            value,
            repeated: repeated.into_inner(),
        })
    }
}

/// Where in a text a value stands. It lives as long as the value is read; the way is written down where it is needed.
#[derive(Clone, Copy)]
struct Place<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
    repeated: &'a RefCell<Vec<String>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Name(&'a str),
    Index(usize),
}

impl Place<'_> {
    fn inside<'a>(&'a self, step: Step<'a>) -> Place<'a> {
        Place {
            parent: Some(self),
            step,
            repeated: self.repeated,
        }
    }

    fn pointer(&self) -> String {
        let before = self.parent.map(Place::pointer).unwrap_or_default();
        match self.step {
            Step::Root => before,
            Step::Name(name) => format!("{before}/{}", escaped(name)),
            Step::Index(index) => format!("{before}/{index}"),
        }
    }

    /// Notes that `name` is repeated in the object here.
    fn note_repeated(&self, name: &str) {
        let mut repeated = self.repeated.borrow_mut();
        if repeated.len() >= MAX_REPEATED {
            return;
        }

        let pointer = self.inside(Step::Name(name)).pointer();
        if !repeated.contains(&pointer) {
            repeated.push(pointer);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(self.inside(Step::Index(values.len())))? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(self.inside(Step::Name(&name)))?;
            match fields.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    self.note_repeated(entry.key());
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_any_reader_reads_it() {
        for text in [
            "null",
            " [true, false, -1, 0, 18446744073709551615, 1.5e3, \"a\\u00e9\\n\"] ",
            r#"{"a": {"b": [{}, []]}, "": "", "~/": null}"#,
        ] {
            let expected: Value = serde_json::from_str(text).expect("JSON");
            let read = StrictJson::parse(text.as_bytes()).expect("JSON");
            assert_eq!((read.value, read.repeated), (expected, Vec::new()), "{text}");
        }

        for text in [
            "",
            "{",
            "[1,]",
            "1 2",
            "{\"a\" 1}",
            "{1: 2}",
            "1e999",
            "\"\\ud800\"",
            "nul",
        ] {
            let expected = serde_json::from_str::<Value>(text).expect_err("no JSON").to_string();
            let error = StrictJson::parse(text.as_bytes()).expect_err("no JSON").to_string();
            assert_eq!(error, expected, "{text}");
        }
        assert!(StrictJson::parse("[".repeat(200).as_bytes()).is_err());
    }

    #[test]
    fn every_name_that_comes_twice_is_found_at_any_depth_and_in_any_spelling() {
        for (text, repeated) in [
            (r#"{"a":1,"a":1}"#, &["/a"][..]),
            (r#"{"a":1,"\u0061":2,"a":3}"#, &["/a"]),
            (r#"{"x":[{},{"~/":1,"~\/":2}]}"#, &["/x/1/~0~1"]),
            (
                r#"{"a":{"b":1,"b":2},"c":{"b":1},"a":{"b":{"d":0,"d":0}}}"#,
                &["/a/b", "/a/b/d", "/a"],
            ),
            (r#"[[{"":0,"":0}]]"#, &["/0/0/"]),
            (r#"{"a":1,"A":2,"á":3,"a\u0301":4}"#, &[]),
        ] {
            assert_eq!(
                StrictJson::parse(text.as_bytes()).expect("JSON").repeated,
                repeated,
                "{text}"
            );
        }
    }
}
