//! The scenarios: what is measured, each on a database of its own.

mod carts;
mod create;
mod embedded;
mod process;
mod read;
mod settle;
mod setup;
mod statements;
mod statistics;
mod stock;
mod whole_way;

use crate::report::Table;

const CONNECTIONS: u64 = 64;
const PRODUCTS: u64 = 1_000;
/// Orders that the shop settles in one round.
const BATCHED_ORDERS: u64 = 40_000;

/// Runs the scenarios whose name contains one of `wanted`; all of them if it is empty.
pub async fn measure(wanted: &[String], table: &mut Table) {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));

    if is_wanted("create") {
        create::create(table).await;
    }
    if is_wanted("holds") {
        create::holds(table).await;
    }
    if is_wanted("pay") {
        create::pay(table).await;
    }
    if is_wanted("whole way") {
        whole_way::whole_way(table).await;
    }
    for (name, products) in [("settle spread", PRODUCTS), ("settle hot", 1)] {
        if is_wanted(name) {
            settle::settle(table, name, products).await;
        }
    }
    if is_wanted("builder") {
        statements::builder(table).await;
    }
    if is_wanted("queue") {
        settle::queue_alone(table).await;
    }
    if is_wanted("read") {
        read::read(table).await;
    }
    if is_wanted("alone") {
        settle::one_order(table).await;
    }
    if is_wanted("workers") {
        settle::workers(table).await;
    }
    if is_wanted("serves") {
        create::serves(table).await;
    }
    if is_wanted("stock changes") {
        stock::stock_changes(table).await;
    }
    if is_wanted("carts") {
        carts::carts(table).await;
    }
    if is_wanted("embedded") {
        embedded::embedded(table).await;
    }
    if is_wanted("memory") {
        process::memory(table).await;
    }
    if is_wanted("statistics") {
        statistics::statistics(table).await;
    }
    if is_wanted("growth") {
        create::growth(table).await;
    }
}
