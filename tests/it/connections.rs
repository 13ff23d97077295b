//! What becomes of open connections when PostgreSQL changes under them: its schema, its process, or its role.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use shop::{db::Db, domain::catalog};
use tokio::time::sleep;

use crate::{
    outages::under_load,
    proxy::Proxy,
    servers::{PgBouncer, Postgres},
    support::{Answer, Backend, Client, Shop, all_settled, eventually, ledger_report},
};

/// More than a pool has connections.
const ROUNDS: usize = 12;
/// For longer than that a connection is not used without being tested.
const IDLE: Duration = Duration::from_millis(1_200);

/// Opens every connection of the pool.
async fn fill_pool(client: &Client) {
    let path = |_| client.get("/products/1");
    let answers = join_all((0..100).map(path)).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

/// Requests that only read, outside of a transaction or in one: nothing that writes has found out yet what has happened.
async fn every_read_is_answered(client: &Client, path: &str, after: &str) {
    for _ in 0..ROUNDS {
        let answer = client.get(path).await;
        assert_eq!(answer.status, 200, "{path} after {after}: {answer:?}");
    }
}

/// Every kind of request, one after another, so often that each connection of the pool is used. None may fail.
async fn every_request_is_answered(client: &Client, after: &str) {
    /// No page of products is asked for twice, so none comes from the cache.
    static PAGES: AtomicUsize = AtomicUsize::new(0);

    for _ in 0..ROUNDS {
        let page = 1 + PAGES.fetch_add(1, Ordering::Relaxed) % 200;
        let id = client.order(&[(1, 1)]).await;
        let order = format!("/orders/{id}");
        for (path, answer) in [
            ("GET order", client.get(&order).await),
            ("POST pay", client.pay(&id).await),
            ("GET orders", client.get("/orders?user_id=7&limit=3").await),
            ("GET products", client.get(&format!("/products?limit={page}")).await),
            ("GET product", client.get("/products/1").await),
            ("PATCH product", {
                let change = client
                    .request(Method::PATCH, "/products/2")
                    .json(&json!({ "price": 5 }));
                Answer::of(change).await
            }),
            ("POST stock", {
                let restock = json!({ "delta": 1, "reason": "delivery" });
                client.post("/products/2/stock", &restock).await
            }),
        ] {
            assert!(matches!(answer.status, 200 | 202), "{path} after {after}: {answer:?}");
        }
    }
}

/// The first half of every upgrade: the schema changes beside running processes, whose statements are prepared already.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_changes_beside_running_processes_fails_no_request() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let (shop, _work) = (Shop::serve(&backend), Shop::work(&backend));
    let client = shop.client();
    fill_pool(&client).await;

    let crowd = under_load(vec![shop.client()], async {
        for change in [
            "ALTER TABLE orders ADD COLUMN x text",
            "ALTER TABLE products ADD COLUMN x text DEFAULT 'blue'",
            "ALTER TABLE orders ALTER COLUMN notify_attempts TYPE bigint",
            "ALTER TABLE orders ALTER COLUMN currency TYPE varchar(20)",
            "ALTER TABLE products ALTER COLUMN name TYPE varchar(500)",
            "ALTER TABLE orders DROP COLUMN x",
            "DROP INDEX orders_status_id",
            "CREATE INDEX orders_status_id ON orders (status, id)",
        ] {
            postgres.psql(&backend.database_url, change);
            every_request_is_answered(&client, change).await;
        }
    })
    .await;

    all_settled(&app).await;
    // On a busy machine a change that writes a table anew locks it for longer than a request waits: 503, and nothing else.
    // Once the change is made, every request was answered above.
    let record = crowd.take_record();
    let mut failed = record.statuses.range(500..);
    assert!(failed.all(|(status, _)| *status == 503), "{:?}", record.statuses);
    record.reconcile(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

/// PgBouncer resets sessions, and gives one session to several clients.
#[tokio::test]
async fn a_session_that_has_lost_its_prepared_statements_is_replaced() {
    let backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    // One connection, so that every statement is prepared on it.
    let db = Db::connect(&backend.database_url, 1, 100).await.expect("connects");
    let change = &catalog::ProductChange::default();
    let now = shop::entities::Timestamp::now();

    for lose in ["DISCARD ALL", "DEALLOCATE ALL"] {
        catalog::find(db.read(), 1).await.expect("found");
        db.read().execute_unprepared(lose).await.expect("lost");
        catalog::find(db.read(), 1).await.expect(lose);

        let write = || db.transaction(|txn| async move { catalog::change(&*txn, now, 1, change).await });
        write().await.expect("written");
        db.write().execute_unprepared(lose).await.expect("lost");
        write().await.expect(lose);
    }
}

/// However the server ends them, the database is up again, and nobody sees that it was not.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_server_has_ended_fail_no_request(
    #[values("restart", "crash", "terminate", "idle timeout")] how: &str,
) {
    let settings = if how == "idle timeout" {
        "idle_session_timeout = '400ms'"
    } else {
        ""
    };
    let postgres = Postgres::start_with(settings);
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    backend.stock(&[(100, 100_000); 4]).await;
    let (shop, _work) = (Shop::serve(&backend), Shop::work(&backend));
    let client = shop.client();

    for read_first in ["/products/1", "/orders?user_id=7"] {
        fill_pool(&client).await;
        match how {
            "restart" => {
                postgres.stop();
                postgres.start_again();
            }
            "crash" => {
                postgres.kill();
                postgres.start_again();
            }
            "terminate" => postgres.end_sessions(),
            // Ended before they would be tested.
            _ => sleep(Duration::from_millis(600)).await,
        }
        every_read_is_answered(&client, read_first, how).await;
        every_request_is_answered(&client, how).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_pgbouncer_fails_no_request() {
    let mut backend = Backend::servers();
    backend.stock(&[(100, 100_000); 4]).await;
    let bouncer = PgBouncer::before(&crate::servers::shared().postgres);
    backend.database_url = bouncer.url(&backend.database_url);
    let shop = Shop::serve(&backend);
    let client = shop.client();

    fill_pool(&client).await;
    bouncer.kill();
    bouncer.start_again();
    every_request_is_answered(&client, "a restart").await;
}

/// As a firewall does with what was idle: the packets of open connections are dropped.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_are_dropped_without_a_word_fail_no_request() {
    let mut backend = Backend::servers();
    backend.stock(&[(100, 100_000); 4]).await;
    let proxy = Proxy::before(&backend.database_url).await;
    backend.database_url = proxy.url(&backend.database_url);
    let shop = Shop::serve(&backend);
    let client = shop.client();

    fill_pool(&client).await;
    proxy.silence();
    sleep(IDLE).await;
    every_request_is_answered(&client, "the silence").await;
}

async fn ready(client: &Client) -> u16 {
    client.get("/readyz").await.status
}

/// The old primary stays up and answers reads, and so would keep its connections for ever. A probe finds out, or else a write.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_to_another_server_behind_the_same_address_writes_go_there(
    #[values("probed", "not probed")] readiness: &str,
) {
    let primary = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = primary.create_database();
    backend.stock(&[(100, 100_000); 4]).await;
    let standby = primary.start_standby();
    let proxy = Proxy::before(&backend.database_url).await;
    backend.database_url = proxy.url(&backend.database_url);
    let (shop, work) = (Shop::serve(&backend), Shop::work(&backend));
    let (client, management) = (shop.client(), work.management());
    fill_pool(&client).await;

    primary.refuse_writes();
    if readiness == "probed" {
        eventually("neither role is ready while nothing can be written", || async {
            (ready(&client).await == 503 && ready(&management).await == 503).then_some(())
        })
        .await;
        let create = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] });
        client
            .post("/orders", &create)
            .await
            .problem(503, "database-unavailable");
        assert_eq!(client.get("/products/1").await.status, 200, "it can still be read");
    }

    let at_standby = standby.url_of(&primary.url_of(&backend.database_url));
    eventually("the standby has everything", || async {
        (standby.psql(&at_standby, "SELECT count(*) FROM products") == "4").then_some(())
    })
    .await;
    standby.promote();
    proxy.lead_to(&at_standby);

    // In use all the time, the connections to the old primary are never tested for having been idle.
    let reader = client.clone();
    let reading = tokio::spawn(async move {
        loop {
            fill_pool(&reader).await;
        }
    });
    every_request_is_answered(&client, "the failover").await;
    assert!(!reading.is_finished(), "a read has failed");
    reading.abort();

    let id = client.order(&[(1, 1)]).await;
    client.pay(&id).await;
    assert_eq!(client.settled(&id).await["status"], "PAID");
    assert_eq!((ready(&client).await, ready(&management).await), (200, 200));
}

/// Several hosts in the URL, of which one is the primary.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_between_hosts_of_the_url_the_primary_is_found(#[values("stays", "vanishes")] old: &str) {
    let primary = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = primary.create_database();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let standby = primary.start_standby();
    let at_standby = standby.url_of(&backend.database_url);
    let both = format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    let database_url = backend
        .database_url
        .replace(&format!("127.0.0.1:{}", primary.port()), &both);
    backend.database_url = database_url;
    let (shop, _work) = (Shop::serve(&backend), Shop::work(&backend));
    let client = shop.client();
    every_request_is_answered(&client, "the start").await;
    drop(app);

    eventually("the standby has everything", || async {
        let orders = "SELECT count(*) FROM orders";
        let at_primary = primary.url_of(&at_standby);
        (standby.psql(&at_standby, orders) == primary.psql(&at_primary, orders)).then_some(())
    })
    .await;
    if old == "stays" {
        primary.refuse_writes();
    } else {
        primary.kill();
    }
    standby.promote();

    eventually("orders are created again", || async {
        let body = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] });
        let answer = client.post("/orders", &body).await;
        assert!(matches!(answer.status, 201 | 503), "{answer:?}");
        (answer.status == 201).then_some(())
    })
    .await;
    every_request_is_answered(&client, "the failover").await;
    assert_eq!(ready(&client).await, 200);
}

/// Whatever the database says that will pass is a 503, and is over when the database says so.
#[rstest]
#[case::closed(
    "ALTER DATABASE :db ALLOW_CONNECTIONS false",
    "ALTER DATABASE :db ALLOW_CONNECTIONS true"
)]
#[case::full("ALTER ROLE clerk CONNECTION LIMIT 0", "ALTER ROLE clerk CONNECTION LIMIT -1")]
#[case::rejected("ALTER ROLE clerk NOLOGIN", "ALTER ROLE clerk LOGIN")]
#[case::no_rights("REVOKE ALL ON orders FROM clerk", "GRANT ALL ON orders TO clerk")]
#[case::no_table("ALTER TABLE orders RENAME TO away", "ALTER TABLE away RENAME TO orders")]
#[case::read_only(
    "ALTER DATABASE :db SET default_transaction_read_only = on",
    "ALTER DATABASE :db RESET default_transaction_read_only"
)]
#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_for_now_is_a_503_until_it_is_over(#[case] begin: &str, #[case] end: &str) {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    backend.stock(&[(100, 100_000); 4]).await;
    let (_, database) = backend.database_url.rsplit_once('/').expect("a URL");
    let administrate = |sql: &str| {
        // A database that is closed is opened from another one.
        let url = if sql.contains(":db") {
            postgres.maintenance_url()
        } else {
            backend.database_url.clone()
        };
        postgres.psql(&url, &sql.replace(":db", database));
    };
    administrate("CREATE ROLE clerk LOGIN");
    administrate(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO clerk",
    );
    let mut as_clerk = backend.clone();
    as_clerk.database_url = backend.database_url.replace("postgres@", "clerk@");
    let shop = Shop::serve(&as_clerk);
    let client = shop.client();
    fill_pool(&client).await;

    administrate(begin);
    postgres.end_sessions();
    let create = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] });
    for _ in 0..ROUNDS {
        for answer in [
            client.post("/orders", &create).await,
            client.get("/orders?user_id=7").await,
        ] {
            assert!(matches!(answer.status, 200 | 201 | 503), "{begin}: {answer:?}");
        }
    }
    client
        .post("/orders", &create)
        .await
        .problem(503, "database-unavailable");

    administrate(end);
    postgres.end_sessions();
    every_request_is_answered(&client, end).await;
}

/// After a time-out every connection is cleaned up when it returns to the pool. A server would log a ROLLBACK of no
/// transaction each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_does_not_fill_the_servers_log() {
    let logged = "logging_collector = on\nlog_directory = 'log'\nlog_filename = 'postgresql.log'\n";
    let postgres = Postgres::start_with(logged);
    let db = Db::connect(&postgres.create_database(), 4, 100)
        .await
        .expect("connects");
    let slow = async { db.write().execute_unprepared("SELECT pg_sleep(0.5)").await };
    assert!(db.timeout(Duration::from_millis(10), slow).await.is_err());

    for _ in 0..50 {
        db.write().execute_unprepared("SELECT 1").await.expect("answered");
    }
    db.write()
        .execute_unprepared("SELECT 1/0")
        .await
        .expect_err("something is logged");

    let log = eventually("it is logged", || async {
        let log = postgres.read_file("log/postgresql.log");
        log.contains("division by zero").then_some(log)
    })
    .await;
    assert!(!log.contains("there is no transaction in progress"), "{log}");
}
