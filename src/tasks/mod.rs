//! What runs in the background of a process: publishing settle requests, settling, sweeping, expiring holds, relaying the
//! outbox, watching orders, checking the ledger, sampling gauges, watching the identity of the database, and whether
//! everything that the process depends on is there.

pub mod auditor;
mod backoff;
pub mod database_identity;
pub mod dependencies;
pub mod expiry;
mod finish;
pub mod gauges;
pub mod notifier;
pub mod order_watch;
pub mod poll;
pub mod relay;
pub mod sweeper;
pub mod worker;
