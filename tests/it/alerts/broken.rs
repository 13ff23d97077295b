//! What the alerts watch, broken one thing after another until the alert fires. Each test lists the alerts that it sees.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use lapin::{BasicProperties, options::BasicPublishOptions};
use sea_orm::{ConnectionTrait as _, Database, TransactionTrait as _};
use shop::{app::App, entities::Timestamp, queue::SettleRequest, telemetry::traces::new_traceparent};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Alarm, alert_names};
use crate::{
    proxy::Proxy,
    servers::Redis,
    support::{Backend, Client, Shop, channel, end_holds},
    telemetry::some_business,
};

const A_MINUTE: Duration = Duration::from_secs(60);
const OF_ANY: (&str, &str) = ("", "");
const WORK: [&str; 7] = [
    "ShopBooksDoNotAddUp",
    "ShopDeadLetters",
    "ShopHoldsExpireLate",
    "ShopProcessDown",
    "ShopNoWorker",
    "ShopBooksNotChecked",
    "ShopOrdersStuck",
];
const QUEUE_AND_CACHE: [&str; 4] = [
    "ShopDependencyDown",
    "ShopTaskStalled",
    "ShopOutboxStuck",
    "ShopOrdersStuck",
];
const DATABASE: [&str; 4] = [
    "ShopQueueGrowing",
    "ShopSlowRequests",
    "ShopServerErrors",
    "ShopDependencyDown",
];
const CONNECTIONS: [&str; 1] = ["ShopRedeliveries"];

#[test]
fn every_alert_is_seen_firing_by_a_test() {
    let seen = [&WORK[..], &QUEUE_AND_CACHE, &DATABASE, &CONNECTIONS].concat();
    let seen: BTreeSet<String> = seen.into_iter().map(str::to_owned).collect();
    assert_eq!(seen, alert_names());
}

/// Checks the ledger all the time.
fn work(backend: &Backend) -> Shop {
    let environment = [("SHOP_BOOKS_EVERY_SECONDS", "1"), ("SHOP_BATCH_MAX", "10")];
    let work = Shop::start(backend, &["work"], &environment);
    work.wait_for("working");
    work
}

async fn execute(app: &App, statement: &str) {
    app.db.write().execute_unprepared(statement).await.expect("executed");
}

/// Eight clients ask again and again, one after another, until this future is dropped.
async fn requests(client: &Client, path: &str) {
    let clients = (0..8).map(|number| async move {
        sleep(Duration::from_millis(number * 300)).await;
        loop {
            client.get(path).await;
            sleep(Duration::from_millis(100)).await;
        }
    });
    let _: Vec<()> = join_all(clients).await;
}

/// Publishes requests to settle orders that do not exist, so that at least `depth` wait.
async fn fill_queue(app: &App, depth: usize) {
    let waiting = usize::try_from(app.queue.depth().await.expect("answered")).expect("fits");
    let request = |_| SettleRequest {
        order_id: Uuid::now_v7(),
        traceparent: new_traceparent(),
    };
    let missing: Vec<SettleRequest> = (waiting..depth).map(request).collect();
    for batch in missing.chunks(1_000) {
        app.queue.publish_settle_requests(batch).await.expect("published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_shop_is_quiet_and_alerts_fire_for_books_letters_holds_and_a_worker_that_is_gone() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 1_000); 2]).await;
    let (serve, mut work) = (Shop::serve(&backend), work(&backend));
    let client = serve.client();
    let alarm = Alarm::start();
    alarm.watch(&serve, &work);
    some_business(&client).await;
    alarm.is_quiet().await;

    execute(&app, "UPDATE products SET stock = stock + 1 WHERE id = 2").await;
    alarm.fires("ShopBooksDoNotAddUp", OF_ANY).await;

    let (_connection, channel) = channel(&backend.queue_url).await;
    let (exchange, options) = (format!("{}.orders", backend.prefix), BasicPublishOptions::default());
    let junk = channel.basic_publish(
        exchange.into(),
        "settle".into(),
        options,
        b"junk",
        BasicProperties::default(),
    );
    junk.await.expect("published");
    alarm.fires("ShopDeadLetters", OF_ANY).await;

    // As after a time without a worker: the end of the hold is a minute ago.
    let late_holds = async {
        loop {
            let held = client.hold(&[(1, 1)], 600).await.body;
            // A busy machine refuses one now and then.
            if let Some(id) = held["order_id"].as_str() {
                let ended = Timestamp::now().minus(A_MINUTE);
                end_holds(&app, ended, &[id.parse().expect("an id")]).await;
            }
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = alarm.fires("ShopHoldsExpireLate", OF_ANY) => {}
        () = late_holds => {}
    }

    work.kill();
    alarm.fires("ShopProcessDown", ("job", "shop-work")).await;
    alarm.fires("ShopNoWorker", OF_ANY).await;
    alarm.fires("ShopBooksNotChecked", OF_ANY).await;

    // Nobody counts the orders that wait; that some were accepted is enough.
    let paying = async {
        loop {
            let order = client.hold(&[(1, 1)], 600).await.body;
            if let Some(id) = order["order_id"].as_str() {
                client.pay(id).await;
            }
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = alarm.fires("ShopOrdersStuck", OF_ANY) => {}
        () = paying => {}
    }
    alarm.has_seen(&WORK);
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_when_the_cache_or_the_queue_is_gone() {
    let redis = Redis::start();
    let mut backend = Backend::servers();
    backend.cache_url = redis.url();
    let app = backend.stock(&[(100, 1_000)]).await;
    let proxy = Proxy::before(&backend.queue_url).await;
    backend.queue_url = proxy.url(&backend.queue_url);
    let (serve, work) = (Shop::serve(&backend), work(&backend));
    let client = serve.client();
    let alarm = Alarm::start();
    alarm.watch(&serve, &work);
    some_business(&client).await;
    alarm.is_quiet().await;

    redis.kill();
    alarm.fires("ShopDependencyDown", ("dependency", "cache")).await;
    redis.start_again();
    alarm.is_quiet().await;

    let (paid, cancelled) = (client.order(&[(1, 1)]).await, client.held_order(&[(1, 1)]).await);
    proxy.cut();
    alarm.fires("ShopDependencyDown", ("dependency", "queue")).await;
    assert_eq!(client.cancel(&cancelled).await.status, 202);
    execute(&app, "UPDATE outbox SET time = time - interval '10 minutes'").await;
    alarm.fires("ShopOutboxStuck", OF_ANY).await;
    alarm.fires("ShopTaskStalled", ("task", "sweeper")).await;
    alarm.fires("ShopTaskStalled", ("task", "relay")).await;

    assert_eq!(client.pay(&paid).await.status, 202);
    let ten_minutes_ago = format!(
        "UPDATE orders SET created_at = created_at - interval '10 minutes',
                           accepted_at = accepted_at - interval '10 minutes' WHERE id = '{paid}'"
    );
    execute(&app, &ten_minutes_ago).await;
    alarm.fires("ShopOrdersStuck", OF_ANY).await;

    proxy.heal();
    client.settled(&paid).await;
    alarm.has_seen(&QUEUE_AND_CACHE);
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_fire_when_the_database_is_slow_and_when_it_is_gone() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 1_000)]).await;
    let proxy = Proxy::before(&backend.database_url).await;
    backend.database_url = proxy.url(&backend.database_url);
    let (serve, work) = (Shop::serve(&backend), work(&backend));
    let client = serve.client();
    let alarm = Alarm::start();
    alarm.watch(&serve, &work);
    some_business(&client).await;
    alarm.is_quiet().await;

    // Somebody holds a lock that everything waits for: requests take as long as they may, and settling stands still.
    let path = format!("/orders/{}", client.order(&[(1, 1)]).await);
    let locking = Database::connect(&app.config.database.url).await.expect("connects");
    let lock = locking.begin().await.expect("begun");
    let locked = lock.execute_unprepared("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    locked.await.expect("locked");
    let growing = async {
        for depth in (2_100..).step_by(10) {
            fill_queue(&app, depth).await;
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = async {
            alarm.fires("ShopSlowRequests", OF_ANY).await;
            alarm.fires("ShopQueueGrowing", OF_ANY).await;
        } => {}
        () = growing => {}
        () = requests(&client, &path) => {}
    }
    lock.rollback().await.expect("unlocked");

    proxy.cut();
    tokio::select! {
        () = async {
            alarm.fires("ShopDependencyDown", ("dependency", "database")).await;
            alarm.fires("ShopServerErrors", OF_ANY).await;
        } => {}
        () = requests(&client, "/products?limit=7") => {}
    }
    alarm.has_seen(&DATABASE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_when_a_worker_loses_its_connection_again_and_again() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 1_000)]).await;
    let proxy = Proxy::before(&backend.queue_url).await;
    backend.queue_url = proxy.url(&backend.queue_url);
    let (serve, work) = (Shop::serve(&backend), work(&backend));
    let alarm = Alarm::start();
    alarm.watch(&serve, &work);
    some_business(&serve.client()).await;
    alarm.is_quiet().await;

    let losing = async {
        loop {
            fill_queue(&app, 500).await;
            sleep(Duration::from_millis(300)).await;
            proxy.cut();
            sleep(Duration::from_millis(50)).await;
            proxy.heal();
        }
    };
    tokio::select! {
        () = alarm.fires("ShopRedeliveries", OF_ANY) => {}
        () = losing => {}
    }
    alarm.has_seen(&CONNECTIONS);
}
