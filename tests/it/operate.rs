//! Operations: database roles with no more rights than they need, restarts and upgrades without a failed request, and a
//! clear sentence when the start fails.

use std::{fs, process::Output, sync::Arc, time::Duration};

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use shop::db::Db;
use tokio::time::sleep;

use crate::{
    servers::{self, PgBouncer, Postgres},
    support::{Backend, Crowd, Shop, a_minute_ago, all_settled, end_holds, eventually, ledger_report, run_to_end},
    telemetry::some_business,
};

/// What neither `shop_serve` nor `shop_work` may do.
const FORBIDDEN_FOR_BOTH: [&str; 9] = [
    "DELETE FROM orders",
    "DELETE FROM stock_movements",
    "TRUNCATE orders CASCADE",
    "DROP TABLE orders",
    "ALTER TABLE orders ADD COLUMN x int",
    "ALTER TABLE products DROP CONSTRAINT products_stock_not_negative",
    "CREATE TABLE mine (x int)",
    "UPDATE seaql_migrations SET version = 'x'",
    "UPDATE order_items SET unit_price = 0",
];
const FORBIDDEN_FOR_SERVE: [&str; 4] = [
    "UPDATE orders SET total_price = 0",
    "UPDATE orders SET expires_at = now()",
    "DELETE FROM outbox",
    "UPDATE outbox SET publish_after = now()",
];
const FORBIDDEN_FOR_WORK: [&str; 5] = [
    "UPDATE orders SET expires_at = now()",
    "INSERT INTO orders SELECT * FROM orders",
    "UPDATE products SET price = 0",
    "INSERT INTO stock_movements (product_id, delta, reason) VALUES (1, 1, 'x')",
    "UPDATE orders SET accepted_at = now()",
];

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The same back end, with `role` as the user of the database.
fn as_role(backend: &Backend, role: &str) -> Backend {
    let mut own = backend.clone();
    own.database_url = backend.database_url.replace("postgres@", &format!("{role}@"));
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_works_with_its_database_rights_and_has_no_others() {
    let backend = Backend::servers();
    let postgres = &servers::shared().postgres;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/config/postgres/roles.sql");
    let roles = fs::read_to_string(script).expect("the script");
    let (serve_role, work_role) = (as_role(&backend, "shop_serve"), as_role(&backend, "shop_work"));

    postgres.psql(&backend.database_url, &roles);
    let migrated = run_to_end(&as_role(&backend, "shop_migrate"), &["migrate"], &[]);
    assert!(migrated.status.success(), "{}", stderr(&migrated));

    // The rights on the new tables are granted by a second run of the script; until then the start fails.
    let refused = run_to_end(&serve_role, &["serve"], &[]);
    assert_eq!(refused.status.code(), Some(1));
    for words in ["roles.sql", "permission denied"] {
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
    }
    postgres.psql(&backend.database_url, &roles);

    let shop = Shop::serve(&serve_role);
    let _worker = Shop::work(&work_role);
    let client = shop.client();
    let product = json!({ "name": "Mug", "price": 500, "stock": 5 });
    assert_eq!(client.post("/products", &product).await.status, 201);
    let restock = json!({ "delta": 5, "reason": "delivery" });
    assert_eq!(client.post("/products/1/stock", &restock).await.status, 200);
    for (quantity, outcome) in [(3, "PAID"), (100, "FAILED")] {
        let id = client.order(&[(1, quantity)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
        assert_eq!(client.settled(&id).await["status"], outcome);
    }
    // Cancelled, expired by the payment, expired by the worker; each has its event in the outbox.
    let app = backend.app().await;
    let hold = async || client.held_order(&[(1, 1)]).await;
    let (cancelled, late, expired) = (hold().await, hold().await, hold().await);
    assert_eq!(client.cancel(&cancelled).await.status, 202);
    for id in [&late, &expired] {
        end_holds(&app, a_minute_ago(), &[id.parse().expect("an id")]).await;
    }
    assert_eq!(client.pay(&late).await.status, 409);
    assert_eq!(client.settled(&expired).await["failure"]["reason"], "expired");
    eventually("the outbox is empty", || async {
        (postgres.psql(&backend.database_url, "SELECT count(*) FROM outbox") == "0").then_some(())
    })
    .await;
    let verified = run_to_end(&serve_role, &["verify"], &[]);
    assert!(verified.status.success(), "{}", stderr(&verified));

    assert_refused(&serve_role, &[&FORBIDDEN_FOR_BOTH[..], &FORBIDDEN_FOR_SERVE].concat()).await;
    assert_refused(&work_role, &[&FORBIDDEN_FOR_BOTH[..], &FORBIDDEN_FOR_WORK].concat()).await;
}

async fn assert_refused(role: &Backend, statements: &[&str]) {
    let db = Db::connect(&role.database_url, 1, 10).await.expect("connects");
    for statement in statements {
        let refused = db.write().execute_unprepared(statement).await;
        let error = refused.expect_err(statement).to_string();
        assert!(
            error.contains("permission denied") || error.contains("must be owner"),
            "{statement}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_is_restarted_twice_under_load_and_no_request_fails() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let mut serves = [Shop::serve(&backend), Shop::serve(&backend)];
    let mut works = [Shop::work(&backend), Shop::work(&backend)];
    let crowd = Arc::new(Crowd::new(serves.iter().map(Shop::client).collect(), 4));
    let customers = crowd.start(8, 8);

    for _ in 0..2 {
        for replica in 0..2 {
            sleep(Duration::from_millis(300)).await;
            // As a load balancer does it: the new process is ready before the old one stops.
            let new = Shop::serve(&backend);
            crowd.replace(replica, new.client());
            assert!(std::mem::replace(&mut serves[replica], new).terminate().success());

            let new = Shop::work(&backend);
            assert!(std::mem::replace(&mut works[replica], new).terminate().success());
        }
    }
    sleep(Duration::from_millis(300)).await;
    crowd.stop(customers).await;

    all_settled(&app).await;
    let record = crowd.take_record();
    eprintln!("answers {:?}, {} connections broken", record.statuses, record.broken);
    assert!(!record.statuses.contains_key(&503), "{:?}", record.statuses);
    record.reconcile(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

/// A newer version has added columns and tables; this version keeps working on the same database.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_keeps_running_beside_a_schema_with_additions(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    for change in [
        "ALTER TABLE orders ADD COLUMN gift_wrap integer",
        "ALTER TABLE products ADD COLUMN colour text DEFAULT 'blue'",
        "CREATE TABLE vouchers (id bigint PRIMARY KEY)",
    ] {
        app.db.write().execute_unprepared(change).await.expect("added");
    }
    let applied = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 1)";
    app.db.write().execute_unprepared(applied).await.expect("recorded");

    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    some_business(&shop.client()).await;
    assert!(run_to_end(&backend, &["verify"], &[]).status.success());

    let status = run_to_end(&backend, &["migrate", "status"], &[]);
    assert!(stdout(&status).contains("newer    m9999_future"));
    let up = run_to_end(&backend, &["migrate"], &[]);
    assert!(up.status.success(), "there is nothing to do");
    let down = run_to_end(&backend, &["migrate", "down", "--yes"], &[]);
    assert_eq!(down.status.code(), Some(1));
    assert!(stderr(&down).contains("newer version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_behind_pgbouncer() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 10_000); 4]).await;
    let bouncer = PgBouncer::before(&servers::shared().postgres);
    backend.database_url = bouncer.url(&backend.database_url);
    let shops = [Shop::serve(&backend), Shop::serve(&backend)];
    let _workers = Shop::workers(&backend, 2);
    let crowd = Arc::new(Crowd::new(shops.iter().map(Shop::client).collect(), 4));
    let customers = crowd.start(8, 9);
    sleep(Duration::from_secs(3)).await;
    crowd.stop(customers).await;

    all_settled(&app).await;
    let record = crowd.take_record();
    eprintln!("{} mode: answers {:?}", bouncer.pool_mode, record.statuses);
    assert!(!record.statuses.contains_key(&503) && record.broken == 0);
    record.reconcile(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

/// The sentence on standard error says what is wrong and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_names_the_key_and_the_remedy_and_no_secret() {
    let postgres = Postgres::start();
    postgres.require_password("keeper", "hunter2");
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let wrong_password = backend.database_url.replace("postgres@", "keeper:hunter3@");
    let (server, _) = backend.database_url.rsplit_once('/').expect("a URL");
    let missing_database = format!("{server}/nowhere");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let taken = listener.local_addr().expect("bound").to_string();

    assert_sentence(&run_to_end(&backend, &["work"], &[]), 1, &["shop migrate"]);
    backend.app().await;

    let key_file = ("SHOP_JWT_PUBLIC_KEY_FILE", "/nowhere.pem");
    for (role, variable, code, words) in [
        (
            "serve",
            ("SHOP_DATABASE_URL", &*wrong_password),
            1,
            &["database_url", "password", "SQLSTATE 28P01"][..],
        ),
        (
            "work",
            ("SHOP_DATABASE_URL", &missing_database),
            1,
            &["database_url", "nowhere"],
        ),
        ("serve", ("SHOP_BIND", &taken), 1, &["`bind`", &taken]),
        ("work", ("SHOP_MANAGEMENT_BIND", &taken), 1, &["`management_bind`"]),
        ("work", ("SHOP_QUEUE_URL", "amqp://u:hunter2@h:port"), 2, &["queue_url"]),
        (
            "serve",
            ("SHOP_CACHE_URL", "redis://:hunter2@h:port"),
            2,
            &["cache_url"],
        ),
        ("serve", key_file, 2, &["jwt_public_key_file", "/nowhere.pem"]),
    ] {
        let mut environment = vec![variable];
        if variable == key_file {
            environment.push(("SHOP_AUTH", "jwt"));
        }
        assert_sentence(&run_to_end(&backend, &[role], &environment), code, words);
    }
}

/// Asserts the exit code, and that the last line of standard error is a sentence with these words.
fn assert_sentence(output: &Output, code: i32, words: &[&str]) {
    let stderr = stderr(output);
    let sentence = stderr.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
    assert!(sentence.starts_with("shop: "), "{words:?}: {stderr}");
    for word in words {
        assert!(sentence.contains(word), "{word} is missing: {sentence}");
    }
    assert!(!stderr.contains("hunter") && !stderr.contains("panicked"), "{stderr}");
    // Of PostgreSQL's own source code.
    assert!(!sentence.contains(" at line "), "{sentence}");
}
