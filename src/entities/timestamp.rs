//! An instant as both databases store it. SQLite has no time type, and its text form neither sorts nor compares
//! safely, so an instant is an integer everywhere below the API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sea_orm::DeriveValueType;
use time::OffsetDateTime;

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, DeriveValueType)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The clock of this machine. The edge reads it once and hands it down.
    #[must_use]
    pub fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long ago `self` was at `now`; zero when it lies ahead.
    #[must_use]
    pub fn age_at(self, now: Self) -> Duration {
        Duration::from_micros(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// Seconds since the Unix epoch, as figures are given in.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact until the year 2255")]
    pub fn to_seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// For RFC 3339 output; instants outside the years that RFC 3339 can write become the epoch.
    #[must_use]
    pub fn to_utc(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}
