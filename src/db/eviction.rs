//! Which connections of the pool must not be used again. PostgreSQL that restarts, is failed over, or changes its schema makes
//! every open connection useless at once. The first error that shows it evicts all of them, so that nobody else meets it.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// The least time between two evictions by writes. While PostgreSQL takes none, each of them would otherwise make the whole
/// pool connect again. A write is tried for longer than that.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// For how long a connection to a server that takes no writes may be used. The next one may lead to the new primary.
const READ_ONLY_LIFETIME: Duration = Duration::from_millis(250);
/// A connection that was idle for longer is tested before it is used: a firewall may have dropped it without a word.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);
/// For this long after a statement timed out, every connection is cleaned up when it returns to the pool. The pool tests
/// returned connections as well, but waits without limit for one whose server vanished.
const CLEANUP_PERIOD: Duration = Duration::from_secs(60);

/// Shared by a pool and those who use it.
#[derive(Debug, Default)]
pub(super) struct Eviction {
    state: Mutex<State>,
    /// Wakes the task that looks for the primary.
    pub recheck_primary: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that were opened before this are closed.
    evicted_at: Option<Instant>,
    /// Whether the server takes no writes, as of the last connection that was opened or tested.
    is_read_only: bool,
    /// When a statement last timed out. Connections that have been idle since before are tested.
    timed_out_at: Option<Instant>,
}

/// What to do with a connection before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Use,
    Test,
    Close,
}

impl Eviction {
    /// Evicts all connections that are open now.
    pub(super) fn evict(&self) {
        self.state().evicted_at = Some(Instant::now());
        self.recheck_primary.notify_one();
    }

    /// As [`Eviction::evict`], unless that was done a moment ago.
    pub(super) fn evict_unless_recent(&self) {
        let last = self.state().evicted_at;
        if last.is_none_or(|last| last.elapsed() >= MIN_INTERVAL) {
            self.evict();
        }
    }

    /// To be called when a connection was opened or tested: whether its server takes writes. When a primary is found again, all
    /// connections to the old one are evicted, so that nobody who has written reads there.
    pub(super) fn record_writable(&self, takes_writes: bool) {
        let was_read_only = mem::replace(&mut self.state().is_read_only, !takes_writes);
        if takes_writes && was_read_only {
            self.evict();
        }
        if !takes_writes {
            self.evict_unless_recent();
        }
    }

    /// To be called when a statement or a connection was given up.
    pub(super) fn record_timeout(&self) {
        self.state().timed_out_at = Some(Instant::now());
        self.recheck_primary.notify_one();
    }

    /// What to do with a connection that was opened `age` ago and has been idle for `idle_for`.
    pub(super) fn verdict(&self, age: Duration, idle_for: Duration) -> Verdict {
        let idle_since = Instant::now().checked_sub(idle_for);
        let is_evicted = self.is_evicted(age);
        let state = self.state();

        if is_evicted || state.is_read_only && age >= READ_ONLY_LIFETIME {
            Verdict::Close
        } else if idle_for >= TEST_AFTER_IDLE || idle_since < state.timed_out_at {
            Verdict::Test
        } else {
            Verdict::Use
        }
    }

    /// Whether a connection that was opened `age` ago must not be used again.
    pub(super) fn is_evicted(&self, age: Duration) -> bool {
        let opened_at = Instant::now().checked_sub(age);
        opened_at < self.state().evicted_at
    }

    /// Whether a connection that returns to the pool may be in the middle of a statement that was given up.
    pub(super) fn needs_cleanup(&self) -> bool {
        let timed_out_at = self.state().timed_out_at;
        timed_out_at.is_some_and(|last| last.elapsed() < CLEANUP_PERIOD)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Duration = Duration::from_secs(60);
    const NOT_LONG: Duration = Duration::from_millis(500);

    #[test]
    fn what_was_open_is_evicted_and_what_is_opened_afterwards_is_used() {
        let eviction = Eviction::default();
        assert_eq!(eviction.verdict(OLD, NOT_LONG), Verdict::Use);

        eviction.evict();
        assert_eq!(eviction.verdict(OLD, NOT_LONG), Verdict::Close);
        assert_eq!(eviction.verdict(Duration::ZERO, Duration::ZERO), Verdict::Use);
    }

    #[test]
    fn what_was_idle_is_tested_after_a_second_or_when_a_statement_has_timed_out() {
        let eviction = Eviction::default();
        assert_eq!(eviction.verdict(OLD, TEST_AFTER_IDLE), Verdict::Test);
        assert_eq!(eviction.verdict(OLD, NOT_LONG), Verdict::Use);

        eviction.record_timeout();
        assert!(eviction.needs_cleanup());
        assert_eq!(eviction.verdict(OLD, NOT_LONG), Verdict::Test);
        assert_eq!(eviction.verdict(OLD, Duration::ZERO), Verdict::Use);
    }

    #[test]
    fn while_nothing_can_be_written_connections_are_short_lived_and_end_when_a_primary_is_found() {
        let eviction = Eviction::default();
        eviction.record_writable(true);
        assert_eq!(eviction.verdict(OLD, NOT_LONG), Verdict::Use);

        eviction.record_writable(false);
        let just_opened = Duration::ZERO;
        assert_eq!(eviction.verdict(just_opened, Duration::ZERO), Verdict::Use);
        assert_eq!(eviction.verdict(READ_ONLY_LIFETIME, Duration::ZERO), Verdict::Close);

        let opened = Instant::now();
        eviction.record_writable(true);
        assert!(eviction.is_evicted(opened.elapsed()));
        assert!(!eviction.is_evicted(Duration::ZERO));
    }
}
