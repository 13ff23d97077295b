//! Texts of the database that this version does not know: a newer one that runs beside it has stored them, or somebody by hand.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// The most texts that are kept, and the longest of them.
const MAX_KEPT: usize = 100;
const MAX_LENGTH: usize = 100;
/// What stands for all others.
const UNKNOWN: &str = "UNKNOWN";

/// The same text for as long as the process lives, so that what names it can be copied. A newer version has few names that
/// this one does not know.
pub(super) fn keep(text: &str) -> &'static str {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);

    if let Some(known) = kept.get(text) {
        return known;
    }
    if kept.len() >= MAX_KEPT || text.len() > MAX_LENGTH {
        return UNKNOWN;
    }
    let text: &'static str = Box::leak(text.into());
    kept.insert(text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_texts_are_kept_as_they_are_and_many_are_not() {
        assert_eq!(keep("ON_HOLD"), "ON_HOLD");
        assert_eq!(keep(&"x".repeat(MAX_LENGTH + 1)), UNKNOWN);
        for number in 0..MAX_KEPT {
            keep(&format!("STATUS_{number}"));
        }
        assert_eq!((keep("ONE_MORE"), keep("ON_HOLD")), (UNKNOWN, "ON_HOLD"));
    }
}
