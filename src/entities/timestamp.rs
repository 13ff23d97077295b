//! An instant as both databases store it: `timestamptz` on PostgreSQL, whole microseconds since the Unix epoch on SQLite,
//! which has no time type whose text form sorts and compares safely.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sea_orm::{
    ColIdx, DbBackend, QueryResult, TryGetError, TryGetable, Value,
    sea_query::{self, ArrayType, ColumnType, Nullable, ValueTypeErr},
};
use time::OffsetDateTime;

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The clock of this machine. The edge of the program reads it once and hands it down.
    #[must_use]
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }

    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// How long ago `self` was at `now`; zero when it lies ahead.
    #[must_use]
    pub fn age_at(self, now: Self) -> Duration {
        Duration::from_micros(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// Seconds since the Unix epoch, the unit of Prometheus.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact until the year 2255")]
    pub fn to_seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// For RFC 3339 output. Instants outside the years that RFC 3339 can write become the epoch.
    #[must_use]
    pub fn to_utc(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The value that `backend` stores and compares.
    #[must_use]
    pub fn to_value(self, backend: DbBackend) -> Value {
        match backend {
            DbBackend::Postgres => self.to_utc().into(),
            _ => self.0.into(),
        }
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(instant: OffsetDateTime) -> Self {
        Self(i64::try_from(instant.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX))
    }
}

/// The form of PostgreSQL. SQLite's tables are STRICT and refuse it, so a statement that is meant for both databases
/// binds a timestamp through `db::sql`, which knows the database.
impl From<Timestamp> for Value {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_value(DbBackend::Postgres)
    }
}

impl TryGetable for Timestamp {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        if row.try_as_sqlite_row().is_some() {
            return i64::try_get_by(row, index).map(Self);
        }
        OffsetDateTime::try_get_by(row, index).map(Self::from)
    }
}

impl sea_query::ValueType for Timestamp {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        <OffsetDateTime as sea_query::ValueType>::try_from(value).map(Self::from)
    }

    fn type_name() -> String {
        "Timestamp".to_owned()
    }

    fn array_type() -> ArrayType {
        <OffsetDateTime as sea_query::ValueType>::array_type()
    }

    fn column_type() -> ColumnType {
        <OffsetDateTime as sea_query::ValueType>::column_type()
    }
}

impl Nullable for Timestamp {
    fn null() -> Value {
        OffsetDateTime::null()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_keeps_its_microseconds_in_both_forms() {
        let instant = Timestamp(1_767_225_600_123_456);
        assert_eq!(Timestamp::from(instant.to_utc()), instant);
        assert_eq!(
            instant.to_value(DbBackend::Sqlite),
            Value::from(1_767_225_600_123_456_i64)
        );
        assert_eq!(
            <Timestamp as sea_query::ValueType>::try_from(instant.into()).ok(),
            Some(instant)
        );
    }
}
