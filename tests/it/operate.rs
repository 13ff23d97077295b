//! What an operator relies on: roles that may do no more than they need, restarts and upgrades that nobody notices, and a
//! clear word when the start is wrong.

use std::{collections::HashMap, fs, sync::Arc, time::Duration};

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use shop::db::Db;
use tokio::time::sleep;

use crate::{
    servers::{self, PgBouncer, Postgres},
    support::{Backend, Crowd, Shop, all_settled, books, run_to_end},
    telemetry::some_business,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_role_works_with_the_rights_it_has_and_has_no_others() {
    let backend = Backend::servers();
    let postgres = &servers::shared().postgres;
    let roles =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/postgres/roles.sql")).expect("the script");
    let as_role = |role: &str| {
        let mut own = Backend { ..backend.clone() };
        own.database_url = backend.database_url.replace("postgres@", &format!("{role}@"));
        own
    };
    postgres.psql(&backend.database_url, &roles);
    let migrated = run_to_end(&as_role("shop_migrate"), &["migrate"], &[]);
    assert!(
        migrated.status.success(),
        "{}",
        String::from_utf8_lossy(&migrated.stderr)
    );
    // Before the rights are granted, it says so.
    let refused = run_to_end(&as_role("shop_serve"), &["serve"], &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said.contains("roles.sql") && said.contains("permission denied"),
        "{said}"
    );
    postgres.psql(&backend.database_url, &roles);

    let shop = Shop::serve(&as_role("shop_serve"));
    let _worker = Shop::work(&as_role("shop_work"));
    let client = shop.client();
    let made = client
        .post("/products", &json!({ "name": "Mug", "price": 500, "stock": 5 }))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(
        client
            .post("/products/1/stock", &json!({ "delta": 5, "reason": "delivery" }))
            .await
            .status,
        200
    );
    for (quantity, outcome) in [(3, "PAID"), (100, "FAILED")] {
        let id = client.order(&[(1, quantity)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
        assert_eq!(client.settled(&id).await["status"], outcome);
    }
    let verified = run_to_end(&as_role("shop_serve"), &["verify"], &[]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );

    let everybody = [
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
    let serve = ["UPDATE orders SET status = 'PAID'", "UPDATE orders SET total_price = 0"];
    let work = [
        "INSERT INTO orders SELECT * FROM orders",
        "UPDATE products SET price = 0",
        "INSERT INTO stock_movements (product_id, delta, reason) VALUES (1, 1, 'x')",
        "UPDATE orders SET accepted_at = now()",
    ];
    for (role, own) in [("shop_serve", &serve[..]), ("shop_work", &work)] {
        let db = Db::connect(&as_role(role).database_url, 1, 10).await.expect("connects");
        for statement in everybody.iter().chain(own) {
            let refused = db.write().execute_unprepared(statement).await;
            let said = refused.expect_err(statement).to_string();
            assert!(
                said.contains("permission denied") || said.contains("must be owner"),
                "{statement}: {said}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_is_restarted_twice_under_load_and_no_request_fails() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let mut serves = [Shop::serve(&backend), Shop::serve(&backend)];
    let mut works = [Shop::work(&backend), Shop::work(&backend)];
    let crowd = Arc::new(Crowd::new(serves.iter().map(Shop::client).collect(), 4));
    let customers = crowd.let_in(8, 8);
    for _ in 0..2 {
        for place in 0..2 {
            sleep(Duration::from_millis(300)).await;
            // As a load balancer does it: the new one is there before the old one goes.
            let new = Shop::serve(&backend);
            crowd.replace(place, new.client());
            assert!(std::mem::replace(&mut serves[place], new).terminate().success());
            let new = Shop::work(&backend);
            assert!(std::mem::replace(&mut works[place], new).terminate().success());
        }
    }
    sleep(Duration::from_millis(300)).await;
    crowd.see_out(customers).await;
    all_settled(&app).await;
    let memory = crowd.remembered();
    eprintln!("answers {:?}, {} connections broken", memory.statuses, memory.broken);
    assert!(!memory.statuses.contains_key(&503), "{:?}", memory.statuses);
    memory.reconcile(&app).await;
    assert!(books(&app).await.is_clean());
}

/// A newer version has added to the schema, and this one goes on beside it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_goes_on_beside_a_schema_that_has_been_added_to(
    #[values("embedded", "servers")] backend: &str,
) {
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
    assert!(String::from_utf8_lossy(&status.stdout).contains("newer    m9999_future"));
    assert!(
        run_to_end(&backend, &["migrate"], &[]).status.success(),
        "there is nothing to do"
    );
    let down = run_to_end(&backend, &["migrate", "down"], &[]);
    assert_eq!(down.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&down.stderr).contains("newer version"));
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
    let customers = crowd.let_in(8, 9);
    sleep(Duration::from_secs(3)).await;
    crowd.see_out(customers).await;
    all_settled(&app).await;
    let memory = crowd.remembered();
    eprintln!("{} mode: answers {:?}", bouncer.pool_mode, memory.statuses);
    assert!(!memory.statuses.contains_key(&503) && memory.broken == 0);
    memory.reconcile(&app).await;
    assert!(books(&app).await.is_clean());
}

/// Started with what is wrong, it says in one sentence what, and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_start_names_the_key_and_the_remedy_and_no_secret() {
    let postgres = Postgres::start();
    postgres.require_password("keeper", "hunter2");
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let wrong = backend.database_url.replace("postgres@", "keeper:hunter3@");
    let missing = backend
        .database_url
        .rsplit_once('/')
        .map(|(server, _)| format!("{server}/nowhere"))
        .expect("a URL");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let taken = taken.local_addr().expect("bound").to_string();
    let pending = run_to_end(&backend, &["work"], &[]);
    backend.app().await;
    let with = |environment: &[(&str, &str)], role: &str| run_to_end(&backend, &[role], environment);
    let cases: HashMap<&str, (std::process::Output, i32, Vec<&str>)> = HashMap::from([
        ("pending", (pending, 1, vec!["shop migrate"])),
        (
            "wrong password",
            (
                with(&[("SHOP_DATABASE_URL", &wrong)], "serve"),
                1,
                vec!["database_url", "password"],
            ),
        ),
        (
            "no such database",
            (
                with(&[("SHOP_DATABASE_URL", &missing)], "work"),
                1,
                vec!["database_url", "nowhere"],
            ),
        ),
        (
            "port taken",
            (with(&[("SHOP_BIND", &taken)], "serve"), 1, vec!["`bind`", &taken]),
        ),
        (
            "port taken",
            (
                with(&[("SHOP_MANAGEMENT_BIND", &taken)], "work"),
                1,
                vec!["`management_bind`"],
            ),
        ),
        (
            "bad AMQP",
            (
                with(&[("SHOP_QUEUE_URL", "amqp://u:hunter2@h:port")], "work"),
                2,
                vec!["queue_url"],
            ),
        ),
        (
            "bad Redis",
            (
                with(&[("SHOP_CACHE_URL", "redis://:hunter2@h:port")], "serve"),
                2,
                vec!["cache_url"],
            ),
        ),
        (
            "key file",
            (
                with(
                    &[("SHOP_AUTH", "jwt"), ("SHOP_JWT_PUBLIC_KEY_FILE", "/nowhere.pem")],
                    "serve",
                ),
                2,
                vec!["jwt_public_key_file", "/nowhere.pem"],
            ),
        ),
    ]);
    for (case, (output, code, told)) in cases {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = stderr.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(code), "{case}: {stderr}");
        assert!(last.starts_with("shop: "), "{case}: {stderr}");
        for word in told {
            assert!(last.contains(word), "{case} does not say {word}: {last}");
        }
        assert!(
            !stderr.contains("hunter") && !stderr.contains("panicked"),
            "{case}: {stderr}"
        );
    }
}
