//! Odd orders whose hold has ended: they stay, first of all that have ended, and hold up nobody else.

use std::time::Duration;

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use shop::{
    app::App,
    db::sql::{Column, sql},
    domain::OrderId,
    tasks::expiry,
};

use super::Tampered;
use crate::support::{Backend, Shop, a_minute_ago, count, end_holds, eventually, with_hold};

const HOLD: Duration = Duration::from_mins(10);

async fn held(app: &App) -> OrderId {
    with_hold(app, HOLD).await.expect("made")
}

async fn run(app: &App, statement: &str) {
    app.db.write().execute_unprepared(statement).await.expect(statement);
}

/// Its units would otherwise stay on hold, and those of everybody who comes after it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn holds_end_although_an_odd_order_is_among_them(#[values("embedded", "servers")] backend: &str) {
    let mut tampered = Tampered::new(backend).await;
    let mut hold = Vec::new();
    for _ in 0..3 {
        let body = json!({ "user_id": 7, "items": [{ "product_id": 2, "quantity": 1 }], "hold_seconds": 600 });
        let held = tampered.client.post("/orders", &body).await;
        hold.push(held.body["order_id"].as_str().expect("an id").to_owned());
    }

    let (past, lack) = if tampered.backend.is_embedded() {
        ("1", "status = 'WAITING'")
    } else {
        ("'2020-01-01'", "total_price = NULL")
    };
    for (order, change) in hold.iter().zip(["status = 'ON_HOLD'", lack, "user_id = user_id"]) {
        tampered.odd.clone_from(order);
        let odd = format!("UPDATE orders SET {change}, expires_at = {past} WHERE id = :odd");
        tampered.tamper(&odd).await;
    }

    eventually("the hold has ended", || async {
        let found = tampered.client.get(&format!("/orders/{}", hold[2])).await;
        (found.body["failure"]["reason"] == "expired").then_some(())
    })
    .await;
    let odd = tampered.client.get(&format!("/orders/{}", hold[0])).await;
    assert_eq!((odd.status, &odd.body["status"]), (200, &json!("ON_HOLD")));
}

/// More of them than one transaction reads.
#[rstest]
#[tokio::test]
async fn many_odd_orders_keep_no_other_hold_from_ending(#[values("embedded", "servers")] backend: &str) {
    const LIMIT: usize = 2;
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let odd = vec![held(&app).await, held(&app).await, held(&app).await];
    let others = [held(&app).await, held(&app).await, held(&app).await];
    let lifted = if backend.is_embedded() {
        "PRAGMA ignore_check_constraints = ON"
    } else {
        "ALTER TABLE orders DROP CONSTRAINT orders_status_is_known, DROP CONSTRAINT orders_status_fits_the_rest"
    };
    run(&app, lifted).await;
    let change = sql("UPDATE orders SET status = 'ON_HOLD' WHERE id = ANY(:ids)");
    let changed = change.list("ids", Column::Uuid(odd.clone())).execute(app.db.write());
    assert_eq!(changed.await.expect("changed"), 3);
    end_holds(&app, a_minute_ago().minus(HOLD), &odd).await;
    end_holds(&app, a_minute_ago(), &others).await;

    let mut rounds = 1;
    while expiry::expire(&app, LIMIT).await.expect("expired") {
        rounds += 1;
    }
    assert_eq!((count(&app, "FAILED").await, count(&app, "ON_HOLD").await), (3, 3));
    assert!(
        (2..=4).contains(&rounds),
        "a full round is followed by another: {rounds}"
    );
}

/// The expiry finds it twice a second. On SQLite `NOT NULL` cannot be lifted.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_cannot_be_read_is_logged_once() {
    const MESSAGE: &str = "left out a row that cannot be read";
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    let odd = held(&app).await;
    end_holds(&app, a_minute_ago().minus(HOLD), &[odd]).await;
    run(&app, "ALTER TABLE orders ALTER total_price DROP NOT NULL").await;
    run(&app, "UPDATE orders SET total_price = NULL").await;

    let work = Shop::work(&backend);
    work.wait_for(MESSAGE);
    for expired in 1..=3 {
        let other = held(&app).await;
        end_holds(&app, a_minute_ago(), &[other]).await;
        eventually("the other one has expired, and the odd one was read again", || async {
            (count(&app, "FAILED").await == expired).then_some(())
        })
        .await;
    }
    assert_eq!(work.log().matches(MESSAGE).count(), 1, "{}", work.log());
}
