//! What runs in the background of a process: publishing settle requests, settling, sweeping, expiring holds, relaying the
//! outbox, watching orders, checking the ledger, sampling gauges, watching which database it is, and whether
//! everything that the process depends on is there.

pub mod auditor;
mod backoff;
pub mod dependencies;
pub mod expiry;
mod finish;
pub mod gauges;
pub mod notifier;
pub mod order_watch;
pub mod relay;
pub mod source;
pub mod sweeper;
pub mod worker;
