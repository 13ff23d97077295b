//! Why an order has failed: what this version decides, and what may be stored.

use sea_orm::{
    ColIdx, QueryResult, TryGetError, TryGetable, Value,
    sea_query::{self, ArrayType, ColumnType, Nullable, ValueTypeErr},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: FailureReason,
    /// The lines that were short; empty for reasons that are not about a line.
    pub lines: Vec<ShortLine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// At least one line was short when the paid order was settled.
    InsufficientStock,
    /// Its customer or an administrator cancelled it before a payment was accepted.
    Cancelled,
    /// No payment was accepted before its hold ended.
    Expired,
}

impl FailureReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InsufficientStock => "insufficient_stock",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// A line that could not be served, with what was on the shelf when its turn came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortLine {
    pub product_id: i64,
    pub requested: i64,
    pub available: i64,
}

/// A failure as it is stored. A newer version that runs beside this one, or somebody by hand, may have stored a reason and
/// fields that this version does not know: they are passed on as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StoredFailure {
    Known(Failure),
    /// An object with a reason and a list of lines, and whatever else.
    Other(Json),
}

impl StoredFailure {
    /// `None` if this version does not know the reason.
    #[must_use]
    pub fn reason(&self) -> Option<FailureReason> {
        match self {
            Self::Known(failure) => Some(failure.reason),
            Self::Other(failure) => FailureReason::deserialize(&failure["reason"]).ok(),
        }
    }

    /// Whatever is stored, readers find a reason and a list of lines.
    fn read(stored: Json) -> Self {
        if let Ok(known) = Failure::deserialize(&stored)
            && json!(known) == stored
        {
            return Self::Known(known);
        }

        let mut failure = if stored.is_object() { stored } else { json!({}) };
        if !failure["reason"].is_string() {
            failure["reason"] = json!("unknown");
        }
        if !failure["lines"].is_array() {
            failure["lines"] = json!([]);
        }
        Self::Other(failure)
    }
}

impl From<Failure> for StoredFailure {
    fn from(failure: Failure) -> Self {
        Self::Known(failure)
    }
}

impl From<StoredFailure> for Value {
    fn from(failure: StoredFailure) -> Self {
        json!(failure).into()
    }
}

impl TryGetable for StoredFailure {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        match Json::try_get_by(row, index) {
            Ok(stored) => Ok(Self::read(stored)),
            Err(TryGetError::Null(column)) => Err(TryGetError::Null(column)),
            // Not JSON, or a number beyond all bounds.
            Err(TryGetError::DbErr(_)) => Ok(Self::read(Json::Null)),
        }
    }
}

impl sea_query::ValueType for StoredFailure {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        <Json as sea_query::ValueType>::try_from(value).map(Self::read)
    }

    fn type_name() -> String {
        "StoredFailure".to_owned()
    }

    fn array_type() -> ArrayType {
        <Json as sea_query::ValueType>::array_type()
    }

    fn column_type() -> ColumnType {
        ColumnType::JsonBinary
    }
}

impl Nullable for StoredFailure {
    fn null() -> Value {
        Json::null()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_passed_on_and_has_a_reason_and_lines() {
        let short = json!({ "product_id": 1, "requested": 2, "available": 0 });
        for (stored, passed_on) in [
            (json!({ "reason": "insufficient_stock", "lines": [short] }), None),
            (
                json!({ "reason": "card_reversed", "lines": [], "card": { "last4": "42" } }),
                None,
            ),
            (
                json!({ "reason": "odd", "lines": [short, { "product_id": 2 }, "x"] }),
                None,
            ),
            (
                json!({ "reason": "gone" }),
                Some(json!({ "reason": "gone", "lines": [] })),
            ),
            (
                json!({ "reason": 7, "lines": {} }),
                Some(json!({ "reason": "unknown", "lines": [] })),
            ),
            (json!(["gone"]), Some(json!({ "reason": "unknown", "lines": [] }))),
            (json!(null), Some(json!({ "reason": "unknown", "lines": [] }))),
        ] {
            let failure = StoredFailure::read(stored.clone());
            assert_eq!(json!(failure), passed_on.unwrap_or(stored));
        }
    }
}
