//! The floors: the same work done in the simplest way, which the measurements are compared with.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use poem::{EndpointExt as _, IntoResponse as _, Route, Server, endpoint::make_sync, get, listener::TcpListener};

use crate::servers::run::{folders_in, program, run};

/// The bench's own executable serves the bare handler in a process of its own.
pub const BARE_HANDLER: &str = "bare-handler";

/// Creates one order of two lines with one statement in one transaction.
const CREATE: &str = "\
\\set product random(1, 999)
WITH o AS (
  INSERT INTO orders (id, user_id, status, total_price, currency)
  VALUES (gen_random_uuid(), 7, 'PENDING', 3000, 'USD') RETURNING id)
INSERT INTO order_items (order_id, product_id, quantity, unit_price)
SELECT o.id, p.id, 1, p.price FROM o, products p WHERE p.id IN (:product, :product + 1) RETURNING id;
";

/// Settles one paid order in one transaction: lock the order, read its line, lock the product, take the stock, set PAID.
/// Each order is settled once: client `c` settles the orders `c × share + 1`, `c × share + 2`, …
const SETTLE: &str = "\
\\set k :k + 1
\\set n :client_id * :share + :k
BEGIN;
SELECT id AS order_id, total_price FROM orders
 WHERE id = ('00000000-0000-7000-8000-' || lpad(to_hex(:n), 12, '0'))::uuid AND status = 'PENDING' FOR NO KEY UPDATE \\gset
SELECT product_id, quantity FROM order_items WHERE order_id = ':order_id' \\gset
SELECT stock FROM products WHERE id = :product_id FOR NO KEY UPDATE \\gset
UPDATE products SET stock = stock - :quantity WHERE id = :product_id AND stock >= :quantity;
UPDATE orders SET status = 'PAID', total_price = :total_price, settled_at = now() WHERE id = ':order_id';
COMMIT;
";

/// Takes one order of two lines the whole way, in three transactions: create it, accept its payment, settle it.
const WHOLE_WAY: &str = "\
\\set product random(1, 999)
WITH o AS (
  INSERT INTO orders (id, user_id, status, total_price, currency)
  VALUES (gen_random_uuid(), 7, 'PENDING', 3000, 'USD') RETURNING id),
i AS (
  INSERT INTO order_items (order_id, product_id, quantity, unit_price)
  SELECT o.id, p.id, 1, p.price FROM o, products p WHERE p.id IN (:product, :product + 1) RETURNING id)
SELECT o.id AS order_id, count(i.id) AS lines FROM o, i GROUP BY o.id \\gset
UPDATE orders SET accepted_at = now(), notify_after = now() + interval '5 s'
 WHERE id = :order_id::uuid AND status = 'PENDING' AND accepted_at IS NULL;
BEGIN;
SELECT total_price FROM orders WHERE id = :order_id::uuid AND status = 'PENDING' FOR NO KEY UPDATE \\gset
SELECT id, stock FROM products WHERE id IN (:product, :product + 1) ORDER BY id FOR NO KEY UPDATE;
UPDATE products SET stock = stock - 1 WHERE id IN (:product, :product + 1);
UPDATE orders SET status = 'PAID', total_price = :total_price, settled_at = now() WHERE id = :order_id::uuid;
COMMIT;
";

/// Accepts the payment of one order in one transaction.
const PAY: &str = "\
\\set k :k + 1
\\set n :client_id * :share + :k
UPDATE orders SET accepted_at = now(), notify_after = now() + interval '5 s'
 WHERE id = ('00000000-0000-7000-8000-' || lpad(to_hex(:n), 12, '0'))::uuid AND status = 'PENDING' AND accepted_at IS NULL;
";

/// Orders taken the whole way a second, with three transactions an order.
pub fn pgbench_whole_way(database_url: &str, clients: u64, time: Duration) -> f64 {
    let time = time.as_secs().to_string();
    pgbench(
        database_url,
        WHOLE_WAY,
        clients.min(128),
        &["-T", &time, "-M", "prepared"],
    )
}

/// Payments accepted a second, with one transaction a payment, over `orders` orders that wait to be paid.
pub fn pgbench_pay(database_url: &str, clients: u64, orders: u64) -> f64 {
    let share = (orders / clients).to_string();
    pgbench(
        database_url,
        PAY,
        clients,
        &["-t", &share, "-D", &format!("share={share}"), "-D", "k=0"],
    )
}

/// Orders created a second, with one transaction an order.
pub fn pgbench_create(database_url: &str, clients: u64, time: Duration) -> f64 {
    let time = time.as_secs().to_string();
    pgbench(database_url, CREATE, clients, &["-T", &time, "-M", "prepared"])
}

/// Orders settled a second, with one transaction an order, over `orders` accepted orders.
pub fn pgbench_settle(database_url: &str, clients: u64, orders: u64) -> f64 {
    let share = (orders / clients).to_string();
    // Variables inside a quoted literal work in the simple protocol only.
    pgbench(
        database_url,
        SETTLE,
        clients,
        &["-t", &share, "-D", &format!("share={share}"), "-D", "k=0"],
    )
}

fn pgbench(database_url: &str, script: &str, clients: u64, arguments: &[&str]) -> f64 {
    let folders = folders_in("/usr/lib/postgresql", "bin");
    let (_, folder) = run().new_folder("pgbench");
    let file = folder.join("script.sql");
    fs::write(&file, script).expect("the folder is ours");
    let mut command = Command::new(program("pgbench", "postgresql-contrib", &folders));
    command
        .args(["-n", "-j", "2", "-c", &clients.to_string(), "-f"])
        .arg(&file)
        .args(arguments)
        .arg(database_url);

    let output = run().output(&mut command);
    let tps = output.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = tps.and_then(|line| line.split_whitespace().next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("pgbench printed no rate: {output}"))
}

/// A bare handler that answers every request with the same bytes, in a process of its own.
pub struct Bare {
    child: Child,
    pub address: String,
}

impl Bare {
    pub fn start(body: &[u8]) -> Self {
        let (_, folder) = run().new_folder("bare");
        let file = folder.join("body.json");
        fs::write(&file, body).expect("the folder is ours");
        let address = format!("127.0.0.1:{}", crate::servers::run::free_port());
        let own: PathBuf = std::env::current_exe().expect("it runs");
        let mut command = Command::new(own);
        command.args([BARE_HANDLER, &address]).arg(&file).stdout(Stdio::null());
        let child = run().spawn(&mut command);

        let started = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "the bare handler does not start"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, address }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        run().unregister(&self.child);
    }
}

pub fn serve_bare(address: &str, file: &str) {
    let body = bytes::Bytes::from(fs::read(file).expect("the body"));
    let handler = make_sync(move |_| body.clone().with_content_type("application/json"));
    let app = Route::new().at("/*path", get(handler.map_to_response()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let server = Server::new(TcpListener::bind(address.to_owned())).run(app);
    runtime.expect("a runtime").block_on(server).expect("it serves");
}

/// Orders that SQLite creates and settles a second, with one transaction an order.
pub async fn sqlite(db: &shop::db::Db) -> (f64, f64) {
    use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
    const ORDERS: u32 = 2_000;
    let rate = |started: Instant| f64::from(ORDERS) / started.elapsed().as_secs_f64();

    let started = Instant::now();
    for number in 1..=ORDERS {
        let txn = db.write().begin().await.expect("begins");
        let (id, product) = (format!("x'{number:032x}'"), number % 999 + 1);
        txn.execute_unprepared(&format!(
            "INSERT INTO orders (id, user_id, status, total_price, currency, created_at, accepted_at) \
             VALUES ({id}, 7, 'PENDING', 3000, 'USD', 1, 1)"
        ))
        .await
        .expect("inserted");
        txn.execute_unprepared(&format!(
            "INSERT INTO order_items (order_id, product_id, quantity, unit_price) \
             SELECT {id}, id, 1, price FROM products WHERE id IN ({product}, {product} + 1)"
        ))
        .await
        .expect("inserted");
        txn.commit().await.expect("commits");
    }
    let created = rate(started);

    let started = Instant::now();
    for number in 1..=ORDERS {
        let txn = db.write().begin().await.expect("begins");
        let id = format!("x'{number:032x}'");
        for statement in [
            format!("SELECT status FROM orders WHERE id = {id}"),
            format!(
                "UPDATE products SET stock = stock - 1 WHERE stock > 0 AND id IN \
                 (SELECT product_id FROM order_items WHERE order_id = {id})"
            ),
            format!("UPDATE orders SET status = 'PAID', settled_at = 1 WHERE id = {id}"),
        ] {
            txn.execute_unprepared(&statement).await.expect("done");
        }
        txn.commit().await.expect("commits");
    }

    (created, rate(started))
}
