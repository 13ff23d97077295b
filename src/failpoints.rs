//! Failpoints, for tests only: named points between two steps of an order's way, at which the process can be made to
//! end as if it had been killed. Without the build feature `failpoints` they do nothing.

/// A point that can fail, named for what has just happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// New orders are committed. No client has been answered.
    Created,
    /// Payments are committed. No settle request has been published.
    Accepted,
    /// Orders are cancelled, and that is committed. No client has been answered.
    Cancelled,
    /// Orders are expired, and that is committed.
    Expired,
    /// Settle requests are published. The publisher has not learned the outcome.
    Published,
    /// Messages are delivered. Nothing has been settled.
    Delivered,
    /// A settlement is committed.
    Settled,
    /// The cached pages are invalidated, or will be in a moment.
    Invalidated,
    /// Dead letters and events are published.
    EventsPublished,
    /// The messages are acknowledged.
    Acknowledged,
    /// A check of the ledger has read all it needs. Its result is not stored.
    LedgerRead,
    /// Events of the outbox are published. They are still in it.
    Relayed,
}

/// Ends the process here if the environment says so: `FAILPOINT=settled:3` aborts it, without any cleaning up, when
/// [`Failpoint::Settled`] is reached for the third time. With `FAILPOINT_PANICS` set, only the current task panics.
///
/// # Panics
/// If `FAILPOINT` names this point and `FAILPOINT_PANICS` is set.
#[cfg(feature = "failpoints")]
pub fn hit(point: Failpoint) {
    use std::sync::{LazyLock, atomic::AtomicUsize, atomic::Ordering};

    static CHOSEN: LazyLock<Option<(String, usize)>> = LazyLock::new(|| {
        let chosen = std::env::var("FAILPOINT").ok()?;
        let (name, count) = chosen.split_once(':').unwrap_or((&chosen, "1"));
        Some((name.to_lowercase(), count.parse().ok()?))
    });
    static HITS: AtomicUsize = AtomicUsize::new(0);

    if let Some((name, count)) = &*CHOSEN
        && *name == format!("{point:?}").to_lowercase()
        && HITS.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        assert!(
            std::env::var_os("FAILPOINT_PANICS").is_none(),
            "FAILPOINT_PANICS is set"
        );
        std::process::abort();
    }
}

#[cfg(not(feature = "failpoints"))]
pub fn hit(_: Failpoint) {}
