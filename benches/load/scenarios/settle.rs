//! Settling orders through RabbitMQ, and the queue alone.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::Value;
use shop::{
    db::Db,
    queue::{Queue, SettleRequest},
    telemetry::traces::new_traceparent,
};
use uuid::Uuid;

use super::{
    BATCHED_ORDERS, PRODUCTS,
    process::fsync_milliseconds,
    setup::{self, accepted_orders, sql, two_lines},
};
use crate::{
    client::{Connection, post},
    floors,
    report::{Round, Table, median},
    rounds,
    shop::{Backend, Process},
};

/// The number of clients that `pgbench` settles fastest with over many products; more of them wait for each other.
const SETTLING_CLIENTS: u64 = 16;
/// Orders that `pgbench` settles in one round.
const SINGLE_ORDERS: u64 = 8_000;

pub async fn settle(table: &mut Table, name: &str, products: u64) {
    let backend = setup::backend();

    let mut measured = Vec::new();
    for _ in 0..rounds() {
        accepted_orders(&backend, SINGLE_ORDERS, products);
        let floor = floors::pgbench_settle(&backend.database_url, SETTLING_CLIENTS, SINGLE_ORDERS);
        let rate = drain(&backend, products, 1).await;
        measured.push(Round {
            rate,
            floor,
            ..Round::default()
        });
    }

    let scenario = match name {
        "settle hot" => "settled through RabbitMQ, one hot product".to_owned(),
        _ => format!("settled through RabbitMQ, over {products} products"),
    };
    table.rate(&scenario, "pgbench, a transaction an order", &measured);
}

/// Orders a second that `workers` processes settle while the queue is full.
pub async fn drain(backend: &Backend, products: u64, workers: usize) -> f64 {
    accepted_orders(backend, BATCHED_ORDERS, products);
    let queue = Queue::new(&backend.queue_url, &backend.prefix, 1).expect("a known URL");
    let requests: Vec<SettleRequest> = (1..=BATCHED_ORDERS)
        .map(|number| SettleRequest {
            order_id: Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)),
            traceparent: new_traceparent(),
        })
        .collect();
    for requests in requests.chunks(500) {
        queue.publish_settle_requests(requests).await.expect("published");
    }

    let processes: Vec<Process> = (0..workers).map(|_| Process::work(backend)).collect();
    let started = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let pending = sql(
            backend,
            "SELECT count(*) FROM orders WHERE settled_at IS NULL AND accepted_at IS NOT NULL",
        );
        if pending == "0" {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "{pending} orders are not settled"
        );
    }

    let cpu: f64 = processes.iter().map(Process::cpu).sum();
    drop(processes);
    queue.close().await;

    // From the first commit to the last, so the orders of the first commit do not count.
    let span = sql(
        backend,
        "SELECT extract(epoch FROM max(settled_at) - min(settled_at)), count(*) FILTER (WHERE settled_at > (SELECT min(settled_at) FROM orders)) FROM orders",
    );
    let (span, count) = span.split_once('|').expect("two columns");
    let (span, count): (f64, f64) = (span.parse().expect("seconds"), count.parse().expect("orders"));
    let share = cpu / span * 100.0;
    eprintln!("  {count:.0} orders in {span:.2} s; the workers used {share:.0} % of a core");
    count / span
}

/// The queue without a database: publish with confirms, consume, acknowledge.
pub async fn queue_alone(table: &mut Table) {
    let backend = setup::backend();
    let queue = Queue::new(&backend.queue_url, &backend.prefix, 2_000).expect("a known URL");
    let requests: Vec<SettleRequest> = (0..500)
        .map(|_| SettleRequest {
            order_id: Uuid::now_v7(),
            traceparent: new_traceparent(),
        })
        .collect();
    let batches = usize::try_from(BATCHED_ORDERS).expect("small") / requests.len();

    let (mut published, mut consumed) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let started = Instant::now();
        for _ in 0..batches {
            queue.publish_settle_requests(&requests).await.expect("published");
        }
        published.push(BATCHED_ORDERS as f64 / started.elapsed().as_secs_f64());

        let (started, mut left) = (Instant::now(), BATCHED_ORDERS as usize);
        while left > 0 {
            let deliveries = queue.next(500).await.expect("delivers");
            left -= deliveries.messages.len();
            queue.acknowledge(&deliveries).await.expect("acknowledges");
        }
        consumed.push(BATCHED_ORDERS as f64 / started.elapsed().as_secs_f64());
    }

    queue.close().await;
    table.add([
        "the queue alone: published and confirmed; consumed and acknowledged".to_owned(),
        format!("{:.0}/s; {:.0}/s", median(published), median(consumed)),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    ]);
}

/// One order at a time on an idle system, from the request to pay to the commit of PAID.
pub async fn one_order(table: &mut Table) {
    let backend = setup::backend();
    let (serve, _work) = (Process::serve(&backend), Process::work(&backend));
    let mut connection = Connection::open(&serve.address).await;
    let db = Db::connect(&backend.database_url, 1, 100).await.expect("connects");
    let db = db.read();

    let mut latencies = Vec::new();
    for number in 0..100 {
        let (_, created) = connection.send(post("/orders", two_lines(number))).await;
        let created: Value = serde_json::from_slice(&created).expect("JSON");
        let id = created["order_id"].as_str().expect("an id").to_owned();

        let paying = Instant::now();
        connection
            .send(post(&format!("/orders/{id}/pay"), "{}".to_owned()))
            .await;

        let started = Instant::now();
        let by_id = format!("SELECT status FROM orders WHERE id = '{id}' AND status <> 'PENDING'");
        while db
            .query_one_raw(Statement::from_string(DbBackend::Postgres, &by_id))
            .await
            .expect("answered")
            .is_none()
        {
            assert!(started.elapsed() < Duration::from_secs(10), "it is not settled");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        latencies.push(paying.elapsed().as_secs_f64() * 1e3);
    }

    latencies.sort_by(f64::total_cmp);
    table.add([
        "one order alone, from pay to PAID".to_owned(),
        String::new(),
        format!("{:.2} ms, two commits by fdatasync", 2.0 * fsync_milliseconds()),
        String::new(),
        format!("{:.2} ms", median(latencies.clone())),
        format!("{:.2} ms", latencies[latencies.len() * 99 / 100]),
    ]);
}

/// Several `work` processes beside one.
pub async fn workers(table: &mut Table) {
    let backend = setup::backend();
    let mut measured: [Vec<Round>; 3] = Default::default();
    for _ in 0..rounds() {
        let floor = drain(&backend, PRODUCTS, 1).await;
        for (workers, measured) in (2..).zip(&mut measured) {
            let rate = drain(&backend, PRODUCTS, workers).await;
            measured.push(Round {
                rate,
                floor,
                ..Round::default()
            });
        }
    }

    for (workers, measured) in (2..).zip(&measured) {
        table.rate(&format!("settled by {workers} `work` processes"), "by one", measured);
    }
}
