//! Outages of what a process depends on. An outage is one line of the log when it begins and one when it ends, with how long
//! it took and a count of what failed in between. Single failures are lines of the level `debug`.

use std::{
    fmt::Display,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::gauge;

use super::metrics::DEPENDENCY_UP;

/// An outage has ended after so many probes that succeeded with nothing failing in between, and once every task that failed
/// in it has succeeded: what comes and goes is one outage.
const QUIET_PROBES: u32 = 2;
/// Of the requests that an outage makes fail, so many are logged. The others are counted.
const LOGGED_REQUESTS: u64 = 10;

pub static DATABASE: Outage = Outage::new("database", "retrying");
pub static QUEUE: Outage = Outage::new("queue", "reconnecting");
pub static CACHE: Outage = Outage::new("cache", "reconnecting");

/// The outages of one dependency.
pub struct Outage {
    dependency: &'static str,
    /// What the process does about it, for the log.
    remedy: &'static str,
    current: Mutex<Option<Current>>,
    /// How many tasks have failed in it and not succeeded since.
    unrecovered: AtomicUsize,
}

/// A task that has failed in an outage. The outage is not over before this is dropped.
pub struct Unrecovered(&'static Outage);

impl Drop for Unrecovered {
    fn drop(&mut self) {
        self.0.unrecovered.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Current {
    began: Instant,
    failures: u64,
    failed_requests: u64,
    /// When the first probe succeeded since the last failure, and how many have by now.
    quiet: Option<(Instant, u32)>,
}

/// An outage that is over.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    took: Duration,
    failures: u64,
}

impl Outage {
    const fn new(dependency: &'static str, remedy: &'static str) -> Self {
        Self {
            dependency,
            remedy,
            current: Mutex::new(None),
            unrecovered: AtomicUsize::new(0),
        }
    }

    /// To be called with the result of each probe, which is made about once a second.
    pub fn record_probe(&self, probe: Result<(), impl Display>) {
        let is_up = u8::from(probe.is_ok());
        gauge!(DEPENDENCY_UP, "dependency" => self.dependency).set(is_up);

        match probe {
            Err(error) => self.record_failure(&error),
            Ok(()) => {
                if let Some(Ended { took, failures }) = self.succeeded(Instant::now()) {
                    let (dependency, duration_ms) = (self.dependency, milliseconds(took));
                    tracing::info!(dependency, duration_ms, failures, "the {dependency} is reachable again");
                }
            }
        }
    }

    /// To be called when something failed because of the dependency. The first failure begins an outage.
    pub fn record_failure(&self, error: &impl Display) {
        self.log(self.failed(Instant::now()), error);
    }

    /// As [`Outage::record_failure`], for a task that tries again. Keep what this returns until the task has succeeded: probes
    /// may succeed in between, where a right is missing for one.
    #[must_use]
    pub fn record_unrecovered(&'static self, error: &impl Display) -> Unrecovered {
        self.unrecovered.fetch_add(1, Ordering::Relaxed);
        self.record_failure(error);
        Unrecovered(self)
    }

    /// As [`Outage::record_failure`], for a request. Returns whether the request is to be logged as well.
    pub fn record_failed_request(&self, error: &impl Display) -> bool {
        self.log(self.failed(Instant::now()), error);

        let mut current = self.current();
        current.as_mut().is_none_or(|current| {
            current.failed_requests += 1;
            current.failed_requests <= LOGGED_REQUESTS
        })
    }

    /// To be called when something failed that may or may not be due to the dependency. It counts during an outage, and begins
    /// none. Returns whether there is one.
    pub fn count_failure(&self) -> bool {
        let mut current = self.current();
        if let Some(current) = &mut *current {
            current.failures += 1;
        }
        current.is_some()
    }

    fn log(&self, is_first: bool, error: &impl Display) {
        let (dependency, remedy) = (self.dependency, self.remedy);
        if is_first {
            tracing::warn!(dependency, %error, "the {dependency} is unreachable; {remedy}");
        } else {
            tracing::debug!(dependency, %error, "the {dependency} is still unreachable; {remedy}");
        }
    }

    /// Returns whether this failure begins an outage.
    fn failed(&self, now: Instant) -> bool {
        let mut current = self.current();
        if let Some(current) = &mut *current {
            current.failures += 1;
            current.quiet = None;
            return false;
        }

        *current = Some(Current {
            began: now,
            failures: 1,
            failed_requests: 0,
            quiet: None,
        });
        true
    }

    /// Returns the outage that this success ends.
    fn succeeded(&self, now: Instant) -> Option<Ended> {
        let mut current = self.current();
        let outage = current.as_mut()?;
        let (since, probes) = outage.quiet.map_or((now, 1), |(since, probes)| (since, probes + 1));
        outage.quiet = Some((since, probes));
        if probes < QUIET_PROBES || self.unrecovered.load(Ordering::Relaxed) > 0 {
            return None;
        }

        let ended = Ended {
            took: since.duration_since(outage.began),
            failures: outage.failures,
        };
        *current = None;
        Some(ended)
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A duration as the log writes it, to the microsecond.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_begins_once_and_ends_once_with_its_duration_and_count() {
        let outage = Outage::new("test", "retrying");
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(outage.succeeded(began), None, "nothing has failed");

        assert!(outage.failed(began), "it begins");
        assert!(!outage.failed(after(1)) && outage.count_failure());
        // It comes and goes: that is no end.
        assert_eq!(outage.succeeded(after(2)), None);
        assert!(!outage.failed(after(3)));

        assert_eq!(outage.succeeded(after(4)), None);
        let ended = Ended {
            took: Duration::from_secs(4),
            failures: 4,
        };
        assert_eq!(outage.succeeded(after(5)), Some(ended), "until the first success");

        assert!(!outage.count_failure(), "what may have another cause begins none");
        assert!(outage.failed(after(6)), "the next one begins anew");
    }

    #[test]
    fn an_outage_lasts_until_the_tasks_that_failed_in_it_have_succeeded() {
        static OUTAGE: Outage = Outage::new("test", "retrying");
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let first = OUTAGE.record_unrecovered(&"permission denied");
        let again = OUTAGE.record_unrecovered(&"permission denied");

        drop(first);
        for second in 1..10 {
            assert_eq!(OUTAGE.succeeded(after(second)), None, "the task still fails");
        }
        drop(again);
        assert_eq!(OUTAGE.succeeded(after(10)).map(|ended| ended.failures), Some(2));
    }

    #[test]
    fn of_the_requests_that_an_outage_makes_fail_the_first_are_logged() {
        let outage = Outage::new("test", "retrying");
        let logged = || (0..100).filter(|_| outage.record_failed_request(&"down")).count();
        assert_eq!((logged(), logged()), (10, 0));

        for _ in 0..QUIET_PROBES {
            outage.succeeded(Instant::now());
        }
        assert_eq!(logged(), 10, "of the next outage");
    }
}
