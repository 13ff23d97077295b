//! What a network does to connections: answers that are lost, and silence without an end.

use std::time::Duration;

use serde_json::json;
use shop::{app::App, domain::catalog};
use tokio::time::sleep;

use crate::{
    proxy::Proxy,
    servers::RabbitMq,
    support::{Backend, Shop, all_settled, books, count, eventually},
};

async fn through_proxy() -> (Backend, Proxy, App) {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 1_000)]).await;
    let proxy = Proxy::before(&backend.database_url).await;
    backend.database_url = proxy.url(&backend.database_url);
    (backend, proxy, app)
}

/// Done twice, a restock would put units on the shelf that do not exist, with the books to prove them.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_committed_is_not_done_again_unless_that_is_harmless() {
    let (backend, proxy, app) = through_proxy().await;
    let shop = Shop::serve(&backend);
    // Past the proxy: the worker commits on its own account, and must not lose what is meant for `serve`.
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

    // An order knows its own id, and a payment its order: they are done again, and once.
    proxy.lose_next_commit();
    let id = client.order(&[(1, 3)]).await;
    assert!(proxy.has_lost_commit());
    proxy.lose_next_commit();
    assert_eq!(client.pay(&id).await.status, 202);
    all_settled(&app).await;
    assert_eq!(count(&app, "PAID").await, 1);
    assert_eq!(catalog::find(app.db.read(), 1).await.expect("found").stock, 1_007);
    assert!(books(&app).await.is_clean());
}

/// A firewall that forgot the connections, a primary that vanished: nothing ends them, and new ones work.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_the_database_that_go_silent_are_given_up_and_replaced() {
    let (backend, proxy, app) = through_proxy().await;
    let shop = Shop::serve(&backend);
    let _worker = Shop::work(&backend);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    proxy.silence();
    eventually("orders are made again", || async {
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
    assert!(books(&app).await.is_clean());
}

fn connections(rabbitmq: &RabbitMq) -> usize {
    rabbitmq
        .ctl(&["list_connections", "pid"])
        .lines()
        .filter(|line| line.starts_with('<'))
        .count()
}

/// Short of memory, the broker takes no message and hears no goodbye.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_nothing_is_left_alone_until_it_does() {
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
    assert!(count(&app, "PAID").await < 41, "it does take messages");
    let after = connections(&rabbitmq);
    assert!(after <= before + 2, "{before} connections have become {after}");
    rabbitmq.ctl(&["set_vm_memory_high_watermark", "0.8"]);
    all_settled(&app).await;
    assert_eq!(count(&app, "PAID").await, 41);
    assert!(books(&app).await.is_clean());
}
