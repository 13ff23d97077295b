//! Changing the stock of many products while orders of the same products are settled.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    settle::drain,
    setup::{self, sql},
};
use crate::{
    client::{Connection, Outgoing, post},
    report::{Round, Table},
    rounds,
    shop::Process,
};

const PRODUCTS: u64 = 100_000;
/// As many as one request may have.
const LINES: u64 = 1_000;

/// `POST /stock-changes` of 1,000 lines, one after another, while a worker settles orders of the same products as fast as it
/// can; and how fast that is, beside the same without the changes.
pub async fn stock_changes(table: &mut Table) {
    let backend = setup::backend_of(PRODUCTS);
    let serve = Process::serve(&backend);

    let (mut settling, mut latencies, mut took) = (Vec::new(), Vec::new(), Duration::ZERO);
    for _ in 0..rounds() {
        let floor = drain(&backend, PRODUCTS, 1).await;
        let end = CancellationToken::new();
        let drained = async {
            let rate = drain(&backend, PRODUCTS, 1).await;
            end.cancel();
            rate
        };
        let started = Instant::now();
        let (rate, changed) = tokio::join!(drained, change_until(&end, &serve.address));
        took += started.elapsed();
        latencies.extend(changed);
        settling.push(Round {
            rate,
            floor,
            ..Round::default()
        });
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(sql(&backend, deadlocks), "0");

    table.latencies(
        &format!("`POST /stock-changes`, {LINES} lines, while orders are settled"),
        &Round::of(latencies, took),
    );
    table.rate(
        &format!("settled over {PRODUCTS} products, beside stock changes"),
        "without them",
        &settling,
    );
}

/// How long each request took, until `end`.
async fn change_until(end: &CancellationToken, address: &str) -> Vec<Duration> {
    let mut connection = Connection::open(address).await;
    let mut latencies = Vec::new();
    while !end.is_cancelled() {
        let request = change(latencies.len() as u64);
        let sent = Instant::now();
        let (status, body) = connection.send(request).await;
        latencies.push(sent.elapsed());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }
    latencies
}

/// One more unit of a thousand products that lie all over the catalogue, others each time, in no order.
fn change(number: u64) -> Outgoing {
    let line = |line: u64| {
        let product = 1 + ((number * LINES + line) * 7_919) % PRODUCTS;
        json!({ "product_id": product, "delta": 1, "reason": "delivery 4711" })
    };
    post("/stock-changes", (0..LINES).map(line).collect::<Value>().to_string())
}
