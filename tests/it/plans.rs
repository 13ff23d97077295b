//! How PostgreSQL runs the statements of the program, under every state of its statistics. The plans are those that were
//! really executed, foreign-key checks included: `auto_explain` writes them to the server's log. They are generic plans, which
//! the connections of the program ask for, or the roles where PgBouncer drops what connections ask for.

use std::{fs, time::Duration};

use rstest::rstest;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::Value;
use shop::tasks::auditor;

mod traffic;

use traffic::{CUSTOMERS, fill, go_through_everything, place_orders};

use crate::{
    servers::{PgBouncer, Postgres},
    support::{Backend, Shop, eventually, run_to_end},
};

/// Statistics change only when the test says so, and every plan is logged.
const SETTINGS: &str = "
autovacuum = off
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql.log'
session_preload_libraries = 'auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_level = log
log_line_prefix = '<%a> '
";
const LOG: &str = "log/postgresql.log";
const STORED: i64 = 20_000;
/// The ledger check reads all tables, and so should it.
const NO_LEDGER_CHECK: (&str, &str) = ("SHOP_BOOKS_EVERY_SECONDS", "0");

/// Both roles read the currency of all products once, when they start.
const AT_THE_START: &str = "SELECT currency FROM products";

/// The statements of the periodic ledger check that read orders, lines and movements.
const SINCE: [&str; 7] = [
    "WITH refunded AS",
    "WITH open_holds AS",
    "SELECT COUNT(*) FROM orders WHERE ledger_period",
    "WITH moved AS",
    "WITH settled AS",
    "AS lines_total",
    "'was accepted too long ago",
];

/// A movement and a stock that explain what [`fill`] has put into the tables.
const BALANCE: &str = "
    INSERT INTO stock_movements (product_id, delta, reason)
    SELECT id, 1000000, 'initial stock' FROM products p
     WHERE NOT EXISTS (SELECT 1 FROM stock_movements m WHERE m.product_id = p.id);
    UPDATE products p
       SET stock = 1000000 - (SELECT COALESCE(SUM(i.quantity), 0)
                                FROM order_items i JOIN orders o ON o.id = i.order_id
                               WHERE i.product_id = p.id AND o.status = 'PAID');
";

/// Refunds of many orders.
const REFUNDED: &str = "
    INSERT INTO refunds (id, order_id, amount, currency, reason)
    SELECT gen_random_uuid(), id, 1, 'USD', 'broken' FROM orders WHERE status = 'PAID' LIMIT 10000;
    INSERT INTO refund_items (refund_id, product_id, quantity)
    SELECT r.id, i.product_id, 1 FROM refunds r JOIN order_items i ON i.order_id = r.order_id";

/// Orders that nobody pays.
const UNPAID: &str = "
    WITH new AS (INSERT INTO orders (id, user_id, total_price, currency)
      SELECT gen_random_uuid(), 1, 100, 'USD' FROM generate_series(1, 20000) RETURNING id)
    INSERT INTO order_items (order_id, product_id, quantity, unit_price) SELECT id, 1, 1, 100 FROM new";

/// Statements that must be seen, or the test has looked at nothing.
const SEEN: [&str; 26] = [
    "INSERT INTO orders",
    "INSERT INTO order_items",
    "SELECT id, price",
    "SELECT id, name, price, stock - held",
    "SELECT id FROM orders WHERE user_id",
    "SELECT (SELECT o.id FROM orders",
    "SELECT id, user_id, status, total_price, currency, idempotency_key",
    "SELECT o.id, o.user_id, o.status",
    "WITH payable AS",
    "WITH due AS",
    "WITH released AS",
    "WITH accepted AS",
    "SELECT id, user_id, status, total_price, currency, expires_at, accepted_at, settled_at, failure",
    "SELECT order_id, product_id, quantity, unit_price",
    "SELECT id, stock, held",
    "SET held = held + units.quantity",
    "SET held = CASE",
    "SET status = 'FAILED', failure = $1",
    "accepted_at IS NULL AND expires_at <= $1",
    "SELECT product_id, CAST(SUM(quantity)",
    "INSERT INTO outbox",
    "UPDATE outbox",
    "DELETE FROM outbox",
    "UPDATE products",
    "SET status = 'PAID'",
    "SET status = 'FAILED'",
];
/// The checks of the two foreign keys of a line, as PostgreSQL writes them.
const FOREIGN_KEYS: [&str; 2] = [
    "SELECT 1 FROM ONLY \"public\".\"orders\"",
    "SELECT 1 FROM ONLY \"public\".\"products\"",
];

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_scans_a_table_whatever_the_planner_believes(
    #[values("never analysed", "analysed while empty", "fresh", "empty at first")] statistics: &str,
) {
    let postgres = Postgres::start_with(SETTINGS);
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let psql = |sql: &str| postgres.psql(&backend.database_url, sql);
    backend.app().await;

    if statistics == "analysed while empty" {
        psql("ANALYZE");
    }
    let serve;
    if statistics == "empty at first" {
        // The plans are made and kept while there is next to nothing, and used when there is much.
        psql(&fill(CUSTOMERS));
        psql("ANALYZE");
        serve = Shop::start(&backend, &["serve"], &[NO_LEDGER_CHECK]);
        place_orders(&serve.client()).await;
        psql(&fill(STORED));
    } else {
        psql(&fill(STORED));
        serve = Shop::start(&backend, &["serve"], &[NO_LEDGER_CHECK]);
    }
    if statistics == "fresh" {
        psql("ANALYZE");
    }
    let _work = Shop::start(&backend, &["work"], &[NO_LEDGER_CHECK]);
    let seen_before = postgres.read_file(LOG).len();

    go_through_everything(&backend, &serve.client(), &postgres).await;

    let log = postgres.read_file(LOG).split_off(seen_before);
    assert_no_scans(&log);
    // A scan would have been seen.
    psql("SET enable_indexscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM orders WHERE id IS NOT NULL");
    let log = postgres.read_file(LOG);
    assert!(plans_of("psql", &log).any(scans_a_table));
}

/// PgBouncer drops what connections ask for. The roles of `config/postgres/roles.sql` have it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn behind_pgbouncer_the_roles_keep_every_statement_from_scanning_a_table() {
    let postgres = Postgres::start_with(SETTINGS);
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let psql = |sql: &str| postgres.psql(&backend.database_url, sql);
    backend.app().await;
    let roles = concat!(env!("CARGO_MANIFEST_DIR"), "/config/postgres/roles.sql");
    psql(&fs::read_to_string(roles).expect("the script"));
    psql("ANALYZE");
    psql(&fill(STORED));

    let bouncers = ["shop_serve", "shop_work"].map(|role| PgBouncer::for_role(&postgres, role));
    let [serve, work] = [(0, "serve"), (1, "work")].map(|(bouncer, role)| {
        let mut pooled = backend.clone();
        pooled.database_url = bouncers[bouncer].url(&backend.database_url);
        Shop::start(&pooled, &[role], &[NO_LEDGER_CHECK])
    });
    let seen_before = postgres.read_file(LOG).len();
    go_through_everything(&backend, &serve.client(), &postgres).await;

    assert_no_scans(&postgres.read_file(LOG).split_off(seen_before));
    for shop in [&serve, &work] {
        assert!(!shop.log().contains("sessions lack"), "{}", shop.log());
    }
}

/// A role that lacks the settings is named when the program starts, with what to do; doing it is enough.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_pgbouncer_drops_are_named_at_the_start(#[values("serve", "work")] role: &str) {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    let direct = postgres.create_database();
    backend.database_url.clone_from(&direct);
    backend.app().await;
    let bouncer = PgBouncer::before(&postgres);
    backend.database_url = bouncer.url(&direct);
    let start = || {
        let shop = Shop::start(&backend, &[role], &[NO_LEDGER_CHECK]);
        shop.wait_for(if role == "serve" { "serving" } else { "working" });
        let lines = shop.log();
        let lines = lines.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &Value| {
                line["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("sessions lack"))
            })
            .collect::<Vec<Value>>()
    };

    let warned = start();
    assert_eq!(warned.len(), 1, "{warned:?}");
    let found = warned[0]["found"].as_str().expect("what was found");
    assert_eq!(
        found,
        "enable_seqscan is on, idle_in_transaction_session_timeout is 0, jit is on, plan_cache_mode is auto"
    );
    let remedy = warned[0]["remedy"].as_str().expect("what to do");
    assert!(
        remedy.contains("ALTER ROLE postgres SET enable_seqscan = 'off';"),
        "{remedy}"
    );

    postgres.psql(&direct, remedy);
    bouncer.stop();
    bouncer.start_again();
    assert_eq!(start(), [Value::Null; 0]);
}

#[test]
fn a_pgbouncer_that_refuses_the_settings_is_named_with_the_remedy() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    let bouncer = PgBouncer::that_refuses_options(&postgres);
    backend.database_url = bouncer.url(&postgres.create_database());

    let refused = run_to_end(&backend, &["work"], &[("SHOP_DATABASE_WAIT_SECONDS", "0")]);

    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("ignore_startup_parameters"), "{stderr}");
}

/// The periodic ledger check starts from the few orders that were settled since the last one.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_periodic_ledger_check_looks_orders_up_whatever_the_planner_believes(
    #[values("never analysed", "analysed while empty", "fresh")] statistics: &str,
) {
    let postgres = Postgres::start_with(SETTINGS);
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let psql = |sql: &str| postgres.psql(&backend.database_url, sql);
    let app = backend.app().await;
    if statistics == "analysed while empty" {
        psql("ANALYZE");
    }
    psql(&fill(STORED));
    psql(BALANCE);
    psql(UNPAID);
    psql(REFUNDED);
    if statistics == "fresh" {
        psql("ANALYZE");
    }

    for number in 0..3 {
        // What was logged before this is in the file once this is.
        let mark = format!("SELECT 'check {number}'");
        psql(&mark);
        let seen_before = eventually("the log is written", || async {
            let log = postgres.read_file(LOG);
            log.contains(&mark).then_some(log.len())
        })
        .await;
        let checked = auditor::check_if_due(&app, Duration::ZERO).await.expect("checks");
        let checked = checked.expect("nobody else checks");
        assert!(
            checked.report.is_clean() && checked.is_full == (number == 0),
            "{checked:?}"
        );
        psql(&fill(5));
        psql(BALANCE);
        if number == 0 {
            continue;
        }

        assert_eq!(checked.report.orders, 5);
        let log = postgres.read_file(LOG).split_off(seen_before);
        for statement in SINCE {
            assert!(log.contains(statement), "no plan of {statement}");
        }
        let mut reads_much = plans_of("shop", &log).filter(|plan| reads_a_whole_table(plan));
        assert_eq!(reads_much.next(), None);
    }
}

/// The same for SQLite, which has no statistics: the backlog and the holds that have ended have an index each, which it uses
/// instead of the one of the status, by which it would read all orders that nobody has paid.
#[tokio::test]
async fn on_sqlite_the_backlog_is_found_by_its_index() {
    let app = Backend::embedded().app().await;
    for (condition, index) in [
        ("accepted_at IS NOT NULL", "orders_notify_after"),
        (
            "accepted_at IS NOT NULL ORDER BY COALESCE(id, id)",
            "orders_notify_after",
        ),
        (
            "accepted_at IS NOT NULL AND notify_after <= 1 ORDER BY notify_after LIMIT 2",
            "orders_notify_after",
        ),
        (
            "accepted_at IS NULL AND expires_at <= 1 ORDER BY expires_at LIMIT 2",
            "orders_expires_at",
        ),
        ("accepted_at IS NULL AND expires_at IS NOT NULL", "orders_expires_at"),
    ] {
        let plan = format!("EXPLAIN QUERY PLAN SELECT id FROM orders WHERE settled_at IS NULL AND {condition}");
        let statement = Statement::from_string(app.db.read().get_database_backend(), plan);
        let rows = app.db.read().query_all_raw(statement).await.expect("a plan");
        let mut steps: Vec<String> = rows
            .iter()
            .map(|row| row.try_get("", "detail").expect("a step"))
            .collect();
        steps.retain(|step| step != "USE TEMP B-TREE FOR ORDER BY");
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert!(steps[0].contains(&format!("INDEX {index}")), "{condition}: {steps:?}");
    }
}

fn assert_no_scans(log: &str) {
    for statement in SEEN.iter().chain(&FOREIGN_KEYS) {
        assert!(log.contains(statement), "no plan of {statement}");
    }
    let on_the_hot_path = |plan: &&str| !plan.contains(AT_THE_START);
    let plans = plans_of("shop", log).filter(on_the_hot_path);
    let scans: Vec<&str> = plans.filter(|plan| scans_a_table(plan)).collect();
    assert!(scans.is_empty(), "{} scans, such as\n{}", scans.len(), scans[0]);
}

/// The entries of the log for one program, each with the statement and its plan.
fn plans_of<'a>(program: &str, log: &'a str) -> impl Iterator<Item = &'a str> {
    let prefix = format!("<{program}> LOG:  duration:");
    let entries = log.split("\n<").map(|entry| entry.trim_start_matches('<'));
    entries.filter(move |entry| entry.starts_with(&prefix[1..]))
}

fn scans_a_table(plan: &str) -> bool {
    ["orders", "order_items", "products", "outbox"]
        .iter()
        .any(|table| plan.contains(&format!("Seq Scan on {table}")))
}

/// Whether a plan reads all orders, lines or movements: by a scan, or by an index without a condition for it. The indexes of
/// the orders that wait and of the open holds are as small as what they find.
fn reads_a_whole_table(plan: &str) -> bool {
    let lines: Vec<&str> = plan.lines().map(str::trim_start).collect();
    // A status alone is no bound: most orders have the same, and many are never paid.
    let is_condition = |line: &&str| line.starts_with("Index Cond:") && !line.starts_with("Index Cond: (status =");
    lines.iter().enumerate().any(|(number, line)| {
        // A bitmap's condition stands below its scan of the index.
        let tables = ["orders", "order_items", "stock_movements", "refunds", "refund_items"];
        let is_read = tables.iter().any(|table| {
            let is_scan = line.contains("Scan") && !line.contains("Bitmap Heap Scan");
            is_scan
                && (format!("{line} ").contains(&format!(" on {table} ")) || line.contains(&format!(" on {table}_")))
        });
        let has_condition = lines.get(number + 1).is_some_and(is_condition);
        // MAX(id) takes the last entry of an index. Before PostgreSQL 17 it had the condition that there is an id.
        let is_one_entry = matches!(lines[..number], [.., value, limit] if value.starts_with("InitPlan") && limit.starts_with("->  Limit"));
        let is_small = line.contains("orders_notify_after") || line.contains("orders_expires_at");
        is_read && !has_condition && !is_one_entry && !is_small
    })
}
