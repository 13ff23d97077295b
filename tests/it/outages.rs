//! Outages: a test for every promise about a part that fails, against real servers that are killed, stopped and paused.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use lapin::options::QueueDeleteOptions;
use rand::RngExt as _;
use shop::app::App;
use tokio::time::sleep;

use crate::{
    servers::{Postgres, RabbitMq, Redis},
    support::{
        Backend, Client, Crowd, Shop, accepted, all_settled, channel, count, eventually, ledger_report, publish,
    },
};

/// A broker that is killed within a second after a queue was declared loses the queue for good.
const QUEUES_ARE_DURABLE: Duration = Duration::from_secs(2);

async fn stock_of(app: &App, product: i64) -> i64 {
    shop::domain::catalog::find(app.db.read(), product)
        .await
        .expect("it exists")
        .stock
}

/// Lets customers buy until `meanwhile` is done, and returns them with their record.
pub async fn under_load(clients: Vec<Client>, meanwhile: impl Future<Output = ()>) -> Arc<Crowd> {
    let crowd = Arc::new(Crowd::new(clients, 4));
    let customers = crowd.start(8, 4);
    meanwhile.await;
    crowd.stop(customers).await;
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_three_times_while_draining_settles_every_order_once() {
    const ORDERS: usize = 5_000;
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 4_000), (100, 4_000), (100, 4_000)]).await;
    let orders = accepted(&app, ORDERS, |number| {
        let products = [[(1, 1), (2, 1)], [(2, 1), (3, 1)], [(3, 1), (1, 1)]];
        products[number % 3].to_vec()
    })
    .await;

    publish(&app, &orders).await;

    let settled = || async { count(&app, "PAID").await + count(&app, "FAILED").await };
    let mut killed_at = Vec::new();
    for _ in 0..3 {
        let mut worker = Shop::start(&backend, &["work"], &[("SHOP_BATCH_MAX", "20")]);
        let before = settled().await;
        eventually("it drains", || async { (settled().await > before + 300).then_some(()) }).await;
        worker.kill();
        killed_at.push(settled().await);
    }

    assert!(
        killed_at.iter().all(|settled| *settled < 5_000),
        "killed after the last order: {killed_at:?}"
    );

    let _worker = Shop::work(&backend);
    all_settled(&app).await;
    assert_eq!(settled().await, 5_000);

    let report = ledger_report(&app).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(count(&app, "PAID").await, 5_000, "there is enough stock for all");
    for product in 1..=3 {
        assert!((4_000 - 3_334..=4_000 - 3_333).contains(&stock_of(&app, product).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_payments_without_the_broker_are_settled_once_it_is_back() {
    let rabbitmq = RabbitMq::start();
    let mut backend = Backend::servers();
    backend.queue_url = rabbitmq.url();
    let app = backend.stock(&[(100, 10_000)]).await;
    let shop = Shop::serve(&backend);
    let _worker = Shop::work(&backend);
    let client = shop.client();

    sleep(QUEUES_ARE_DURABLE).await;
    for unclean in [false, true] {
        let orders: Vec<String> = stream::iter(0..1_000)
            .map(|_| async { client.order(&[(1, 1)]).await })
            .buffer_unordered(32)
            .collect()
            .await;

        if unclean {
            rabbitmq.kill();
        } else {
            rabbitmq.stop();
        }

        let payments: Vec<(u16, Duration)> = stream::iter(&orders)
            .map(|id| async {
                let started = Instant::now();
                (client.pay(id).await.status, started.elapsed())
            })
            .buffer_unordered(32)
            .collect()
            .await;
        assert!(payments.iter().all(|(status, _)| *status == 202));
        eprintln!(
            "the slowest of 1,000 payments without a broker: {:?}",
            payments.iter().map(|(_, took)| took).max()
        );

        rabbitmq.start_again();
        if unclean {
            delete_queue(&backend).await;
        }

        let started = Instant::now();
        all_settled(&app).await;
        eprintln!("all settled {:?} after the broker was back", started.elapsed());
    }
    assert_eq!((count(&app, "PAID").await, stock_of(&app, 1).await), (2_000, 8_000));
    assert!(ledger_report(&app).await.is_clean());
}

async fn delete_queue(backend: &Backend) {
    let (_connection, channel) = channel(&backend.queue_url).await;
    let settle = format!("{}.orders.settle", backend.prefix);
    let deleted = channel.queue_delete(settle.into(), QueueDeleteOptions::default()).await;
    deleted.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_under_load_gives_503_and_recovers() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let shop = Shop::serve(&backend);
    let work = Shop::work(&backend);
    let (client, management) = (shop.client(), work.management());

    let crowd = under_load(vec![shop.client()], async {
        sleep(Duration::from_secs(1)).await;
        postgres.kill();
        client
            .get("/products?limit=7")
            .await
            .problem(503, "database-unavailable");

        let ready = client.get("/readyz").await;
        assert_eq!((ready.status, &ready.body["database"]), (503, &"down".into()));
        assert_eq!(client.get("/healthz").await.status, 200);
        assert_eq!(management.get("/readyz").await.status, 503);

        sleep(Duration::from_secs(2)).await;
        postgres.start_again();
        eventually("it is ready again", || async {
            (client.get("/readyz").await.status == 200).then_some(())
        })
        .await;

        // Once more, as when a machine hangs.
        postgres.pause();
        client
            .get("/products?limit=8")
            .await
            .problem(503, "database-unavailable");
        sleep(Duration::from_secs(2)).await;
        postgres.resume();
        eventually("it is ready again", || async {
            (client.get("/readyz").await.status == 200).then_some(())
        })
        .await;
        sleep(Duration::from_secs(1)).await;
    })
    .await;

    all_settled(&app).await;
    let record = crowd.take_record();
    eprintln!("answers {:?}, the longest took {:?}", record.statuses, record.longest);
    assert!(record.statuses[&503] > 0 && record.broken == 0);
    record.reconcile(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_cache_changes_no_answer() {
    let redis = Redis::start();
    let mut backend = Backend::servers();
    backend.cache_url = redis.url();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let shop = Shop::serve(&backend);
    let _work = Shop::work(&backend);
    let client = shop.client();

    let slowest = |what: &'static str| {
        let client = client.clone();
        async move {
            let mut slowest = Duration::ZERO;
            // Each request is for another page, so that it looks the page up in the cache.
            for limit in 1..=40 {
                let started = Instant::now();
                assert_eq!(client.get(&format!("/products?limit={limit}")).await.status, 200);
                slowest = slowest.max(started.elapsed());
            }
            eprintln!("{what}: the slowest of 40 pages took {slowest:?}");
        }
    };

    let crowd = under_load(vec![shop.client()], async {
        slowest("Redis up").await;
        redis.pause();
        slowest("Redis hangs").await;
        redis.resume();
        slowest("Redis back").await;
        redis.kill();
        slowest("Redis gone").await;
        redis.start_again();
        slowest("Redis starts").await;
        eventually("the cache is back by itself", || async {
            (client.get("/readyz").await.body["cache"] == "up").then_some(())
        })
        .await;
    })
    .await;

    all_settled(&app).await;
    let record = crowd.take_record();
    eprintln!("answers {:?}, the longest took {:?}", record.statuses, record.longest);
    assert!(!record.statuses.contains_key(&503) && record.broken == 0);
    record.reconcile(&app).await;

    let stock = stock_of(&app, 1).await;
    eventually("the page shows the current stock", || async {
        (client.get("/products").await.body["items"][0]["stock"] == stock).then_some(())
    })
    .await;
    assert!(ledger_report(&app).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_broker_cluster_killed_during_a_drain_loses_nothing() {
    const ORDERS: usize = 3_000;
    let nodes = RabbitMq::start_cluster(3);
    let mut backend = Backend::servers();
    let hosts: Vec<String> = nodes.iter().map(RabbitMq::host).collect();
    backend.queue_url = format!("amqp://guest:guest@{}/%2f", hosts.join(","));
    let app = backend.stock(&[(100, 100_000)]).await;
    let orders = accepted(&app, ORDERS, |_| vec![(1, 1)]).await;

    publish(&app, &orders).await;
    sleep(QUEUES_ARE_DURABLE).await;

    let shop = Shop::serve(&backend);
    let _workers: Vec<Shop> = (0..2)
        .map(|_| Shop::start(&backend, &["work"], &[("SHOP_BATCH_MAX", "20")]))
        .collect();
    eventually("it drains", || async {
        (count(&app, "PAID").await > 300).then_some(())
    })
    .await;

    // The first host of the URL: clients that are connected to it must reconnect to another node.
    nodes[0].kill();
    let killed_at = count(&app, "PAID").await;
    assert!(killed_at < 3_000, "killed after the last order: {killed_at}");

    let client = shop.client();
    for _ in 0..20 {
        let id = client.order(&[(1, 1)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
    }

    all_settled(&app).await;
    assert_eq!((count(&app, "PAID").await, stock_of(&app, 1).await), (3_020, 96_980));
    assert!(ledger_report(&app).await.is_clean());
    eventually("it is ready with two nodes of three", || async {
        (client.get("/readyz").await.body["queue"] == "up").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_shop_killed_twenty_times_keeps_everything_it_answered() {
    let backend = Backend::embedded();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let mut shop = Shop::serve(&backend);
    let crowd = Arc::new(Crowd::new(vec![shop.client()], 4));
    let customers = crowd.start(8, 6);

    for _ in 0..20 {
        sleep(Duration::from_millis(rand::rng().random_range(20..400))).await;
        shop.kill();
        shop = Shop::serve(&backend);
        crowd.replace(0, shop.client());
    }

    sleep(Duration::from_millis(300)).await;
    crowd.stop(customers).await;
    all_settled(&app).await;

    let record = crowd.take_record();
    eprintln!(
        "{} orders, {} accepted, {} connections broken",
        record.orders(),
        record.accepted(),
        record.broken
    );

    assert!(record.accepted() > 20 && record.broken > 0);
    record.reconcile(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_and_work_wait_for_a_database_that_is_still_starting() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    backend.stock(&[(100, 10)]).await;
    postgres.stop();

    let (serve, work) = (
        Shop::start(&backend, &["serve"], &[]),
        Shop::start(&backend, &["work"], &[]),
    );
    for waiting in [&serve, &work] {
        waiting.wait_for("the database is unreachable; retrying");
    }

    postgres.start_again();
    work.wait_for("working");
    let client = serve.client();
    let id = client.order(&[(1, 1)]).await;
    client.pay(&id).await;
    assert_eq!(client.settled(&id).await["status"], "PAID");
}

/// A worker whose process hangs in the middle of a batch does not keep its rows locked.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_does_not_stop_the_others() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 100_000)]).await;
    let orders = accepted(&app, 2_000, |_| vec![(1, 1)]).await;
    publish(&app, &orders).await;

    let hanging = Shop::start(&backend, &["work"], &[("SHOP_BATCH_MAX", "10")]);
    eventually("it drains", || async {
        (count(&app, "PAID").await > 100).then_some(())
    })
    .await;

    let signal = |name: &str| {
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &hanging.pid().to_string()])
            .status();
        assert!(sent.expect("sh is on every machine").success());
    };

    signal("STOP");

    let _work = Shop::work(&backend);
    all_settled(&app).await;
    signal("CONT");

    assert_eq!((count(&app, "PAID").await, stock_of(&app, 1).await), (2_000, 98_000));
    assert!(ledger_report(&app).await.is_clean());
}
