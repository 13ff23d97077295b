//! Whoever comes to an old order, or to an old key, while it is being deleted. On SQLite nobody does: it has one writer.

use std::future::Future;

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::json;
use shop::{
    app::App,
    cli::prune::{self, OldRows},
    db,
    domain::{
        OrderId,
        catalog::Origin,
        refunds::{self, NewRefund, RefundItem},
    },
    entities::Timestamp,
};
use uuid::Uuid;

use super::{HOUR, STOCK, settled_at};
use crate::{
    servers::shared,
    support::{Backend, Shop, eventually, ledger_report, level_of, unless_busy},
};

/// The advisory lock that a test holds where others are to wait.
const GATE: i64 = 4_711;

fn psql(backend: &Backend, sql: &str) -> String {
    shared().postgres.psql(&backend.database_url, sql)
}

/// Waits until somebody waits for a lock of this kind in a statement like this.
async fn until_somebody_waits(backend: &Backend, kind: &str, statement: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
         AND wait_event = '{kind}' AND query LIKE '%{statement}%'"
    );
    eventually("somebody waits for the lock", || async {
        (psql(backend, &waiting) == "1").then_some(())
    })
    .await;
}

/// Runs `request`, which stops when it has inserted into the table, whether or not that was a conflict. Meanwhile everything
/// old is deleted.
async fn while_all_is_deleted<T>(
    app: &App,
    backend: &Backend,
    table: &str,
    request: impl Future<Output = T>,
) -> (OldRows, T) {
    psql(
        backend,
        &format!(
            "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); RETURN NULL; END $$; \
             CREATE TRIGGER stop AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION stop()"
        ),
    );
    let gate = app.db.write().begin().await.expect("begun");
    let close = format!("SELECT pg_advisory_xact_lock({GATE})");
    gate.execute_unprepared(&close).await.expect("locked");

    let deleting = async {
        until_somebody_waits(backend, "advisory", &format!("INSERT INTO {table}")).await;
        let now = db::now(app.db.read()).await.expect("the time");
        let deleted = prune::delete(&app.db, now, now).await.expect("deleted");
        gate.commit().await.expect("unlocked");
        deleted
    };
    tokio::join!(deleting, request)
}

/// The refund has locked its order and is not committed yet when the order is found to be old.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_is_being_made_keeps_its_order() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, STOCK)]).await;
    let now = db::now(app.db.read()).await.expect("the time");
    let orders: Vec<OrderId> = settled_at(&app, now.minus(HOUR * 2), 3).await;
    let new = NewRefund {
        id: Uuid::now_v7(),
        order_id: orders[1],
        amount: None,
        items: vec![RefundItem {
            product_id: 1,
            quantity: 1,
            restock: true,
        }],
        reason: "returned".to_owned(),
    };

    let refunding = app.db.write().begin().await.expect("begun");
    let made = refunds::create(&refunding, now, &new, &Origin::default(), 0).await;
    made.expect("refunded");
    let pruning = async { prune::delete(&app.db, now, now.minus(HOUR)).await.expect("deleted") };
    let committing = async {
        until_somebody_waits(&backend, "transactionid", "FOR NO KEY UPDATE").await;
        refunding.commit().await.expect("committed");
    };
    let (deleted, ()) = tokio::join!(pruning, committing);

    assert_eq!(deleted.orders.paid, 2, "{deleted:?}");
    assert_eq!(psql(&backend, "SELECT id FROM orders"), orders[1].to_string());
    assert_eq!(psql(&backend, "SELECT id FROM refunds"), new.id.to_string());
    assert_eq!(psql(&backend, "SELECT count(movement_id) FROM refund_items"), "1");
    assert_eq!(level_of(&app, 1).await, (STOCK - 2, 0));
    let report = ledger_report(&app).await;
    assert!(report.is_clean(), "{report:?}");

    // Once the refund is old too, the order goes.
    let later = Timestamp::now().plus(HOUR);
    assert_eq!(
        prune::delete(&app.db, now, later).await.expect("deleted").orders.paid,
        1
    );
    assert!(ledger_report(&app).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_key_is_deleted_just_then_is_made_anew() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, STOCK)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let order = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] });
    let first = client.post_with_key("/orders", "key", &order).await;
    assert_eq!(first.status, 201, "{first:?}");

    let (deleted, second) =
        while_all_is_deleted(&app, &backend, "orders", client.post_with_key("/orders", "key", &order)).await;

    assert_eq!(deleted.orders.unpaid, 1, "{deleted:?}");
    assert_eq!(second.status, 201, "{second:?}");
    assert_ne!(second.body["order_id"], first.body["order_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_stock_whose_key_is_deleted_just_then_is_made_anew() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, STOCK)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let restock = json!({ "delta": 5, "reason": "delivery" });
    let path = "/products/1/stock";
    assert_eq!(client.post_with_key(path, "key", &restock).await.status, 200);

    let (deleted, second) = while_all_is_deleted(
        &app,
        &backend,
        "idempotency_keys",
        client.post_with_key(path, "key", &restock),
    )
    .await;

    assert_eq!(deleted.keys, 1, "{deleted:?}");
    assert_eq!(second.status, 200, "{second:?}");
    assert_eq!(level_of(&app, 1).await, (STOCK + 10, 0));
    // And once only from then on.
    let third = unless_busy(|| client.post_with_key(path, "key", &restock)).await;
    assert_eq!((third.status, third.body), (200, second.body));
    assert_eq!(level_of(&app, 1).await, (STOCK + 10, 0));
}
