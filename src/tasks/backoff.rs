//! Waiting between two attempts of a task that retries until it succeeds or is stopped. `backon` gives the delays. Its own
//! retrying does not fit: a stop must end the delay and leave the attempt alone, which finishes what is in hand, and the
//! worker's back-off goes on from one batch to the next.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// The task was stopped before it succeeded.
#[derive(Debug)]
pub(super) struct Stopped;

/// The delays before the next attempts: each is twice as long as the one before, from [`FIRST_DELAY`] up to [`MAX_DELAY`].
pub(super) struct Backoff(ExponentialBackoff);

impl Backoff {
    pub(super) fn new() -> Self {
        let delays = ExponentialBuilder::default()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(MAX_DELAY)
            .without_max_times();
        Self(delays.build())
    }

    /// To be called after a success: the next failure is the first one again.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// [`Stopped`] as soon as `stop` is cancelled.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> Result<(), Stopped> {
        let delay = self.0.next().unwrap_or(MAX_DELAY);
        tokio::select! {
            () = stop.cancelled() => Err(Stopped),
            () = sleep(delay) => Ok(()),
        }
    }
}
