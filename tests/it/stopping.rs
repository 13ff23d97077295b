//! A clean end on SIGTERM, whatever is in progress and whatever does not answer.

use std::time::Instant;

use reqwest::Method;
use rstest::rstest;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use shop::db::sql::sql;

use crate::{
    outages::under_load,
    servers::{Postgres, RabbitMq},
    support::{Answer, Backend, Shop, accepted, all_settled, count, eventually, ledger_report, publish},
};

/// SIGTERM in the middle of a batch: the batch is finished, and the exit code is 0.
#[tokio::test(flavor = "multi_thread")]
async fn both_roles_finish_what_is_in_progress_on_sigterm() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let orders = accepted(&app, 2_000, |_| vec![(1, 1)]).await;
    publish(&app, &orders).await;
    let mut shop = Shop::serve(&backend);
    let mut work = Shop::start(&backend, &["work"], &[("SHOP_BATCH_MAX", "10")]);
    let client = shop.client();

    let crowd = under_load(vec![client], async {
        eventually("it drains", || async {
            (count(&app, "PAID").await > 100).then_some(())
        })
        .await;
        assert!(work.terminate().success() && shop.terminate().success());
    })
    .await;

    // The rest is still in the queue, and no lock is left.
    let _work = Shop::work(&backend);
    all_settled(&app).await;
    crowd.take_record().reconcile(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

/// SIGTERM while database and broker hang: the exit code is 0 all the same.
#[tokio::test(flavor = "multi_thread")]
async fn both_roles_stop_within_their_deadline_whatever_is_in_progress() {
    let (postgres, rabbitmq) = (Postgres::start(), RabbitMq::start());
    let mut backend = Backend::servers();
    (backend.database_url, backend.queue_url) = (postgres.create_database(), rabbitmq.url());
    let app = backend.stock(&[(100, 100_000)]).await;
    let mut shop = Shop::serve(&backend);
    let mut work = Shop::work(&backend);
    let client = shop.client();
    let mut orders = Vec::new();
    for _ in 0..20 {
        orders.push(client.order(&[(1, 1)]).await);
    }

    postgres.pause();
    rabbitmq.pause();
    let unanswered: Vec<_> = orders
        .into_iter()
        .map(|id| {
            let client = client.clone();
            tokio::spawn(async move { client.pay(&id).await.status })
        })
        .collect();

    let started = Instant::now();
    assert!(work.terminate().success(), "{}", work.log());
    assert!(shop.terminate().success(), "{}", shop.log());
    eprintln!("both ended after {:?}", started.elapsed());

    postgres.resume();
    rabbitmq.resume();
    for pay in unanswered {
        assert!(matches!(pay.await.expect("an answer"), 202 | 503));
    }

    let _workers = (Shop::serve(&backend), Shop::work(&backend));
    all_settled(&app).await;
    assert!(ledger_report(&app).await.is_clean());
}

/// As when the ledger is large: the statement that reads it goes on for longer than a process may take to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_stops_in_the_middle_of_a_ledger_check() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    let locked = app.db.write().begin().await.expect("begun");
    let lock = "LOCK TABLE order_items IN ACCESS EXCLUSIVE MODE";
    locked.execute_unprepared(lock).await.expect(lock);

    let mut work = Shop::start(&backend, &["work"], &[("SHOP_BOOKS_EVERY_SECONDS", "3600")]);
    let waiting = "
        SELECT 1
          FROM pg_locks
         WHERE NOT granted
           AND relation = 'order_items'::regclass
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("the check waits for the lines", || async {
        let waiting: Vec<i32> = sql(waiting).scalars(app.db.read()).await.ok()?;
        (!waiting.is_empty()).then_some(())
    })
    .await;

    assert!(work.terminate().success());
    work.wait_for("stopped");
    locked.rollback().await.expect("unlocked");
}

/// The first interrupt waits for what is in progress; who is impatient interrupts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_interrupt_ends_a_process_that_waits_for_its_database() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    backend.stock(&[(100, 10)]).await;
    let mut shop = Shop::serve(&backend);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;

    postgres.pause();
    let paying =
        tokio::spawn(async move { Answer::if_any(client.request(Method::POST, &format!("/orders/{id}/pay"))).await });
    let management = shop.management();
    eventually("the payment waits", || async {
        let metrics = management.get("/metrics").await.body;
        let in_flight = r#"shop_http_requests_in_flight{route="/orders/{id}/pay",method="POST",waiting="false"} 1"#;
        metrics
            .as_str()
            .is_some_and(|text| text.contains(in_flight))
            .then_some(())
    })
    .await;
    shop.interrupt();
    shop.wait_for("SIGINT: stopping");
    shop.interrupt();

    assert_eq!(shop.exit_code(), Some(130));
    postgres.resume();
    assert!(paying.await.expect("it ran").is_err());
}

/// A task that is switched off must not count as one that has ended.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_ledger_checks_keeps_running(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let never = [("SHOP_BOOKS_EVERY_SECONDS", "0")];
    let mut processes = vec![Shop::start(&backend, &["serve"], &never)];
    if !backend.is_embedded() {
        processes.push(Shop::start(&backend, &["work"], &never));
    }
    let client = processes[0].client();
    let id = client.order(&[(1, 1)]).await;
    assert_eq!(client.pay(&id).await.status, 202);
    all_settled(&app).await;

    for process in &mut processes {
        assert!(process.terminate().success());
    }
}
