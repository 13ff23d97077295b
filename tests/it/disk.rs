//! A full disk, as `SQLite` sees it.

use serde_json::json;
use shop::domain::{Caller, OrderId, orders};

use crate::support::{Backend, Shop, all_settled, ledger_report};

/// On a full disk `SQLite` rolls the transaction back by itself. A client that does not notice would never commit again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_after_a_full_disk_is_stored() {
    let backend = Backend::embedded();
    backend.stock(&[(1, 1_000_000); 40]).await.close().await;
    let mut shop = Shop::serve_with_file_size_limit(&backend, 1_000_000);
    let client = shop.client();
    let items: Vec<_> = (1..=40)
        .map(|product| json!({ "product_id": product, "quantity": 1 }))
        .collect();
    let order = json!({ "user_id": 7, "items": items });

    let mut created = Vec::new();

    for round in 0.. {
        let answer = client.post("/orders", &order).await;
        if answer.status != 201 {
            answer.problem(503, "database-unavailable");
            break;
        }
        created.push(answer.body["order_id"].as_str().expect("an id").to_owned());
        assert!(round < 2_000, "the disk is never full");
    }
    // The disk is still full: some orders may fit, and whatever is answered 201 must stay.
    for _ in 0..5 {
        let answer = client.post("/orders", &order).await;
        if answer.status == 201 {
            created.push(answer.body["order_id"].as_str().expect("an id").to_owned());
        }
    }

    shop.lift_file_size_limit();

    for _ in 0..20 {
        let id = client.order(&[(1, 1)]).await;
        assert_eq!(client.pay(&id).await.status, 202);
        created.push(id);
    }

    shop.kill();

    let restarted = Shop::serve(&backend);
    let app = backend.app().await;
    all_settled(&app).await;

    for id in &created {
        let id: OrderId = id.parse().expect("an id");
        orders::find(app.db.read(), Caller::Admin, id)
            .await
            .expect("every order that was answered 201 exists");
    }

    assert_eq!(
        restarted.client().get("/products/1").await.body["stock"],
        1_000_000 - 20
    );
    assert!(ledger_report(&app).await.is_clean());
}
