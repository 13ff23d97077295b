//! The loop of a task that works in rounds: one after another until the process stops, with one policy for their errors.
//!
//! Three tasks that poll have loops of their own. For the auditor, a check that takes too long is no outage. The watch of
//! orders may fail in silence, because those who wait read by themselves in the end. The probes of the dependencies end
//! outages themselves.

use std::time::Duration;

use metrics::gauge;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::Error,
    entities::Timestamp,
    queue::QueueError,
    telemetry::{
        metrics::TASK_LAST_SUCCESS,
        outage::{DATABASE, QUEUE, Unrecovered},
    },
};

/// A task that works in rounds.
pub(super) struct Task {
    /// The label of the metric that says when it last succeeded. `None` where nobody depends on that.
    pub name: Option<&'static str>,
    /// What a round does, for the log: `could not … ; retrying`.
    pub action: &'static str,
    /// The pause after a round, and after one that failed.
    pub interval: Duration,
    /// The pause after a round that was full.
    pub interval_while_full: Duration,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    Done,
    /// It took as much as it may; more may be due.
    Full,
}

impl Round {
    /// A round that took `count` of at most `limit`.
    pub(super) fn of(count: usize, limit: usize) -> Self {
        if count < limit { Self::Done } else { Self::Full }
    }
}

/// Why a round failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RoundError {
    #[error(transparent)]
    Shop(#[from] Error),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Does one round after another until `stop`. A round that has begun is finished.
///
/// What fails because the database or the queue is not available is a part of that outage, which is not over before a round
/// has succeeded. What fails otherwise is one line when it begins and one when it is over.
pub(super) async fn poll_until_stopped<F>(stop: &CancellationToken, task: Task, round: impl Fn() -> F)
where
    F: Future<Output = Result<Round, RoundError>>,
{
    let mut failures = Failures::default();
    // From the start on, so that a task that never succeeds shows as well.
    record_success(&task);

    loop {
        let pause = match round().await {
            Ok(ended) => {
                failures.end(task.action);
                record_success(&task);
                match ended {
                    Round::Done => task.interval,
                    Round::Full => task.interval_while_full,
                }
            }
            Err(error) => {
                failures.record(task.action, &error);
                task.interval
            }
        };

        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// By the clock of this machine: Prometheus compares it with its own, and has no other.
fn record_success(task: &Task) {
    if let Some(name) = task.name {
        gauge!(TASK_LAST_SUCCESS, "task" => name).set(Timestamp::now().to_seconds());
    }
}

/// What has failed since the last success.
#[derive(Default)]
struct Failures {
    /// Keep the outages of the database and of the queue from being over.
    database: Option<Unrecovered>,
    queue: Option<Unrecovered>,
    /// How much has failed for other reasons.
    others: u64,
}

impl Failures {
    fn record(&mut self, action: &str, error: &RoundError) {
        match error {
            RoundError::Queue(error) => self.queue = Some(QUEUE.record_unrecovered(error)),
            RoundError::Shop(error) if error.is_outage() => self.database = Some(DATABASE.record_unrecovered(error)),
            RoundError::Shop(error) => {
                self.others += 1;
                if self.others == 1 {
                    tracing::warn!(%error, "could not {action}; retrying");
                } else {
                    tracing::debug!(%error, "still could not {action}; retrying");
                }
            }
        }
    }

    fn end(&mut self, action: &str) {
        let failures = self.others;
        if failures > 0 {
            tracing::info!(failures, "could {action} again");
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;

    #[test]
    fn an_outage_of_the_queue_does_not_end_that_of_the_database() {
        let probes = || {
            for _ in 0..10 {
                DATABASE.record_probe(Ok::<(), &str>(()));
            }
        };
        let mut failures = Failures::default();
        failures.record("try", &Error::Unavailable("away".to_owned()).into());
        let unreachable = Queue::new("not a URL", "test", 1).err().expect("an error");
        failures.record("try", &unreachable.into());

        probes();
        assert!(DATABASE.count_failure(), "the task has not succeeded yet");
        failures.end("try");
        probes();
        assert!(!DATABASE.count_failure());
    }
}
