//! Under load every transaction changes what products are available. Pages that were thrown away each time would hardly be
//! read twice, so what happens within a quarter of a second throws them away once, at the end of it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Two invalidations are this far apart. With the time to live of a local page, and the time to load one, a change is seen
/// within a second.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// Decides who invalidates.
#[derive(Debug, Default)]
pub(super) struct Coalesce {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// Somebody has invalidated less than [`INTERVAL`] ago, and looks at `again` when that is over.
    Recent { again: bool },
}

impl Coalesce {
    /// Notes a change. Returns whether the caller is to invalidate now, and to go on with [`Coalesce::next`].
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state();
        match &mut *state {
            State::Idle => {
                *state = State::Recent { again: false };
                true
            }
            State::Recent { again } => {
                *again = true;
                false
            }
        }
    }

    /// To be called [`INTERVAL`] after each invalidation. Returns whether to invalidate once more.
    pub(super) fn next(&self) -> bool {
        let mut state = self.state();
        let again = matches!(*state, State::Recent { again: true });
        *state = if again {
            State::Recent { again: false }
        } else {
            State::Idle
        };
        again
    }

    /// Whether changes have been noted that nobody has invalidated for yet. The caller is to do so.
    pub(super) fn take(&self) -> bool {
        match &mut *self.state() {
            State::Idle => false,
            State::Recent { again } => std::mem::take(again),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_invalidates_at_once_and_the_others_together() {
        let coalesce = Coalesce::default();
        assert!(coalesce.begin());
        assert!((0..100).all(|_| !coalesce.begin()));
        assert!(coalesce.next(), "once for all of them");
        assert!(!coalesce.begin());
        assert!(coalesce.next());
        assert!(!coalesce.next(), "nothing has changed since");
        assert!(coalesce.begin(), "it was quiet");
    }

    #[test]
    fn what_is_noted_last_can_be_taken_before_its_time() {
        let coalesce = Coalesce::default();
        assert!(!coalesce.take());
        assert!(coalesce.begin() && !coalesce.take() && !coalesce.begin());
        assert!(coalesce.take() && !coalesce.take());
    }
}
