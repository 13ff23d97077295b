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
    Fresh,
    None,
    OfEmptyTables,
}

/// A shop whose database has statistics of one kind.
struct Shop {
    backend: Backend,
    serve: Process,
}

/// All three shops stand side by side and are measured by turns, each work for a few seconds: the machine and its disk change
/// more from one minute to the next than the statistics do.
pub async fn statistics(table: &mut Table) {
    for stored in STORED {
        let mut shops = Vec::new();
        for state in [Statistics::Fresh, Statistics::None, Statistics::OfEmptyTables] {
            let backend = filled(stored, state);
            let serve = Process::serve(&backend);
            make_with_keys(&serve.address).await;
            shops.push(Shop { backend, serve });
        }

        // By work, and by round within it.
        let (mut none, mut empty): ([Vec<Round>; 5], [Vec<Round>; 5]) = Default::default();
        for round in 0..rounds() {
            let first_to_pay = stored * round as u64 / rounds() as u64;
            for (index, work) in WORK.iter().enumerate() {
                let mut rates = [0.0; 3];
                for turn in 0..shops.len() {
                    let number = (round + turn) % shops.len();
                    rates[number] = shops[number].rate(work, first_to_pay).await;
                }
                let [floor, of_none, of_empty] = rates;
                for (rate, measured) in [(of_none, &mut none), (of_empty, &mut empty)] {
                    measured[index].push(Round {
                        rate,
                        floor,
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

impl Shop {
    /// The rate of one of [`WORK`]. Orders are paid from the one with the number `first_to_pay` on.
    async fn rate(&self, work: &str, first_to_pay: u64) -> f64 {
        let (at, time) = (&self.serve.address, Duration::from_secs(seconds()));
        let measured = match work {
            "create" => load(at, CONNECTIONS, time, 201, |number| post("/orders", two_lines(number))).await,
            "replay" => load(at, CONNECTIONS, time, 201, |number| with_key(number % KEYS)).await,
            "list" => {
                load(at, CONNECTIONS, time, 200, |number| {
                    get(&format!("/orders?limit=50&user_id={}", number % 1_000 + 1))
                })
                .await
            }
            "pay" => {
                load(at, CONNECTIONS, time, 202, move |number| {
                    let id = order_id(first_to_pay + number + 1);
                    post(&format!("/orders/{id}/pay"), "{}".to_owned())
                })
                .await
            }
            _ => return settle(&self.backend).await,
        };
        measured.rate
    }
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

    let since = sql(backend, "SELECT now()");
    let started = Instant::now();
    let _work = Process::work(backend);
    while sql(backend, accepted) != "0" {
        assert!(started.elapsed() < Duration::from_secs(300), "orders are not settled");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // From the first commit to the last, as the start of the process is not what is measured.
    let span = "SELECT extract(epoch FROM max(settled_at) - min(settled_at)) FROM orders WHERE settled_at >";
    count
        / sql(backend, &format!("{span} '{since}'"))
            .parse::<f64>()
            .expect("seconds")
            .max(0.001)
}
