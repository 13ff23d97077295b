//! What the tests share: a back end of their own, the program as a process of its own, and a client that speaks to it.

mod backend;
mod client;
mod crowd;
mod shop;

use std::time::{Duration, Instant};

pub use backend::{Backend, accepted, all_settled, books, count};
pub use client::{Answer, Client};
pub use crowd::Crowd;
pub use shop::{Shop, run_to_end};

/// How long anything may take that is expected to happen.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// Asks again and again until `look` finds what it looks for; panics with `what` after [`MAX_WAIT`].
pub async fn eventually<T, Looking: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> Looking) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < MAX_WAIT, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
