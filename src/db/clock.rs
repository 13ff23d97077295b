//! The time at the database, without asking it each time. All processes go by it, so that two machines whose clocks differ agree
//! on what is due, and a clock that is set right meanwhile changes nothing.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::entities::Timestamp;

/// An answer that took longer says too little about when it was given.
const MAX_ROUND_TRIP: Duration = Duration::from_millis(500);

/// What the database's clock showed at a moment of this machine's, which is never set.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<(Instant, Timestamp)>>);

impl Clock {
    /// Notes that the database, asked at `asked` and answering just now, has shown `time`.
    pub(super) fn set(&self, asked: Instant, time: Timestamp) {
        let round_trip = asked.elapsed();
        if round_trip <= MAX_ROUND_TRIP {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked + round_trip / 2, time));
        }
    }

    /// By this machine's clock before the database has been asked.
    pub(super) fn now(&self) -> Timestamp {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.map_or_else(Timestamp::now, |(at, time)| time.plus(at.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_the_database_has_shown() {
        let clock = Clock::default();
        assert!(clock.now() <= Timestamp::now());

        let long_ago = Timestamp(1_000_000);
        clock.set(Instant::now(), long_ago);
        let now = clock.now();
        assert!(
            now >= long_ago && now < long_ago.plus(Duration::from_hours(1)),
            "{now:?}"
        );
    }
}
