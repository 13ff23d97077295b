//! What runs in the background of a process: publishing settle requests, settling, sweeping, relaying the outbox, watching
//! orders, checking the ledger, sampling gauges.

pub mod auditor;
mod backoff;
mod finish;
pub mod gauges;
pub mod notifier;
pub mod order_watch;
pub mod relay;
pub mod sweeper;
pub mod worker;
