//! What the tests share: a back end for one test, the program as a process, and a client of its API.

mod backend;
mod broker;
mod client;
mod crowd;
mod shop;

use std::time::{Duration, Instant};

pub use backend::{
    Backend, a_minute_ago, accepted, all_settled, count, end_holds, identity, ledger_report, level_of, new_order,
    publish, with_hold,
};
pub use broker::{EventListener, channel};
pub use client::{Answer, Client};
pub use crowd::Crowd;
pub use shop::{Shop, run_to_end};

/// The longest that a test waits for something to happen.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// Calls `probe` again and again until it gives something; panics with `what` after [`MAX_WAIT`].
pub async fn eventually<T, Probing: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> Probing) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < MAX_WAIT, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Sends a request again while the answer is that the shop is busy, as a client does.
pub async fn unless_busy<Sent: Future<Output = Answer>>(send: impl Fn() -> Sent) -> Answer {
    eventually("the request is served", || async {
        let answer = send().await;
        (answer.status != 503).then_some(answer)
    })
    .await
}
