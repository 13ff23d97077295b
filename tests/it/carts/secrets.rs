//! Of a cart the database keeps nothing but its order, and its id is written down nowhere.

use std::{fmt::Write as _, fs};

use reqwest::Method;
use rstest::rstest;
use sea_orm::{ConnectionTrait as _, Statement};
use shop::app::App;

use super::{cart_of, check_out, checkout_request, find, new_cart, put};
use crate::{
    servers::Redis,
    support::{Answer, Backend, Shop, eventually},
};

/// Every row of every table of the database, as text, but for the migrations.
async fn everything(app: &App, backend: &Backend) -> String {
    let database = app.db.read();
    let select = async |sql: String| -> Vec<String> {
        let statement = Statement::from_string(database.get_database_backend(), sql);
        let rows = database.query_all_raw(statement).await.expect("rows");
        rows.iter().map(|row| row.try_get_by_index(0).expect("text")).collect()
    };

    // The ledger is checked meanwhile, and its row says when.
    let tables = if backend.is_embedded() {
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'ledger'"
    } else {
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'ledger'"
    };
    let mut found = String::new();
    for table in select(tables.to_owned()).await {
        let rows = if backend.is_embedded() {
            let columns = select(format!("SELECT name FROM pragma_table_info('{table}')")).await;
            let columns: Vec<String> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
            format!("SELECT {} FROM \"{table}\" ORDER BY 1", columns.join(" || '|' || "))
        } else {
            format!("SELECT t::text FROM \"{table}\" t ORDER BY 1")
        };
        let _ = writeln!(found, "{table}: {}", select(rows).await.join("\n"));
    }
    found
}

#[rstest]
#[tokio::test]
async fn no_cart_is_in_the_database(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (250, 3)]).await;
    // A ledger check would change a row.
    let shop = Shop::start(&backend, &["serve"], &[("SHOP_BOOKS_EVERY_SECONDS", "0")]);
    let client = shop.client();
    let before = everything(&app, &backend).await;
    assert!(before.contains("product 1"), "{before}");

    let cart = cart_of(&client, &[(1, 2), (2, 1)]).await;
    find(&client, &cart).await;
    assert_eq!(everything(&app, &backend).await, before);

    check_out(&client, &cart, 7).await;
    let after = everything(&app, &backend).await;
    let id = &cart["/carts/".len()..];
    assert!(after.contains("'cart ") || after.contains("\"cart "), "{after}");
    assert!(!after.to_lowercase().contains(id), "{after}");
}

#[rstest]
#[tokio::test]
async fn the_id_of_a_cart_is_in_no_log_and_no_metric(#[values("embedded", "servers")] backend: &str) {
    let mut backend = Backend::named(backend);
    let redis = (!backend.is_embedded()).then(Redis::start);
    if let Some(redis) = &redis {
        backend.cache_url = redis.url();
    }
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::start(&backend, &["serve"], &[("SHOP_LOG", "debug")]);
    let client = shop.client();
    let cart = cart_of(&client, &[(1, 2)]).await;
    let id = &cart["/carts/".len()..];
    find(&client, &cart).await;
    put(&client, &cart, 9, 1).await;
    for unknown in [format!("{cart}/"), format!("{cart}/items"), format!("{cart}/items/1/x")] {
        client.get(&unknown).await;
    }
    Answer::of(client.request(Method::PATCH, &cart))
        .await
        .problem(405, "method-not-allowed");
    check_out(&client, &cart, 7).await;
    check_out(&client, &cart, 7).await;
    if let Some(redis) = &redis {
        redis.kill();
        Answer::of(client.request(Method::GET, &cart))
            .await
            .problem(503, "carts-unavailable");
        Answer::of(checkout_request(&client, &cart, 7))
            .await
            .problem(503, "carts-unavailable");
        redis.start_again();
    } else {
        new_cart(&client).await;
    }

    // A line is written after its answer.
    let log = eventually("the requests are in the log", || async {
        let log = shop.log();
        let is_whole = log.contains("\"/carts/{id}/checkout\"") && log.contains("\"/carts/\"");
        is_whole.then_some(log)
    })
    .await;
    let metrics = shop.management().get("/metrics").await.body;
    let metrics = metrics.as_str().expect("text");
    assert!(metrics.contains("/carts/{id}/items/{product_id}"), "{metrics}");
    assert!(metrics.contains("shop_carts_checked_out_total 1"), "{metrics}");
    assert!(!log.contains(id), "{log}");
    assert!(!metrics.contains(id), "{metrics}");

    if backend.is_embedded() {
        let file = fs::read(backend.folder.join("shop.db")).expect("the database");
        assert!(!String::from_utf8_lossy(&file).contains(id));
    }
}
