//! How long a batch that could start waits for others to join it. A transaction of ten orders costs hardly more than one of
//! three, so while several clients are active a batch waits a moment for as many as came the last time. A client that is alone
//! never waits.

use std::time::Duration;

use tokio::time::Instant;

/// The longest that a batch waits.
const MAX_WAIT: Duration = Duration::from_millis(1);
/// A batch of this size gains little by waiting for more.
const LARGE: usize = 16;
/// Every so many batches one waits for [`LARGE`], to find out whether more come than the last time.
const BATCHES_PER_TRY: u32 = 4;

/// Learns from one batch after another how many are worth waiting for.
#[derive(Debug, Default)]
pub struct Gathering {
    last: usize,
    batches: u32,
}

impl Gathering {
    /// How many to gather, and until when to wait for them. `arrived` have arrived already.
    pub fn goal(&mut self, arrived: usize) -> (usize, Instant) {
        self.batches = self.batches.wrapping_add(1);

        let is_alone = self.last <= 1 && arrived <= 1;
        let goal = if is_alone {
            1
        } else if self.batches.is_multiple_of(BATCHES_PER_TRY) {
            LARGE
        } else {
            self.last.clamp(1, LARGE)
        };
        (goal, Instant::now() + MAX_WAIT)
    }

    /// Notes how many came.
    pub fn record(&mut self, size: usize) {
        self.last = size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The goals of batches of which these many had arrived, and these many came in the end.
    fn goals(batches: &[(usize, usize)]) -> Vec<usize> {
        let mut gathering = Gathering::default();
        let goal = |(arrived, came): &(usize, usize)| {
            let (goal, _) = gathering.goal(*arrived);
            gathering.record(*came);
            goal
        };
        batches.iter().map(goal).collect()
    }

    #[test]
    fn whoever_is_alone_never_waits() {
        assert_eq!(goals(&[(1, 1); 12]), [1; 12]);
    }

    #[test]
    fn a_batch_waits_for_as_many_as_came_the_last_time_and_now_and_then_for_more() {
        let batches = [(2, 5), (3, 4), (1, 9), (2, 2), (1, 1), (1, 1), (1, 1), (1, 1)];
        assert_eq!(goals(&batches), [1, 5, 4, LARGE, 2, 1, 1, 1]);
    }

    #[test]
    fn a_large_batch_is_large_enough() {
        assert_eq!(goals(&[(500, 500), (500, 500), (3, 3)]), [1, LARGE, LARGE]);
    }
}
