//! The values of one column: an array on PostgreSQL, a part of a JSON document on SQLite.

use std::fmt::Write as _;

use sea_orm::{Value, sea_query::ArrayType};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::entities::Timestamp;

/// One column of a table of values, or a list of values.
#[derive(Clone, Debug)]
pub enum Column {
    BigInt(Vec<i64>),
    Uuid(Vec<Uuid>),
    Text(Vec<String>),
    /// JSON documents as text.
    Json(Vec<String>),
    Timestamp(Vec<Timestamp>),
}

impl Column {
    pub(super) fn array_type(&self) -> &'static str {
        match self {
            Self::BigInt(_) => "bigint[]",
            Self::Uuid(_) => "uuid[]",
            Self::Text(_) => "text[]",
            Self::Json(_) => "text[]::jsonb[]",
            Self::Timestamp(_) => "timestamptz[]",
        }
    }

    pub(super) fn into_array(self) -> Value {
        fn array<T: Into<Value>>(kind: ArrayType, values: Vec<T>) -> Value {
            Value::Array(kind, Some(Box::new(values.into_iter().map(Into::into).collect())))
        }
        match self {
            Self::BigInt(values) => array(ArrayType::BigInt, values),
            Self::Uuid(values) => array(ArrayType::Uuid, values),
            Self::Text(values) | Self::Json(values) => array(ArrayType::String, values),
            Self::Timestamp(values) => array(ArrayType::TimeDateTimeWithTimeZone, values),
        }
    }

    /// How SQLite reads a value of this column out of JSON.
    pub(super) fn decode_json(&self, value: &str) -> String {
        match self {
            // A UUID is stored as its 16 bytes.
            Self::Uuid(_) => format!("unhex({value})"),
            _ => value.to_owned(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::BigInt(values) => values.len(),
            Self::Uuid(values) => values.len(),
            Self::Text(values) | Self::Json(values) => values.len(),
            Self::Timestamp(values) => values.len(),
        }
    }

    fn write_json(&self, row: usize, json: &mut String) {
        let _ = match self {
            Self::BigInt(values) => write!(json, "{}", values[row]),
            Self::Timestamp(values) => write!(json, "{}", values[row].0),
            Self::Uuid(values) => write!(json, "\"{}\"", values[row].simple()),
            // The Display of a JSON value is JSON.
            Self::Text(values) | Self::Json(values) => write!(json, "{}", Json::from(values[row].as_str())),
        };
    }
}

/// `[[first of row, second of row, …], …]`
pub(super) fn rows_as_json(columns: &[(&'static str, Column)]) -> String {
    let rows = columns.iter().map(|(_, column)| column.len()).max().unwrap_or(0);
    let mut json = String::with_capacity(rows * columns.len() * 24 + 2);

    json.push('[');
    for row in 0..rows {
        json.push_str(if row == 0 { "[" } else { ",[" });
        for (index, (_, column)) in columns.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            column.write_json(row, &mut json);
        }
        json.push(']');
    }
    json.push(']');
    json
}

/// `[value, …]`
pub(super) fn list_as_json(column: &Column) -> String {
    let mut json = String::with_capacity(column.len() * 24 + 2);
    json.push('[');
    for row in 0..column.len() {
        if row > 0 {
            json.push(',');
        }
        column.write_json(row, &mut json);
    }
    json.push(']');
    json
}
