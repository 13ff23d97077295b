//! Where the figures in the README come from: `cargo bench`.
//!
//! It starts throwaway servers and the release binary with real `serve` and `work` processes, sends load from outside
//! of them, and prints each figure beside a floor measured in the same run on the same machine: the same work by
//! `pgbench` with a transaction an order, or the same bytes by a bare handler. Machines differ; ratios differ less.
//! `cargo bench -- NAME…` measures only what has one of the names in its own; `ROUNDS=9` and `SECONDS=10` measure longer.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures are rounded anyway"
)]

#[path = "../../tests/it/servers/mod.rs"]
mod servers;

mod client;
mod floors;
mod report;
mod scenarios;
mod shop;

use report::Table;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, address, file] = arguments.as_slice()
        && command == floors::BARE_HANDLER
    {
        floors::serve_bare(address, file);
        return;
    }
    // Cargo's own.
    let wanted: Vec<String> = arguments.into_iter().filter(|word| !word.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let mut table = Table::default();
    runtime
        .expect("a runtime")
        .block_on(scenarios::measure(&wanted, &mut table));
    table.print();
}

/// How often each figure is measured.
fn rounds() -> usize {
    from_environment("ROUNDS", 5)
}

/// How long each measurement of a rate takes.
fn seconds() -> u64 {
    from_environment("SECONDS", 4)
}

fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}
