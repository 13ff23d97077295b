//! An instant as both databases store it: `timestamptz` on PostgreSQL, whole microseconds since the Unix epoch on SQLite,
//! which has no time type whose text form sorts and compares safely.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sea_orm::{
    ColIdx, DbBackend, DbErr, QueryResult, RuntimeErr, TryGetError, TryGetable, Value,
    sea_query::{self, ArrayType, ColumnType, Nullable, ValueTypeErr},
};
use sqlx::{
    Postgres, Row as _,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueFormat, PgValueRef},
};
use time::OffsetDateTime;

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z in microseconds since the Unix epoch.
const FIRST_MICROS: i64 = -62_167_219_200_000_000;
const LAST_MICROS: i64 = 253_402_300_799_999_999;
/// PostgreSQL counts from 2000-01-01T00:00:00Z.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Microseconds since the Unix epoch, UTC. PostgreSQL's `infinity` is a time that is later than all others.
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

    /// The first instant that is not before `limit`, which may say more than microseconds.
    #[must_use]
    pub fn not_before(limit: OffsetDateTime) -> Self {
        let nanos = limit.unix_timestamp_nanos();
        let micros = nanos.div_euclid(1_000) + i128::from(nanos.rem_euclid(1_000) != 0);
        Self(i64::try_from(micros).unwrap_or(i64::MAX))
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

    /// For RFC 3339 output. What lies before or after the years 0000 to 9999, which are all that RFC 3339 can write, becomes
    /// the first or the last moment of them.
    #[must_use]
    pub fn to_utc(self) -> OffsetDateTime {
        let micros = self.0.clamp(FIRST_MICROS, LAST_MICROS);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
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
        let Some(row) = row.try_as_pg_row() else {
            return i64::try_get_by(row, index).map(Self);
        };
        let stored: Option<Self> = row
            .try_get(index.as_sqlx_postgres_index())
            .map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))?;
        stored.ok_or_else(|| TryGetError::Null(format!("{index:?}")))
    }
}

impl sqlx::Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as sqlx::Type<Postgres>>::type_info()
    }
}

/// The driver's own types cannot hold what lies outside the years of RFC 3339, `infinity` for one, and panic.
impl<'row> sqlx::Decode<'row, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'row>) -> Result<Self, BoxDynError> {
        if value.format() == PgValueFormat::Text {
            return <OffsetDateTime as sqlx::Decode<Postgres>>::decode(value).map(Self::from);
        }
        let since_2000 = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Self(since_2000.saturating_add(POSTGRES_EPOCH_MICROS)))
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
    use time::format_description::well_known::Rfc3339;

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

    #[test]
    fn a_limit_between_two_microseconds_begins_with_the_later_one() {
        for (nanos, micros) in [
            (0, 0),
            (1, 1),
            (1_000, 1),
            (1_001, 2),
            (-1, 0),
            (-1_000, -1),
            (-1_999, -1),
        ] {
            let limit = OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("in the calendar");
            assert_eq!(Timestamp::not_before(limit), Timestamp(micros), "{nanos}");
        }
    }

    #[test]
    fn an_instant_beyond_the_calendar_is_written_as_its_last_or_first() {
        for (instant, written) in [
            (Timestamp(i64::MAX), "9999-12-31T23:59:59.999999Z"),
            (Timestamp(i64::MIN), "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(instant.to_utc().format(&Rfc3339).ok().as_deref(), Some(written));
        }
    }
}
