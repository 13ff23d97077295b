//! The status of an order.

use sea_orm::{
    ColIdx, QueryResult, TryGetError, TryGetable, Value,
    sea_query::{self, ArrayType, ColumnType, Nullable, ValueTypeErr},
};

use super::unknown;

/// PENDING until settled, then PAID or FAILED for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderStatus {
    Pending,
    Paid,
    Failed,
    /// One that this version does not know. Such an order is shown as it is and otherwise left alone.
    Other(&'static str),
}

impl OrderStatus {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Paid => "PAID",
            Self::Failed => "FAILED",
            Self::Other(text) => text,
        }
    }

    /// Whether the order never changes again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Paid | Self::Failed)
    }
}

impl From<&str> for OrderStatus {
    fn from(text: &str) -> Self {
        let known = [Self::Pending, Self::Paid, Self::Failed];
        let known = known.into_iter().find(|status| status.as_str() == text);
        known.unwrap_or_else(|| Self::Other(unknown::keep(text)))
    }
}

impl From<OrderStatus> for Value {
    fn from(status: OrderStatus) -> Self {
        status.as_str().into()
    }
}

impl TryGetable for OrderStatus {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        String::try_get_by(row, index).map(|text| Self::from(&*text))
    }
}

impl sea_query::ValueType for OrderStatus {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        <String as sea_query::ValueType>::try_from(value).map(|text| Self::from(&*text))
    }

    fn type_name() -> String {
        "OrderStatus".to_owned()
    }

    fn array_type() -> ArrayType {
        <String as sea_query::ValueType>::array_type()
    }

    fn column_type() -> ColumnType {
        ColumnType::Text
    }
}

impl Nullable for OrderStatus {
    fn null() -> Value {
        String::null()
    }
}
