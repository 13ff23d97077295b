//! Every figure, measured.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, Set, Statement, TransactionTrait as _};
use serde_json::Value;
use shop::{
    db::Db,
    domain::orders::{self, Line, NewOrder},
    entities::{Timestamp, order, order_item},
    queue::{Queue, SettleRequest},
    telemetry::traces::new_traceparent,
};
use uuid::Uuid;

use crate::{
    client::{Connection, get, load, post},
    floors::{self, Bare},
    report::{Round, Table, median},
    rounds, seconds,
    servers::{self, run::run},
    shop::{Place, Process, run_to_end},
};

const CONNECTIONS: u64 = 64;
/// What `pgbench` settles fastest with, spread out; more clients only wait for each other on one product.
const SETTLING_CLIENTS: u64 = 16;
const PRODUCTS: u64 = 1_000;
/// Orders settled in one round by the shop, and by a transaction an order.
const BATCHED_ORDERS: u64 = 40_000;
const SINGLE_ORDERS: u64 = 8_000;

pub async fn measure(wanted: &[String], table: &mut Table) {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    if is_wanted("create") {
        create(table).await;
    }
    for (name, products) in [("settle spread", PRODUCTS), ("settle hot", 1)] {
        if is_wanted(name) {
            settle(table, name, products).await;
        }
    }
    if is_wanted("builder") {
        builder(table).await;
    }
    if is_wanted("queue") {
        queue_alone(table).await;
    }
    if is_wanted("read") {
        read(table).await;
    }
    if is_wanted("alone") {
        alone(table).await;
    }
    if is_wanted("workers") {
        workers(table).await;
    }
    if is_wanted("serves") {
        serves(table).await;
    }
    if is_wanted("embedded") {
        embedded(table).await;
    }
    if is_wanted("memory") {
        memory(table).await;
    }
    if is_wanted("growth") {
        growth(table).await;
    }
}

/// A fresh database with a catalogue, on the shared servers.
fn place() -> Place {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let servers = servers::shared();
    let place = Place {
        database_url: servers.postgres.create_database(),
        queue_url: servers.rabbitmq.url(),
        cache_url: servers.redis.url(),
        prefix: format!("bench{number}"),
    };
    run_to_end(&place, &["migrate"]);
    sql(
        &place,
        &format!(
            "INSERT INTO products (name, price, stock) \
             SELECT 'product ' || n, 1500, 1000000000 FROM generate_series(1, {PRODUCTS}) n; \
             INSERT INTO stock_movements (product_id, delta, reason) \
             SELECT id, stock, 'initial stock' FROM products; ANALYZE"
        ),
    );
    place
}

fn sql(place: &Place, text: &str) -> String {
    servers::shared().postgres.psql(&place.database_url, text)
}

fn two_lines(number: u64) -> String {
    let product = number * 7 % (PRODUCTS - 1) + 1;
    format!(
        "{{\"user_id\":7,\"items\":[{{\"product_id\":{product},\"quantity\":1}},{{\"product_id\":{},\"quantity\":1}}]}}",
        product + 1
    )
}

/// Orders 1 to `count` that wait to be settled, a line each, over the first `products` products.
fn accepted_orders(place: &Place, count: u64, products: u64) {
    sql(
        place,
        &format!(
            "TRUNCATE order_items, orders; \
             INSERT INTO orders (id, user_id, status, total_price, currency, accepted_at, notify_after) \
             SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 7, 'PENDING', 1500, 'USD', now(), 'infinity' \
             FROM generate_series(1, {count}) n; \
             INSERT INTO order_items (order_id, product_id, quantity, unit_price) \
             SELECT id, 1 + row_number() OVER (ORDER BY id) * 7919 % {products}, 1, 1500 FROM orders ORDER BY id"
        ),
    );
    sql(place, "VACUUM ANALYZE orders");
    sql(place, "VACUUM ANALYZE order_items");
    sql(place, "VACUUM ANALYZE products");
    sql(place, "CHECKPOINT");
}

async fn create(table: &mut Table) {
    let place = place();
    let serve = Process::serve(&place);
    let time = Duration::from_secs(seconds());
    let mut measured = Vec::new();
    for _ in 0..rounds() {
        sql(&place, "TRUNCATE order_items, orders; CHECKPOINT");
        let floor = floors::pgbench_create(&place.database_url, CONNECTIONS, time);
        sql(&place, "TRUNCATE order_items, orders; CHECKPOINT");
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

async fn settle(table: &mut Table, name: &str, products: u64) {
    let place = place();
    let mut measured = Vec::new();
    for _ in 0..rounds() {
        accepted_orders(&place, SINGLE_ORDERS, products);
        let floor = floors::pgbench_settle(&place.database_url, SETTLING_CLIENTS, SINGLE_ORDERS);
        let rate = drain(&place, products, 1).await;
        measured.push(Round {
            rate,
            floor,
            ..Round::default()
        });
    }
    let figure = match name {
        "settle hot" => "settled through RabbitMQ, one hot product".to_owned(),
        _ => format!("settled through RabbitMQ, over {products} products"),
    };
    table.rate(&figure, "pgbench, a transaction an order", &measured);
}

/// Orders a second that so many `work` processes settle, while the queue is full.
async fn drain(place: &Place, products: u64, workers: usize) -> f64 {
    accepted_orders(place, BATCHED_ORDERS, products);
    let queue = Queue::new(&place.queue_url, &place.prefix, 1).expect("a known URL");
    let requests: Vec<SettleRequest> = (1..=BATCHED_ORDERS)
        .map(|number| SettleRequest {
            order_id: Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000 + u128::from(number)),
            traceparent: new_traceparent(),
        })
        .collect();
    for requests in requests.chunks(500) {
        queue.publish_settle_requests(requests).await.expect("notify_attempts");
    }
    let working: Vec<Process> = (0..workers).map(|_| Process::work(place)).collect();
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let waiting = sql(
            place,
            "SELECT count(*) FROM orders WHERE status = 'PENDING' AND accepted_at IS NOT NULL",
        );
        if waiting == "0" {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{waiting} orders are not settled"
        );
    }
    let cpu: f64 = working.iter().map(Process::cpu).sum();
    drop(working);
    queue.close().await;
    // From the first commit to the last; the first batch had been settled when the clock started.
    let span = sql(
        place,
        "SELECT extract(epoch FROM max(settled_at) - min(settled_at)), count(*) FILTER (WHERE settled_at > (SELECT min(settled_at) FROM orders)) FROM orders",
    );
    let (span, count) = span.split_once('|').expect("two columns");
    let (span, count): (f64, f64) = (span.parse().expect("seconds"), count.parse().expect("orders"));
    let share = cpu / span * 100.0;
    eprintln!("  {count:.0} orders in {span:.2} s; the workers used {share:.0} % of a core");
    count / span
}

/// Batches of 500 orders of two lines: the statements with arrays, reading prices included, against SeaORM's builder.
async fn builder(table: &mut Table) {
    const BATCHES: usize = 40;
    let place = place();
    let db = Db::connect(&place.database_url, 2, 100).await.expect("connects");
    let mut measured = Vec::new();
    for _ in 0..rounds() {
        let begun = Instant::now();
        for _ in 0..BATCHES {
            write_by_builder(&db, new_orders()).await;
        }
        let floor = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..BATCHES {
            let batch: Arc<[NewOrder]> = new_orders().into();
            let written = db.transaction::<_, shop::domain::Error, _>(move |txn| {
                let batch = Arc::clone(&batch);
                Box::pin(async move { orders::create(&txn, &batch).await })
            });
            assert_eq!(written.await.expect("written").len(), 500);
        }
        let a_second = |took: Duration| (BATCHES * 500) as f64 / took.as_secs_f64();
        measured.push(Round {
            rate: a_second(begun.elapsed()),
            floor: a_second(floor),
            ..Round::default()
        });
    }
    table.rate(
        "orders written by array statements, 500 a batch",
        "SeaORM's builder",
        &measured,
    );
}

fn new_orders() -> Vec<NewOrder> {
    let line = |product_id| Line {
        product_id,
        quantity: 1,
    };
    let order = |number: i64| NewOrder {
        id: Uuid::now_v7(),
        user_id: 7,
        lines: vec![line(number % 999 + 1), line(number % 999 + 2)],
        currency: "USD".to_owned(),
        idempotency_key: None,
        created_at: Timestamp::now(),
    };
    (0..500).map(order).collect()
}

async fn write_by_builder(db: &Db, batch: Vec<NewOrder>) {
    let orders = batch.iter().map(|new| order::ActiveModel {
        id: Set(new.id),
        user_id: Set(new.user_id),
        status: Set(order::OrderStatus::Pending),
        total_price: Set(3_000),
        currency: Set(new.currency.clone()),
        created_at: Set(new.created_at),
        updated_at: Set(new.created_at),
        ..Default::default()
    });
    let items = batch.iter().flat_map(|new| {
        new.lines.iter().map(|line| order_item::ActiveModel {
            order_id: Set(new.id),
            product_id: Set(line.product_id),
            quantity: Set(line.quantity),
            unit_price: Set(1_500),
            ..Default::default()
        })
    });
    let txn = db.write().begin().await.expect("begins");
    order::Entity::insert_many(orders)
        .exec_without_returning(&txn)
        .await
        .expect("written");
    order_item::Entity::insert_many(items)
        .exec_with_returning(&txn)
        .await
        .expect("written");
    txn.commit().await.expect("commits");
}

/// What the queue carries when nobody settles: publish with confirms, consume, acknowledge.
async fn queue_alone(table: &mut Table) {
    let place = place();
    let queue = Queue::new(&place.queue_url, &place.prefix, 2_000).expect("a known URL");
    let requests: Vec<SettleRequest> = (0..500)
        .map(|_| SettleRequest {
            order_id: Uuid::now_v7(),
            traceparent: new_traceparent(),
        })
        .collect();
    let batches = usize::try_from(BATCHED_ORDERS).expect("small") / requests.len();
    let (mut published, mut consumed) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let begun = Instant::now();
        for _ in 0..batches {
            queue.publish_settle_requests(&requests).await.expect("notify_attempts");
        }
        published.push(BATCHED_ORDERS as f64 / begun.elapsed().as_secs_f64());
        let (begun, mut left) = (Instant::now(), BATCHED_ORDERS as usize);
        while left > 0 {
            let deliveries = queue.next(500).await.expect("delivers");
            left -= deliveries.messages.len();
            queue.acknowledge(&deliveries).await.expect("acknowledges");
        }
        consumed.push(BATCHED_ORDERS as f64 / begun.elapsed().as_secs_f64());
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

async fn read(table: &mut Table) {
    let place = place();
    let serve = Process::serve(&place);
    let mut connection = Connection::open(&serve.address).await;
    accepted_orders(&place, 10, PRODUCTS);
    sql(&place, "UPDATE orders SET status = 'PAID', settled_at = now()");
    let order = "/orders/00000000-0000-7000-8000-000000000001";
    for (figure, path) in [
        ("`GET /products`, 50 products", "/products"),
        ("`GET /orders/{id}`, settled", order),
    ] {
        let (status, body) = connection.send(get(path)).await;
        assert_eq!(status, 200);
        let bare = Bare::start(&body);
        let time = Duration::from_secs(seconds());
        let mut measured = Vec::new();
        for _ in 0..rounds() {
            let floor = load(&bare.address, CONNECTIONS, time, 200, move |_| get(path))
                .await
                .rate;
            let round = load(&serve.address, CONNECTIONS, time, 200, move |_| get(path)).await;
            measured.push(Round { floor, ..round });
        }
        table.rate(figure, "bare handler, same bytes", &measured);
    }
}

/// One order at a time on an idle system: from the request to pay to the commit of PAID.
async fn alone(table: &mut Table) {
    let place = place();
    let (serve, _work) = (Process::serve(&place), Process::work(&place));
    let mut connection = Connection::open(&serve.address).await;
    let db = Db::connect(&place.database_url, 1, 100).await.expect("connects");
    let db = db.read();
    let mut took = Vec::new();
    for number in 0..100 {
        let (_, made) = connection.send(post("/orders", two_lines(number))).await;
        let made: Value = serde_json::from_slice(&made).expect("JSON");
        let id = made["order_id"].as_str().expect("an id").to_owned();
        let asked = Instant::now();
        connection
            .send(post(&format!("/orders/{id}/pay"), "{}".to_owned()))
            .await;
        let begun = Instant::now();
        let by_id = format!("SELECT status FROM orders WHERE id = '{id}' AND status <> 'PENDING'");
        while db
            .query_one_raw(Statement::from_string(DbBackend::Postgres, &by_id))
            .await
            .expect("asked")
            .is_none()
        {
            assert!(begun.elapsed() < Duration::from_secs(10), "it is not settled");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        took.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    table.add([
        "one order alone, from pay to PAID".to_owned(),
        String::new(),
        format!("{:.2} ms, two commits by fdatasync", 2.0 * fsync_milliseconds()),
        String::new(),
        format!("{:.2} ms", median(took.clone())),
        format!("{:.2} ms", took[took.len() * 99 / 100]),
    ]);
}

async fn workers(table: &mut Table) {
    let place = place();
    let mut measured: [Vec<Round>; 3] = Default::default();
    for _ in 0..rounds() {
        let floor = drain(&place, PRODUCTS, 1).await;
        for (workers, measured) in (2..).zip(&mut measured) {
            let rate = drain(&place, PRODUCTS, workers).await;
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

/// Orders made through so many `serve` processes, 64 connections in all.
async fn serves(table: &mut Table) {
    let place = place();
    let processes: Vec<Process> = (0..3).map(|_| Process::serve(&place)).collect();
    let time = Duration::from_secs(seconds());
    let mut measured: [Vec<Round>; 2] = Default::default();
    for _ in 0..rounds() {
        let mut floor = 0.0;
        for count in 1..=processes.len() {
            sql(&place, "TRUNCATE order_items, orders; CHECKPOINT");
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

/// What one small write to the disk of the database costs.
fn fsync_milliseconds() -> f64 {
    use std::io::Write as _;
    let (_, folder) = run().new_folder("fsync");
    let mut file = std::fs::File::create(folder.join("probe")).expect("the folder is ours");
    let costs = (0..200).map(|_| {
        let begun = Instant::now();
        file.write_all(&[0; 8192]).expect("written");
        file.sync_data().expect("synced");
        begun.elapsed().as_secs_f64() * 1e3
    });
    median(costs.collect())
}

/// SQLite with `synchronous=FULL`, queue and cache inside the process.
async fn embedded(table: &mut Table) {
    let time = Duration::from_secs(seconds());
    let (mut created, mut settled) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let (place, db) = embedded_place().await;
        let (create_floor, settle_floor) = floors::sqlite(&db).await;
        let serve = Process::serve(&place);
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
            rate: drain_embedded(&place, &db).await,
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

async fn embedded_place() -> (Place, Db) {
    let (_, folder) = run().new_folder("embedded");
    let place = Place {
        database_url: format!("sqlite://{}/shop.db?mode=rwc", folder.display()),
        queue_url: "memory:".to_owned(),
        cache_url: "memory:".to_owned(),
        prefix: "bench".to_owned(),
    };
    run_to_end(&place, &["migrate"]);
    let db = Db::connect(&place.database_url, 2, 100).await.expect("opens");
    let fill = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {PRODUCTS}) \
         INSERT INTO products (name, price, stock) SELECT 'product ' || n, 1500, 1000000000 FROM n; \
         INSERT INTO stock_movements (product_id, delta, reason) SELECT id, stock, 'initial stock' FROM products"
    );
    db.write().execute_unprepared(&fill).await.expect("filled");
    (place, db)
}

/// Everything accepted that was made before; the restarted process makes it due and settles it.
async fn drain_embedded(place: &Place, db: &Db) -> f64 {
    let accept = "UPDATE orders SET accepted_at = created_at, notify_after = 0 WHERE status = 'PENDING'";
    db.write().execute_unprepared(accept).await.expect("accepted");
    let _serve = Process::serve(place);
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let waiting = db
            .read()
            .query_one_raw(Statement::from_string(
                DbBackend::Sqlite,
                "SELECT (max(settled_at) - min(settled_at)) / 1e6, count(settled_at), count(*) FROM orders WHERE accepted_at > 1",
            ))
            .await
            .expect("asked")
            .expect("a row");
        let (span, settled, all): (Option<f64>, i64, i64) = waiting.try_get_many_by_index().expect("numbers");
        if settled == all {
            return all as f64 / span.unwrap_or(1.0);
        }
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{settled} of {all} are settled"
        );
    }
}

/// Resident memory idle and under load, of both roles.
async fn memory(table: &mut Table) {
    let place = place();
    let (serve, work) = (Process::serve(&place), Process::work(&place));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = [serve.memory(), work.memory()];
    let time = Duration::from_secs(seconds());
    load(&serve.address, CONNECTIONS, time, 201, |number| {
        post("/orders", two_lines(number))
    })
    .await;
    load(&serve.address, CONNECTIONS, time, 200, |_| get("/products")).await;
    let busy_serve = serve.memory();
    drop(work);
    let mut busy_work = 0;
    accepted_orders(&place, BATCHED_ORDERS, PRODUCTS);
    let work = Process::work(&place);
    sql(&place, "UPDATE orders SET notify_after = now()");
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        busy_work = busy_work.max(work.memory());
    }
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    for (role, idle, busy) in [("serve", idle[0], busy_serve), ("work", idle[1], busy_work)] {
        let figure = format!("memory of `{role}`, idle and under load");
        table.add([
            figure,
            format!("{} and {}", megabytes(idle), megabytes(busy)),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }
}

/// The same rates with a hundred times as many orders stored.
async fn growth(table: &mut Table) {
    let place = place();
    let serve = Process::serve(&place);
    let time = Duration::from_secs(seconds());
    let mut rates = Vec::new();
    for stored in [10_000, 1_000_000] {
        accepted_orders(&place, stored, PRODUCTS);
        sql(&place, "UPDATE orders SET status = 'PAID', settled_at = now()");
        sql(&place, "VACUUM ANALYZE orders");
        sql(&place, "CHECKPOINT");
        let mut measured = Vec::new();
        for _ in 0..rounds() {
            measured.push(
                load(&serve.address, CONNECTIONS, time, 201, |number| {
                    post("/orders", two_lines(number))
                })
                .await
                .rate,
            );
        }
        rates.push(median(measured));
    }
    table.add([
        "`POST /orders` with 1,000,000 orders stored".to_owned(),
        format!("{:.0}/s", rates[1]),
        format!("{:.0}/s with 10,000", rates[0]),
        format!("{:.2}", rates[1] / rates[0]),
        String::new(),
        String::new(),
    ]);
}
