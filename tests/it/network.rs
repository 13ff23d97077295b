//! Faults of the network: answers that are lost, and connections that stay open without another byte.

use std::time::Duration;

use rstest::rstest;
use sea_orm::{ConnectionTrait as _, Database, TransactionTrait as _};
use serde_json::json;
use shop::{
    app::App,
    db::sql::sql,
    domain::{catalog, ledger},
};
use tokio::time::sleep;

use crate::{
    proxy::Proxy,
    servers::RabbitMq,
    support::{Backend, Shop, accepted, all_settled, count, eventually, ledger_report, level_of},
};

async fn through_proxy() -> (Backend, Proxy, App) {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 1_000)]).await;
    let proxy = Proxy::before(&backend.database_url).await;
    backend.database_url = proxy.url(&backend.database_url);
    (backend, proxy, app)
}

/// A restock that is done twice would add units that do not exist, and the ledger would balance.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_repeated_only_where_that_is_harmless() {
    let (backend, proxy, app) = through_proxy().await;
    let shop = Shop::serve(&backend);
    // The worker connects without the proxy, so that only `serve` can lose a commit.
    let directly = [("SHOP_DATABASE_URL", app.config.database.url.as_str())];
    let _worker = Shop::start(&backend, &["work"], &directly);
    let client = shop.client();

    proxy.lose_next_commit();
    let restock = client
        .post("/products/1/stock", &json!({ "delta": 10, "reason": "delivery" }))
        .await;
    assert!(proxy.has_lost_commit());
    restock.problem(503, "database-unavailable");
    assert_eq!(catalog::find(app.db.read(), 1).await.expect("found").stock, 1_010);

    proxy.lose_next_commit();
    let added = client
        .post("/products", &json!({ "name": "Mug", "price": 5, "stock": 7 }))
        .await;
    added.problem(503, "database-unavailable");
    assert_eq!(catalog::ids(app.db.read()).await.expect("found"), [1, 2]);

    // An order carries its own id and a payment that of its order, so both are repeated and take effect once.
    proxy.lose_next_commit();
    let id = client.order(&[(1, 3)]).await;
    assert!(proxy.has_lost_commit());
    proxy.lose_next_commit();
    assert_eq!(client.pay(&id).await.status, 202);
    all_settled(&app).await;
    assert_eq!(count(&app, "PAID").await, 1);
    assert_eq!(catalog::find(app.db.read(), 1).await.expect("found").stock, 1_007);
    assert!(ledger_report(&app).await.is_clean());
}

/// The transaction that runs again finds the units on hold, for this very order.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_whose_commit_was_not_answered_is_set_aside_once_and_is_not_short() {
    let (backend, proxy, app) = through_proxy().await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    proxy.lose_next_commit();
    let held = client.hold(&[(1, 1_000)], 600).await;
    assert!(proxy.has_lost_commit());
    assert_eq!(held.status, 201, "{held:?}");
    assert_eq!(level_of(&app, 1).await, (1_000, 1_000));
    client.hold(&[(1, 1)], 600).await.problem(409, "insufficient-stock");
    assert_eq!(count(&app, "PENDING").await, 1);
    assert!(ledger_report(&app).await.is_clean());
}

/// As when a firewall drops its state or a primary vanishes: nothing closes the old connections, and new ones work.
#[tokio::test(flavor = "multi_thread")]
async fn database_connections_that_go_silent_are_replaced() {
    let (backend, proxy, app) = through_proxy().await;
    let shop = Shop::serve(&backend);
    let _worker = Shop::work(&backend);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;

    proxy.silence();
    eventually("orders are created again", || async {
        let body = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] });
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(client.post("/orders", &body).await.status);
        }
        (statuses == [201; 5]).then_some(())
    })
    .await;

    assert_eq!(client.pay(&id).await.status, 202);
    all_settled(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

/// Silences the connections while one of them waits for the answer to a statement that holds this text, because somebody else
/// has locked the table.
async fn silence_during(app: &App, proxy: &Proxy, table: &str, statement: &str) {
    let locking = Database::connect(&app.config.database.url).await.expect("connects");
    let lock = locking.begin().await.expect("begun");
    let locked = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    lock.execute_unprepared(&locked).await.expect("locked");

    eventually("the statement waits for the table", || async {
        let waiting: Vec<i64> = sql("
            SELECT COUNT(*)
              FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND strpos(query, :statement) > 0")
        .bind("statement", statement)
        .scalars(app.db.read())
        .await
        .expect("answered");
        (waiting[0] > 0).then_some(())
    })
    .await;

    proxy.silence();
    lock.rollback().await.expect("unlocked");
}

/// Nobody but the sweeper knows of the order, because its settle request was never sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweeper_whose_connection_goes_silent_sends_lost_requests_all_the_same() {
    let (backend, proxy, app) = through_proxy().await;
    let _worker = Shop::work(&backend);

    silence_during(&app, &proxy, "orders", "notify_attempts + 1").await;
    accepted(&app, 1, |_| vec![(1, 1)]).await;

    all_settled(&app).await;
    assert_eq!(count(&app, "PAID").await, 1);
}

/// It holds a lease meanwhile, and renews it.
#[rstest]
#[case::while_a_period_is_opened("stock_movements", "MAX(id), 0) FROM stock_movements")]
#[case::while_everything_is_read("orders", "COUNT(*) FROM orders")]
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_check_whose_connection_goes_silent_is_made_again(#[case] table: &str, #[case] statement: &str) {
    let (backend, proxy, app) = through_proxy().await;
    let _worker = Shop::start(&backend, &["work"], &[("SHOP_BOOKS_EVERY_SECONDS", "1")]);

    // A ledger that does not add up is always read from end to end.
    let one_too_many = "UPDATE products SET stock = stock + 1";
    app.db.write().execute_unprepared(one_too_many).await.expect("written");
    silence_during(&app, &proxy, table, statement).await;
    let before = ledger::last_check(app.db.read()).await.expect("read").checked_at;

    eventually("the ledger is checked", || async {
        let last = ledger::last_check(app.db.read()).await.expect("read").checked_at;
        (last > before).then_some(())
    })
    .await;
}

fn connections(rabbitmq: &RabbitMq) -> usize {
    rabbitmq
        .ctl(&["list_connections", "pid"])
        .lines()
        .filter(|line| line.starts_with('<'))
        .count()
}

/// A broker that is short of memory reads nothing from publishers, so that they cannot even close their connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_blocks_publishers_is_left_alone_until_it_unblocks() {
    let rabbitmq = RabbitMq::start();
    let mut backend = Backend::servers();
    backend.queue_url = rabbitmq.url();
    let app = backend.stock(&[(100, 1_000)]).await;
    let shop = Shop::serve(&backend);
    let _worker = Shop::work(&backend);
    let client = shop.client();
    let first = client.order(&[(1, 1)]).await;
    client.pay(&first).await;
    all_settled(&app).await;

    let before = connections(&rabbitmq);
    rabbitmq.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    for _ in 0..40 {
        let id = client.order(&[(1, 1)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
        sleep(Duration::from_millis(300)).await;
    }
    assert!(count(&app, "PAID").await < 41, "the broker still takes messages");

    let after = connections(&rabbitmq);
    assert!(after <= before + 2, "{before} connections have become {after}");

    rabbitmq.ctl(&["set_vm_memory_high_watermark", "0.8"]);
    all_settled(&app).await;
    assert_eq!(count(&app, "PAID").await, 41);
    assert!(ledger_report(&app).await.is_clean());
}
