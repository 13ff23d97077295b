//! Waiting between two attempts of a task that retries until it succeeds or is stopped.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(2);

/// The task was stopped before it succeeded.
#[derive(Debug)]
pub(super) struct Stopped;

/// The delay before the next attempt: it doubles from [`FIRST_DELAY`] up to [`MAX_DELAY`].
pub(super) struct Backoff {
    delay: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { delay: FIRST_DELAY }
    }

    /// To be called after a success: the next failure is the first one again.
    pub(super) fn reset(&mut self) {
        self.delay = FIRST_DELAY;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// [`Stopped`] as soon as `stop` is cancelled.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> Result<(), Stopped> {
        let delay = self.delay;
        self.delay = (delay * 2).min(MAX_DELAY);

        tokio::select! {
            () = stop.cancelled() => Err(Stopped),
            () = sleep(delay) => Ok(()),
        }
    }
}
