//! What really happens to rows is what the model explores. Tests that kill processes and servers record every change of every
//! order's row, and hold each one to the same transition relation: `step` is the model's own file.

use std::{collections::BTreeMap, time::Duration};

use sea_orm::ConnectionTrait as _;
use shop::{
    app::App,
    domain::{Caller, OrderId, orders},
    entities::Timestamp,
};

use crate::support::{Backend, Shop, accepted, all_settled, publish, with_hold};

mod check;
mod record;
#[path = "../../model/step.rs"]
mod step;

pub use record::record;

/// Whether the test itself changes when holds end, as `end_holds` does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HoldEnds {
    AsMade,
    MovedByTheTest,
}

/// Asserts that every change since [`record`] was a step, and returns how many of each kind there were.
pub async fn assert_steps(app: &App, hold_ends: HoldEnds) -> BTreeMap<&'static str, usize> {
    let changes = record::read(app).await;
    let findings = check::check(&changes, hold_ends);
    assert!(
        findings.faults.is_empty(),
        "{:#?}",
        &findings.faults[..findings.faults.len().min(3)]
    );
    eprintln!(
        "{} changes recorded; steps of orders: {:?}",
        changes.len(),
        findings.steps
    );
    findings.steps
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_no_step_is_found() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 50)]).await;
    record(&app).await;

    let workers = Shop::workers(&backend, 1);
    let paid = accepted(&app, 1, |_| vec![(1, 1)]).await[0];
    publish(&app, &[paid]).await;
    all_settled(&app).await;
    // They would expire the hold that ends.
    drop(workers);
    let waits = with_hold(&app, Duration::from_secs(600)).await.expect("held");
    let late = with_hold(&app, Duration::from_millis(1)).await.expect("held");
    let cancels = with_hold(&app, Duration::from_secs(600)).await.expect("held");
    let cancelled = app
        .db
        .transaction(|txn| async move { orders::cancel(&txn, Timestamp::now(), &[(Caller::Admin, cancels)]).await })
        .await;
    assert!(cancelled.expect("written").iter().all(Result::is_ok));
    let steps = assert_steps(&app, HoldEnds::AsMade).await;
    assert_eq!(
        (steps["made"], steps["accepted"], steps["paid"], steps["cancelled"]),
        (4, 1, 1, 1)
    );

    let mut known = 0;
    for (what, statement) in forbidden(paid, cancels, late, waits) {
        app.db.write().execute_unprepared(&statement).await.expect(what);
        let faults = check::check(&record::read(&app).await, HoldEnds::AsMade).faults;
        assert!(faults.len() > known, "{what} is not found");
        known = faults.len();
    }
}

/// Statements that make of an order what is no step of its life.
fn forbidden(paid: OrderId, cancels: OrderId, late: OrderId, waits: OrderId) -> [(&'static str, String); 10] {
    let failure = |reason: &str| format!(r#"failure = '{{"reason": "{reason}", "lines": []}}'"#);
    let settles = "settled_at = now(), updated_at = now()";
    [
        (
            "a payment is taken back",
            format!("UPDATE orders SET settled_at = now() WHERE id = '{paid}'"),
        ),
        (
            "PAID becomes FAILED",
            format!(
                "UPDATE orders SET status = 'FAILED', {}, {settles} WHERE id = '{paid}'",
                failure("insufficient_stock")
            ),
        ),
        (
            "an order is open again",
            format!(
                "UPDATE orders SET status = 'PENDING', failure = NULL, settled_at = NULL, updated_at = now() WHERE id = '{cancels}'"
            ),
        ),
        (
            "a late payment",
            format!(
                "UPDATE orders SET accepted_at = now(), notify_after = now() + interval '5 s', updated_at = now() WHERE id = '{late}'"
            ),
        ),
        (
            "an acceptance is undone",
            format!("UPDATE orders SET accepted_at = NULL, updated_at = now() WHERE id = '{late}'"),
        ),
        (
            "it expires too early",
            format!(
                "UPDATE orders SET status = 'FAILED', {}, {settles} WHERE id = '{waits}'",
                failure("expired")
            ),
        ),
        (
            "another price",
            format!("UPDATE orders SET total_price = 1 WHERE id = '{paid}'"),
        ),
        (
            "another quantity",
            format!("UPDATE order_items SET quantity = 2 WHERE order_id = '{paid}'"),
        ),
        (
            "stock goes without an order",
            "UPDATE products SET stock = stock - 1".to_owned(),
        ),
        (
            "a hold without an order",
            "UPDATE products SET held = held + 1".to_owned(),
        ),
    ]
}

/// The row alone is right: what is missing is what belongs into the same transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_without_what_belongs_to_it_is_found() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 50)]).await;
    record(&app).await;
    let order = with_hold(&app, Duration::from_secs(600)).await.expect("held");

    let cancel = format!(
        r#"UPDATE orders SET status = 'FAILED', failure = '{{"reason": "cancelled", "lines": []}}', settled_at = updated, updated_at = updated
             FROM (SELECT now() AS updated) clock WHERE id = '{order}'"#
    );
    app.db.write().execute_unprepared(&cancel).await.expect("written");

    let findings = check::check(&record::read(&app).await, HoldEnds::AsMade);
    assert_eq!(findings.steps["cancelled"], 1);
    let [units, event] = &*findings.faults else {
        panic!("{findings:#?}")
    };
    assert!(units.contains("its steps call for"), "{units}");
    assert!(event.contains("stored []"), "{event}");
}
