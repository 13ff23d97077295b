//! A disk that is full, as `SQLite` sees it.

use serde_json::json;
use shop::domain::{Caller, OrderId, orders};

use crate::support::{Backend, Shop, all_settled, books};

/// `SQLite` takes the transaction back by itself then. A client that does not notice would never commit again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_after_the_disk_was_full_is_kept() {
    let backend = Backend::embedded();
    backend.stock(&[(1, 1_000_000); 40]).await.close().await;
    let mut shop = Shop::serve_with_small_files(&backend, 1_000_000);
    let client = shop.client();
    let items: Vec<_> = (1..=40)
        .map(|product| json!({ "product_id": product, "quantity": 1 }))
        .collect();
    let order = json!({ "user_id": 7, "items": items });
    let mut made = Vec::new();
    for round in 0.. {
        let answer = client.post("/orders", &order).await;
        if answer.status != 201 {
            answer.problem(503, "database-unavailable");
            break;
        }
        made.push(answer.body["order_id"].as_str().expect("an id").to_owned());
        assert!(round < 2_000, "the disk is never full");
    }
    // Still full: some may fit, and what is answered stands.
    for _ in 0..5 {
        let answer = client.post("/orders", &order).await;
        if answer.status == 201 {
            made.push(answer.body["order_id"].as_str().expect("an id").to_owned());
        }
    }
    shop.lift_limit_of_files();
    for _ in 0..20 {
        let id = client.order(&[(1, 1)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
        made.push(id);
    }
    shop.kill();
    let again = Shop::serve(&backend);
    let app = backend.app().await;
    all_settled(&app).await;
    for id in &made {
        let id: OrderId = id.parse().expect("an id");
        orders::find(app.db.read(), Caller::Admin, id)
            .await
            .expect("every 201 is kept");
    }
    assert_eq!(again.client().get("/products/1").await.body["stock"], 1_000_000 - 20);
    assert!(books(&app).await.is_clean());
}
