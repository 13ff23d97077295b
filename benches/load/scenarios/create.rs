//! Creating orders: by one process, by several, and beside a million stored orders.

use std::time::Duration;

use super::{
    CONNECTIONS, PRODUCTS,
    setup::{self, accepted_orders, sql, two_lines, unpaid_orders},
};
use crate::{
    client::{load, post},
    floors,
    report::{Round, Table, median},
    rounds, seconds,
    shop::{Backend, Process},
};

/// More than are paid in one measurement.
const UNPAID_ORDERS: u64 = 200_000;
/// Those that the floor pays.
const FLOOR_ORDERS: u64 = 20_000;

pub async fn create(table: &mut Table) {
    let backend = setup::backend();
    let serve = Process::serve(&backend);
    let time = Duration::from_secs(seconds());

    let mut measured = Vec::new();
    for _ in 0..rounds() {
        sql(&backend, "TRUNCATE orders CASCADE; CHECKPOINT");
        let floor = floors::pgbench_create(&backend.database_url, CONNECTIONS, time);
        sql(&backend, "TRUNCATE orders CASCADE; CHECKPOINT");
        let round = load(&serve.address, CONNECTIONS, time, 201, |number| {
            post("/orders", two_lines(number))
        })
        .await;
        measured.push(Round { floor, ..round });
    }

    table.rate(
        "`POST /orders`, two lines, 64 connections",
        "pgbench, one statement an order",
        &measured,
    );
}

/// Orders whose units are set aside: over all products, beside the same without a hold; and of one product, beside the same
/// over all products.
pub async fn holds(table: &mut Table) {
    const BODY: fn(u64, &str) -> String =
        |product, hold| format!("{{\"user_id\":7,\"items\":[{{\"product_id\":{product},\"quantity\":1}}]{hold}}}");
    const HOLD: &str = ",\"hold_seconds\":3600";
    let backend = setup::backend();
    let serve = Process::serve(&backend);
    let measure = async |body: fn(u64) -> String| {
        sql(
            &backend,
            "TRUNCATE orders CASCADE; UPDATE products SET held = 0; CHECKPOINT",
        );
        let time = Duration::from_secs(seconds());
        load(&serve.address, CONNECTIONS, time, 201, move |number| {
            post("/orders", body(number))
        })
        .await
    };

    let (mut spread, mut hot) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let without = measure(|number| BODY(number * 7 % PRODUCTS + 1, "")).await;
        let with = measure(|number| BODY(number * 7 % PRODUCTS + 1, HOLD)).await;
        let of_one = measure(|_| BODY(1, HOLD)).await;
        let rate = with.rate;
        spread.push(Round {
            floor: without.rate,
            ..with
        });
        hot.push(Round { floor: rate, ..of_one });
    }

    table.rate(
        "`POST /orders` with a hold, over 1000 products",
        "without a hold",
        &spread,
    );
    table.rate(
        "`POST /orders` with a hold, one hot product",
        "over 1000 products",
        &hot,
    );
}

/// Payments accepted, each of an order of its own. Nobody settles meanwhile.
pub async fn pay(table: &mut Table) {
    let backend = setup::backend();
    let serve = Process::serve(&backend);
    let time = Duration::from_secs(seconds());

    let mut measured = Vec::new();
    for _ in 0..rounds() {
        unpaid_orders(&backend, UNPAID_ORDERS);
        let floor = floors::pgbench_pay(&backend.database_url, CONNECTIONS, FLOOR_ORDERS);
        unpaid_orders(&backend, UNPAID_ORDERS);
        let round = load(&serve.address, CONNECTIONS, time, 202, |number| {
            post(&format!("/orders/{}/pay", setup::order_id(number + 1)), "{}".to_owned())
        })
        .await;
        measured.push(Round { floor, ..round });
    }

    table.rate(
        "`POST /orders/{id}/pay`, 64 connections",
        "pgbench, a transaction a payment",
        &measured,
    );
}

/// Orders created through several `serve` processes, on 64 connections in all.
pub async fn serves(table: &mut Table) {
    let backend = setup::backend();
    let processes: Vec<Process> = (0..3).map(|_| Process::serve(&backend)).collect();
    let time = Duration::from_secs(seconds());

    let mut measured: [Vec<Round>; 2] = Default::default();
    for _ in 0..rounds() {
        let mut floor = 0.0;
        for count in 1..=processes.len() {
            sql(&backend, "TRUNCATE orders CASCADE; CHECKPOINT");
            let loads = processes[..count].iter().map(|process| {
                load(&process.address, CONNECTIONS / count as u64, time, 201, |number| {
                    post("/orders", two_lines(number))
                })
            });

            let rate = futures_util::future::join_all(loads)
                .await
                .iter()
                .map(|round| round.rate)
                .sum();

            if count == 1 {
                floor = rate;
            } else {
                measured[count - 2].push(Round {
                    rate,
                    floor,
                    ..Round::default()
                });
            }
        }
    }

    for (count, measured) in (2..).zip(&measured) {
        table.rate(
            &format!("`POST /orders` through {count} `serve` processes"),
            "through one",
            measured,
        );
    }
}

/// The rate beside many stored orders, and beside few.
pub async fn growth(table: &mut Table) {
    let backend = setup::backend();
    let serve = Process::serve(&backend);
    let few = rate_beside(&backend, &serve, 10_000).await;

    for stored in [1_000_000, 5_000_000] {
        let many = rate_beside(&backend, &serve, stored).await;
        table.add([
            format!("`POST /orders` with {},000,000 orders stored", stored / 1_000_000),
            format!("{many:.0}/s"),
            format!("{few:.0}/s with 10,000"),
            format!("{:.2}", many / few),
            String::new(),
            String::new(),
        ]);
    }
}

async fn rate_beside(backend: &Backend, serve: &Process, stored: u64) -> f64 {
    accepted_orders(backend, stored, PRODUCTS);
    sql(backend, "UPDATE orders SET status = 'PAID', settled_at = now()");
    sql(backend, "VACUUM ANALYZE orders");
    sql(backend, "CHECKPOINT");

    let mut rates = Vec::new();
    for _ in 0..rounds() {
        let round = load(
            &serve.address,
            CONNECTIONS,
            Duration::from_secs(seconds()),
            201,
            |number| post("/orders", two_lines(number)),
        );
        rates.push(round.await.rate);
    }
    median(rates)
}
