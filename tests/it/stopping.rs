//! A clean end, whatever is in hand and whatever does not come.

use std::time::Instant;

use rstest::rstest;

use crate::{
    outages::{ring, under_load},
    servers::{Postgres, RabbitMq},
    support::{Backend, Shop, accepted, all_settled, books, count, eventually},
};

/// SIGTERM while a batch is in hand: it is finished, and the exit is clean.
#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_both_roles_finish_what_is_in_hand() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let orders = accepted(&app, 2_000, |_| vec![(1, 1)]).await;
    ring(&app, &orders).await;
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
    // What was not settled is still in the queue, and nothing is held by anybody.
    let _work = Shop::work(&backend);
    all_settled(&app).await;
    crowd.remembered().reconcile(&app).await;
    assert!(books(&app).await.is_clean());
}

/// SIGTERM while nothing that is waited for will ever come: the exit is clean all the same.
#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_both_roles_do_not_wait_for_ever() {
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
    let begun = Instant::now();
    assert!(work.terminate().success(), "{}", work.log());
    assert!(shop.terminate().success(), "{}", shop.log());
    eprintln!("both ended after {:?}", begun.elapsed());
    postgres.resume();
    rabbitmq.resume();
    for pay in unanswered {
        assert!(matches!(pay.await.expect("an answer"), 202 | 503));
    }
    let _workers = (Shop::serve(&backend), Shop::work(&backend));
    all_settled(&app).await;
    assert!(books(&app).await.is_clean());
}

/// Nothing but a signal ends a process that has nothing to do.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn books_that_are_never_checked_end_nobody(#[values("embedded", "servers")] backend: &str) {
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
