//! What runs in the background of a process: settling, publishing, sweeping, checking the ledger, watching orders.

pub mod auditor;
pub mod order_watch;
pub mod sweeper;
pub mod worker;
