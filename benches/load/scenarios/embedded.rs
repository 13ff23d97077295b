//! The embedded shop: SQLite with `synchronous=FULL`, queue and cache inside the process.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use shop::db::Db;

use super::{CONNECTIONS, PRODUCTS, setup::two_lines};
use crate::{
    client::{load, post},
    floors,
    report::{Round, Table},
    rounds, seconds,
    servers::run::run,
    shop::{Backend, Process, run_to_end},
};

pub async fn embedded(table: &mut Table) {
    let time = Duration::from_secs(seconds());
    let (mut created, mut settled) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let (backend, db) = embedded_backend().await;
        let (create_floor, settle_floor) = floors::sqlite(&db).await;

        let serve = Process::serve(&backend);
        let round = load(&serve.address, CONNECTIONS, time, 201, |number| {
            post("/orders", two_lines(number))
        })
        .await;
        created.push(Round {
            floor: create_floor,
            ..round
        });

        drop(serve);
        settled.push(Round {
            rate: drain_embedded(&backend, &db).await,
            floor: settle_floor,
            ..Round::default()
        });
    }

    table.rate(
        "embedded: `POST /orders`, two lines",
        "SQLite, a transaction an order",
        &created,
    );
    table.rate("embedded: settled", "SQLite, a transaction an order", &settled);
}

async fn embedded_backend() -> (Backend, Db) {
    let (_, folder) = run().new_folder("embedded");
    let backend = Backend {
        database_url: format!("sqlite://{}/shop.db?mode=rwc", folder.display()),
        queue_url: "memory:".to_owned(),
        cache_url: "memory:".to_owned(),
        prefix: "bench".to_owned(),
    };

    run_to_end(&backend, &["migrate"]);
    let db = Db::connect(&backend.database_url, 2, 100).await.expect("opens");
    let fill = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {PRODUCTS}) \
         INSERT INTO products (name, price, stock) SELECT 'product ' || n, 1500, 1000000000 FROM n; \
         INSERT INTO stock_movements (product_id, delta, reason) SELECT id, stock, 'initial stock' FROM products"
    );
    db.write().execute_unprepared(&fill).await.expect("filled");
    (backend, db)
}

/// Accepts the payment of all pending orders; the restarted process makes them due and settles them.
async fn drain_embedded(backend: &Backend, db: &Db) -> f64 {
    let accept = "UPDATE orders SET accepted_at = created_at, notify_after = 0 WHERE status = 'PENDING'";
    db.write().execute_unprepared(accept).await.expect("accepted");

    let _serve = Process::serve(backend);
    let started = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let progress = db
            .read()
            .query_one_raw(Statement::from_string(
                DbBackend::Sqlite,
                "SELECT (max(settled_at) - min(settled_at)) / 1e6, count(settled_at), count(*) FROM orders WHERE accepted_at > 1",
            ))
            .await
            .expect("answered")
            .expect("a row");
        let (span, settled, all): (Option<f64>, i64, i64) = progress.try_get_many_by_index().expect("numbers");
        if settled == all {
            return all as f64 / span.unwrap_or(1.0);
        }
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "{settled} of {all} are settled"
        );
    }
}
