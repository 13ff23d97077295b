//! A disk that is full, as `SQLite` sees it.

use sea_orm::{ConnectionTrait as _, Statement};
use shop::{
    app::App,
    domain::{
        Error,
        catalog::{self, NewProduct},
    },
    entities::Micros,
};

use crate::support::{Backend, books};

async fn add(app: &App, name: String) -> Result<i64, Error> {
    let new = NewProduct {
        name,
        price: 1,
        stock: 1,
    };
    let added = app.db.transaction_once(move |txn| {
        let new = new.clone();
        Box::pin(async move { catalog::add(txn, Micros::now(), &new).await })
    });
    added.await.map(|product| product.id)
}

/// `SQLite` takes the transaction back by itself then. A client that does not know it would never commit again.
#[tokio::test]
async fn what_is_written_after_the_disk_was_full_is_kept() {
    let backend = Backend::embedded();
    let app = backend.app().await;
    let pages = Statement::from_string(app.db.write().get_database_backend(), "PRAGMA page_count");
    let pages = app
        .db
        .write()
        .query_one_raw(pages)
        .await
        .expect("asked")
        .expect("answered");
    let pages: i64 = pages.try_get_by_index(0).expect("a number");
    // Of this connection alone: the one that takes its place has the whole disk.
    let full = format!("PRAGMA max_page_count = {}", pages + 2);
    app.db.write().execute_unprepared(&full).await.expect("set");
    for number in 0..200 {
        add(&app, format!("{number} {}", "x".repeat(190))).await.expect("added");
    }
    app.close().await;
    let again = backend.app().await;
    let products = catalog::ids(again.db.read()).await.expect("read").len();
    assert_eq!(products, 200, "every one that was added");
    assert!(books(&again).await.is_clean());
}
