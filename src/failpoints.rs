//! Fault points, for tests only: places between two steps of an order's way where the process can be told to stop as
//! if it had been killed. Without the build feature `failpoints` they are nothing.

/// Between which steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// New orders are committed, and nobody has been answered.
    Created,
    /// Payments are committed, and no request has been rung.
    Accepted,
    /// Bells have been rung, and the ringer does not know it.
    Published,
    /// Messages have been delivered, and nothing has been settled.
    Delivered,
    /// A settlement is committed.
    Settled,
    /// The cache has been told of it.
    Invalidated,
    /// So have those who listen to events.
    EventsPublished,
    /// The messages have been acknowledged.
    Acknowledged,
}

/// Stops the process here if the environment says so: `FAILPOINT=settled:3` stops it at once, without any cleaning
/// up, when [`Failpoint::Settled`] is reached for the third time. With `FAILPOINT_PANICS` set, only the task here panics.
///
/// # Panics
/// If told to.
#[cfg(feature = "failpoints")]
pub fn hit(point: Failpoint) {
    use std::sync::{LazyLock, atomic::AtomicUsize, atomic::Ordering};

    static CHOSEN: LazyLock<Option<(String, usize)>> = LazyLock::new(|| {
        let chosen = std::env::var("FAILPOINT").ok()?;
        let (name, count) = chosen.split_once(':').unwrap_or((&chosen, "1"));
        Some((name.to_lowercase(), count.parse().ok()?))
    });
    static REACHED: AtomicUsize = AtomicUsize::new(0);
    if let Some((name, count)) = &*CHOSEN
        && *name == format!("{point:?}").to_lowercase()
        && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        assert!(
            std::env::var_os("FAILPOINT_PANICS").is_none(),
            "as FAILPOINT_PANICS asks for"
        );
        std::process::abort();
    }
}

#[cfg(not(feature = "failpoints"))]
pub fn hit(_: Failpoint) {}
