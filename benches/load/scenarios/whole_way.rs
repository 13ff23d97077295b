//! The whole way of an order, as a customer has it: create it, pay it, and wait until it is settled. A closed loop, so that
//! every client is in one step of the way at any moment.
//!
//! Beside the rate it shows what an order costs: transactions of PostgreSQL, and CPU time by process. With
//! `SHOP_BEFORE=/path/to/shop` another build is measured by turns with this one.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    PRODUCTS,
    setup::{self, sql, two_lines},
};
use crate::{
    client::{Connection, post},
    floors,
    report::{Round, Table, median},
    rounds, seconds, servers,
    shop::{Backend, Process, cpu_of, run_to_end_by, this_build},
};

const CLIENTS: [u64; 5] = [1, 8, 32, 128, 512];
/// Before measuring, so that connections are open and statements prepared.
const WARM_UP: Duration = Duration::from_secs(1);

/// What an order cost in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    transactions: f64,
    /// Microseconds of CPU: `serve`, `work`, PostgreSQL, RabbitMQ.
    cpu: [f64; 4],
}

pub async fn whole_way(table: &mut Table) {
    let before = std::env::var_os("SHOP_BEFORE").map(PathBuf::from);

    for clients in CLIENTS {
        let (mut rounds_now, mut costs_now) = (Vec::new(), Vec::new());
        let (mut rounds_before, mut costs_before) = (Vec::new(), Vec::new());

        for _ in 0..rounds() {
            let (backend, serve, work) = start(&this_build());
            let floor = floors::pgbench_whole_way(&backend.database_url, clients, Duration::from_secs(seconds()));
            let (round, cost) = measure(&backend, &serve, &work, clients).await;
            rounds_now.push(Round { floor, ..round });
            costs_now.push(cost);
            drop((serve, work));

            if let Some(before) = &before {
                let (backend, serve, work) = start(before);
                let (round, cost) = measure(&backend, &serve, &work, clients).await;
                rounds_before.push(Round { floor, ..round });
                costs_before.push(cost);
            }
        }

        report(table, clients, "", &rounds_now, &costs_now);
        if before.is_some() {
            report(table, clients, ", the build before", &rounds_before, &costs_before);
        }
    }
}

/// A database of its own, filled through the API, which every build understands; one `serve` and one `work`.
fn start(binary: &Path) -> (Backend, Process, Process) {
    let backend = setup::empty_backend(binary);
    run_to_end_by(binary, &backend, &["seed", "--products", &PRODUCTS.to_string()]);
    sql(&backend, "UPDATE products SET stock = 1000000000; ANALYZE; CHECKPOINT");

    let serve = Process::serve_by(binary, &backend);
    let work = Process::work_by(binary, &backend);
    (backend, serve, work)
}

async fn measure(backend: &Backend, serve: &Process, work: &Process, clients: u64) -> (Round, Cost) {
    closed_loop(&serve.address, clients, WARM_UP).await;

    let used = || [serve.cpu(), work.cpu(), postgres_cpu(), rabbitmq_cpu()];
    let (transactions, cpu) = (committed(backend), used());
    let round = closed_loop(&serve.address, clients, Duration::from_secs(seconds())).await;
    let orders = round.count as f64;

    let cost = Cost {
        transactions: (committed(backend) - transactions) / orders,
        cpu: std::array::from_fn(|index| (used()[index] - cpu[index]) / orders * 1e6),
    };
    (round, cost)
}

async fn closed_loop(address: &str, clients: u64, time: Duration) -> Round {
    let started = Instant::now();
    let mut loops = JoinSet::new();

    for client in 0..clients {
        let address = address.to_owned();
        loops.spawn(async move {
            let mut connection = Connection::open(&address).await;
            let mut latencies = Vec::new();
            let mut number = client;
            while started.elapsed() < time {
                let sent = Instant::now();
                one_order(&mut connection, number).await;
                latencies.push(sent.elapsed());
                number += clients;
            }
            latencies
        });
    }

    Round::of(loops.join_all().await.concat(), started.elapsed())
}

async fn one_order(connection: &mut Connection, number: u64) {
    let (status, body) = connection.send(post("/orders", two_lines(number))).await;
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    let order: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    let id = order["order_id"].as_str().expect("an id");

    let mut pay = post(&format!("/orders/{id}/pay"), "{}".to_owned());
    let wait = "wait=10".parse().expect("a header");
    pay.headers_mut().insert("prefer", wait);
    let (status, body) = connection.send(pay).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
}

/// Transactions that this database has seen.
fn committed(backend: &Backend) -> f64 {
    let statistics = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    sql(backend, statistics).parse().expect("a number")
}

fn postgres_cpu() -> f64 {
    let postgres = &servers::shared().postgres;
    let url = postgres.maintenance_url();
    let pids = postgres.psql(&url, "SELECT pid FROM pg_stat_activity");
    pids.lines().filter_map(|pid| pid.parse().ok()).map(cpu_of).sum()
}

fn rabbitmq_cpu() -> f64 {
    static PID: OnceLock<u32> = OnceLock::new();
    let ask = || {
        let pid = servers::shared().rabbitmq.ctl(&["eval", "os:getpid()."]);
        pid.trim_matches('"').parse().expect("a process id")
    };
    cpu_of(*PID.get_or_init(ask))
}

fn report(table: &mut Table, clients: u64, build: &str, rounds: &[Round], costs: &[Cost]) {
    let plural = if clients == 1 { "client" } else { "clients" };
    let scenario = format!("created, paid and settled, {clients} {plural}{build}");
    table.rate(&scenario, "pgbench, three transactions an order", rounds);

    let of = |value: &dyn Fn(&Cost) -> f64| median(costs.iter().map(value).collect());
    let cpu = |index: usize| of(&|cost: &Cost| cost.cpu[index]);
    table.add([
        format!("… what an order costs, {clients} {plural}{build}"),
        format!(
            "{:.2} transactions; CPU µs: serve {:.0}, work {:.0}, PostgreSQL {:.0}, RabbitMQ {:.0}",
            of(&|cost: &Cost| cost.transactions),
            cpu(0),
            cpu(1),
            cpu(2),
            cpu(3),
        ),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    ]);
}
