//! UUIDs of version 7 (RFC 9562, section 5.7), which begin with the time at which they were made.

use std::{panic::AssertUnwindSafe, sync::Mutex};

use uuid::{ContextV7, Uuid};

use crate::entities::Timestamp;

/// What this process has given out.
static GIVEN: Mutex<AssertUnwindSafe<ContextV7>> = Mutex::new(AssertUnwindSafe(ContextV7::new()));

const MICROS_IN_A_MILLI: i64 = 1_000;
/// The bits of an id after its time.
const RANDOM_BITS: u32 = 80;

/// A new id, higher than all that this process has given out, and the instant that it begins with: `now`, unless the clock was
/// set back.
#[must_use]
pub fn new_id(now: Timestamp) -> (Uuid, Timestamp) {
    const MICROS_IN_A_SECOND: i64 = 1_000_000;

    let seconds = u64::try_from(now.0.div_euclid(MICROS_IN_A_SECOND)).unwrap_or(0);
    let nanos = u32::try_from(now.0.rem_euclid(MICROS_IN_A_SECOND) * 1_000).unwrap_or(0);
    let id = Uuid::new_v7(uuid::Timestamp::from_unix(&GIVEN, seconds, nanos));
    (id, now.max(instant_of(id)))
}

/// The lowest id that can be made at this instant: ids made before it are lower, ids made from then on are not.
#[must_use]
pub fn first_id_at(instant: Timestamp) -> Uuid {
    let millis = u128::try_from(instant.0.div_euclid(MICROS_IN_A_MILLI)).unwrap_or(0);
    Uuid::from_u128(millis << RANDOM_BITS)
}

/// The instant that an id of version 7 begins with, to the millisecond.
#[must_use]
pub fn instant_of(id: Uuid) -> Timestamp {
    let millis = i64::try_from(id.as_u128() >> RANDOM_BITS).unwrap_or(i64::MAX / MICROS_IN_A_MILLI);
    Timestamp(millis * MICROS_IN_A_MILLI)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_and_begin_with_their_instant_also_when_the_clock_is_set_back() {
        let start = Timestamp(1_767_225_600_123_456);
        let (first, at) = new_id(start);
        assert_eq!((at, instant_of(first)), (start, Timestamp(1_767_225_600_123_000)));

        let mut last = first;
        for micros in [1, 2, 1_000, 999, -5_000_000, 2_000] {
            let now = Timestamp(start.0 + micros);
            let (id, at) = new_id(now);
            assert!(id > last && at >= now, "{micros}");
            assert!(at.0 - instant_of(id).0 < 1_000, "{micros}: {at:?}");
            last = id;
        }
    }

    #[test]
    fn ids_of_an_instant_lie_between_the_first_of_it_and_the_first_of_the_next() {
        let instant = Timestamp(1_767_225_600_123_456);
        let id = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_767_225_600, 123_456_000));

        assert!(first_id_at(instant) <= id && id < first_id_at(Timestamp(instant.0 + 1_000)));
        assert_eq!(first_id_at(Timestamp(-1)), Uuid::nil());
        assert_eq!(instant_of(id), Timestamp(1_767_225_600_123_000));
    }
}
