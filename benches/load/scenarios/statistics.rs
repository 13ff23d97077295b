//! The same work under every state of PostgreSQL's statistics: none, those of empty tables, and fresh ones. The rate with
//! fresh statistics is the floor of the others. Autovacuum is kept away, or it would mend them meanwhile.

use std::time::{Duration, Instant};

use super::{
    CONNECTIONS, PRODUCTS,
    setup::{self, order_id, sql, two_lines},
};
use crate::{
    client::{Connection, get, load, post},
    report::{Round, Table},
    rounds, seconds,
    shop::{Backend, Process, this_build},
};

const STORED: [u64; 2] = [100_000, 1_000_000];
const WORK: [&str; 5] = ["create", "replay", "list", "pay", "settle"];
/// Orders that are made again under their key.
const KEYS: u64 = 1_000;

#[derive(Clone, Copy, PartialEq)]
enum Statistics {
    None,
    OfEmptyTables,
    Fresh,
}

pub async fn statistics(table: &mut Table) {
    for stored in STORED {
        let (mut none, mut empty): ([Vec<Round>; 5], [Vec<Round>; 5]) = Default::default();
        for round in 0..rounds() {
            // What one state has written is still being written to the disk while the next one is measured: no state is
            // always the first.
            let mut states = [Statistics::Fresh, Statistics::None, Statistics::OfEmptyTables];
            states.rotate_left(round % 3);
            let mut measured = Vec::new();
            for state in states {
                measured.push((state, rates(stored, state).await));
            }

            let of = |wanted| {
                measured
                    .iter()
                    .find(|(state, _)| *state == wanted)
                    .map(|(_, rates)| *rates)
            };
            let floors = of(Statistics::Fresh).unwrap_or_default();
            for (state, measured) in [(Statistics::None, &mut none), (Statistics::OfEmptyTables, &mut empty)] {
                for (index, rate) in of(state).unwrap_or_default().into_iter().enumerate() {
                    measured[index].push(Round {
                        rate,
                        floor: floors[index],
                        ..Round::default()
                    });
                }
            }
        }

        for (state, measured) in [("never analysed", &none), ("analysed while empty", &empty)] {
            for (work, measured) in WORK.iter().zip(measured) {
                table.rate(
                    &format!("{work}, {stored} orders stored, {state}"),
                    "with fresh statistics",
                    measured,
                );
            }
        }
    }
}

/// The rates of [`WORK`] beside `stored` orders.
async fn rates(stored: u64, state: Statistics) -> [f64; 5] {
    let backend = filled(stored, state);
    let serve = Process::serve(&backend);
    let time = Duration::from_secs(seconds());
    let at = &serve.address;

    let create = load(at, CONNECTIONS, time, 201, |number| post("/orders", two_lines(number))).await;
    make_with_keys(at).await;
    let replay = load(at, CONNECTIONS, time, 201, |number| with_key(number % KEYS)).await;
    let list = load(at, CONNECTIONS, time, 200, |number| {
        get(&format!("/orders?limit=50&user_id={}", number % 1_000 + 1))
    })
    .await;
    let pay = load(at, CONNECTIONS, time, 202, |number| {
        post(&format!("/orders/{}/pay", order_id(number + 1)), "{}".to_owned())
    })
    .await;
    let settle = settle(&backend).await;

    [create.rate, replay.rate, list.rate, pay.rate, settle]
}

/// A database with `stored` orders that wait to be paid.
fn filled(stored: u64, state: Statistics) -> Backend {
    let backend = setup::empty_backend(&this_build());
    for table in ["products", "orders", "order_items", "stock_movements"] {
        sql(&backend, &format!("ALTER TABLE {table} SET (autovacuum_enabled = off)"));
    }
    if state == Statistics::OfEmptyTables {
        sql(&backend, "ANALYZE");
    }

    sql(
        &backend,
        &format!(
            "INSERT INTO products (name, price, stock) \
             SELECT 'product ' || n, 1500, 1000000000 FROM generate_series(1, {PRODUCTS}) n; \
             INSERT INTO orders (id, user_id, total_price, currency) \
             SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n % 1000 + 1, 1500, 'USD' \
             FROM generate_series(1, {stored}) n; \
             INSERT INTO order_items (order_id, product_id, quantity, unit_price) \
             SELECT id, 1 + row_number() OVER (ORDER BY id) * 7919 % {PRODUCTS}, 1, 1500 FROM orders ORDER BY id"
        ),
    );
    if state == Statistics::Fresh {
        sql(&backend, "ANALYZE");
    }
    sql(&backend, "CHECKPOINT");
    backend
}

async fn make_with_keys(address: &str) {
    let mut connection = Connection::open(address).await;
    for key in 0..KEYS {
        let (status, body) = connection.send(with_key(key)).await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    }
}

fn with_key(key: u64) -> crate::client::Outgoing {
    let mut request = post("/orders", two_lines(key));
    let value = format!("key-{key}").parse().expect("a header");
    request.headers_mut().insert("idempotency-key", value);
    request
}

/// Settles what has been paid, whose settle requests wait in the queue.
async fn settle(backend: &Backend) -> f64 {
    let accepted = "SELECT count(*) FROM orders WHERE settled_at IS NULL AND accepted_at IS NOT NULL";
    let count: f64 = sql(backend, accepted).parse().expect("a number");

    let started = Instant::now();
    let _work = Process::work(backend);
    while sql(backend, accepted) != "0" {
        assert!(started.elapsed() < Duration::from_secs(300), "orders are not settled");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // From the first commit to the last, as the start of the process is not what is measured.
    let span = "SELECT extract(epoch FROM max(settled_at) - min(settled_at)) FROM orders";
    count / sql(backend, span).parse::<f64>().expect("seconds").max(0.001)
}
