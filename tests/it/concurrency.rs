//! Concurrency: what many customers, a double click and an administrator do to the same rows at the same moment.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shop::{
    app::App,
    domain::{
        Error,
        catalog::{self, Origin, ProductChange, StockChange},
    },
    entities::Timestamp,
};
use uuid::Uuid;

use crate::support::{Answer, Backend, Client, Shop, accepted, all_settled, count, eventually, ledger_report, publish};

async fn change_stock(app: &App, product_id: i64, delta: i64, reason: &'static str) -> Result<(), Error> {
    let (change, origin) = (&StockChange::by(product_id, delta, reason), &Origin::default());
    let changed = app
        .db
        .transaction_once(|txn| async move { catalog::change_stock(&txn, Timestamp::now(), change, origin, 5).await });
    changed.await.map(drop)
}

async fn stock_of(app: &App, product: i64) -> i64 {
    catalog::find(app.db.read(), product).await.expect("it exists").stock
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn many_concurrent_payments_of_one_order_take_its_stock_once(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shops = [Shop::serve(&backend)];
    let _workers = Shop::workers(&backend, 2);
    let client = shops[0].client();
    let id = client.order(&[(1, 3)]).await;

    let answers = join_all((0..50).map(|_| client.pay(&id))).await;

    assert!(
        answers.iter().all(|answer| matches!(answer.status, 200 | 202)),
        "{answers:?}"
    );
    assert_eq!(client.settled(&id).await["status"], "PAID");
    assert_eq!(client.pay(&id).await.status, 200);
    assert_eq!(stock_of(&app, 1).await, 7);
    assert!(ledger_report(&app).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_fifty_times_to_two_workers_settles_once() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 1_000)]).await;
    let orders = accepted(&app, 20, |_| vec![(1, 2)]).await;
    publish(&app, &orders.repeat(50)).await;

    let _workers: Vec<Shop> = (0..2)
        .map(|_| Shop::start(&backend, &["work"], &[("SHOP_BATCH_MAX", "7")]))
        .collect();

    all_settled(&app).await;
    eventually("every message has been taken", || async {
        (app.queue.depth().await.ok()? == 0).then_some(())
    })
    .await;

    assert_eq!(stock_of(&app, 1).await, 1_000 - 40);
    assert_eq!(count(&app, "PAID").await, 20);
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_order_keeps_its_price_while_the_catalogue_changes(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 100_000)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let changing = tokio::spawn({
        let app = app.clone();
        async move {
            for price in (101..160).chain([100]) {
                let change = ProductChange {
                    price: Some(price),
                    ..ProductChange::default()
                };
                catalog::change(app.db.write(), Timestamp::now(), 1, &change)
                    .await
                    .expect("changed");
            }
        }
    });

    let body = json!({ "user_id": 1, "items": [{ "product_id": 1, "quantity": 3 }] });
    let made = join_all((0..100).map(|_| client.post("/orders", &body)));
    let made: Vec<Answer> = made.await;
    changing.await.expect("the price changes");

    for answer in &made {
        assert_eq!(answer.status, 201, "{answer:?}");
        let price = answer.body["items"][0]["unit_price"].as_i64().expect("a price");
        assert!((100..160).contains(&price));
        assert_eq!(answer.body["total_price"], price * 3);
        let id = answer.body["order_id"].as_str().expect("an id");
        client.pay(id).await;
        let settled = client.settled(id).await;
        assert_eq!(
            (&settled["status"], &settled["total_price"]),
            (&json!("PAID"), &json!(price * 3))
        );
    }
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn stock_adds_up_while_it_is_changed_and_orders_are_settled(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 60)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 2);
    let client = shop.client();
    let changing_stock = tokio::spawn({
        let app = app.clone();
        async move {
            let mut changed = 0;
            for turn in 0..60 {
                let (delta, reason) = if turn % 2 == 0 {
                    (3, "restock")
                } else {
                    (-2, "breakage")
                };
                match change_stock(&app, 1, delta, reason).await {
                    Ok(()) => changed += delta,
                    Err(Error::StockOutOfRange { stock, .. }) => assert!(stock + delta < 0),
                    Err(error) => panic!("{error}"),
                }
            }
            changed
        }
    });

    let buying = (0..100).map(|_| async {
        let id = client.order(&[(1, 1)]).await;
        client.pay(&id).await;
        client.settled(&id).await["status"].clone()
    });

    let bought = join_all(buying).await;
    let changed = changing_stock.await.expect("the stock changes");

    let paid = bought.iter().filter(|status| **status == "PAID").count();
    assert_eq!(
        stock_of(&app, 1).await,
        60 + changed - i64::try_from(paid).expect("few")
    );
    assert!(ledger_report(&app).await.is_clean());

    let below_zero = change_stock(&app, 1, -1_000_000, "theft").await;
    assert!(matches!(below_zero, Err(Error::StockOutOfRange { .. })));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn orders_of_the_same_products_in_opposite_order_never_end_in_a_deadlock(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 1_000), (100, 1_000), (100, 1_000)]).await;
    let shops = [Shop::serve(&backend)];
    let _workers: Vec<Shop> = (0..if backend.is_embedded() { 0 } else { 2 })
        .map(|_| Shop::start(&backend, &["work"], &[("SHOP_BATCH_MAX", "5")]))
        .collect();
    let client = shops[0].client();

    let baskets = [[1, 2, 3], [3, 2, 1], [2, 3, 1], [1, 3, 2]];
    let buying = (0..200).map(|number: usize| {
        let (client, basket) = (client.clone(), baskets[number % baskets.len()]);
        async move {
            let id = client.order(&basket.map(|product| (product, 1))).await;
            let pays = join_all((0..3).map(|_| client.pay(&id))).await;
            assert!(pays.iter().all(|answer| matches!(answer.status, 200 | 202)), "{pays:?}");
            assert_eq!(client.settled(&id).await["status"], "PAID");
        }
    });

    join_all(buying).await;

    assert_eq!(stock_of(&app, 1).await, 800);
    assert!(ledger_report(&app).await.is_clean());
}

/// The same key is sent on many connections, and whoever gets the first answer pays.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_order_may_be_paid_while_its_creation_is_repeated(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = Arc::new(shop.client());

    let create = |client: Arc<Client>| async move {
        let body = json!({ "user_id": 1, "items": [{ "product_id": 1, "quantity": 1 }] });
        let request = client
            .request(Method::POST, "/orders")
            .header("Idempotency-Key", "race")
            .json(&body);
        let answer = Answer::of(request).await;
        let id = answer.body["order_id"].as_str().map(str::to_owned);
        if let Some(id) = &id {
            let paid = client.pay(id).await;
            assert!(matches!(paid.status, 200 | 202), "{paid:?}");
        }
        (answer.status, id, answer.body["status"].clone())
    };

    let answers = join_all((0..50).map(|_| create(Arc::clone(&client)))).await;
    assert!(
        answers
            .iter()
            .all(|(status, _, order)| *status == 201 && order == "PENDING"),
        "{answers:?}"
    );

    let ids: BTreeSet<&str> = answers.iter().filter_map(|(_, id, _)| id.as_deref()).collect();
    assert_eq!(ids.len(), 1);
    let id = ids.first().expect("one");
    assert_eq!(client.settled(id).await["status"], "PAID");

    assert_eq!(stock_of(&app, 1).await, 9);
    let unknown = client.pay(&Uuid::now_v7().to_string()).await;
    assert_eq!((unknown.status, unknown.body["order_id"].clone()), (404, Value::Null));
}
