//! Deleting old orders: what they sold stays accounted for, nothing young or open goes, and payments are never lost to it.

mod archive;
mod races;

use std::time::Duration;

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use shop::{
    app::App,
    cli::prune::{self, OldRows},
    db::{
        self,
        sql::{Column, sql},
    },
    domain::{
        Caller, Error, OrderId, idempotency,
        ids::first_id_at,
        ledger::Checked,
        orders::{self, NewOrder, OldOrders},
        settlement,
    },
    entities::Timestamp,
    tasks::auditor,
};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{
    Backend, Client, Shop, all_settled, count, ledger_report, level_of, new_order, run_to_end, unless_busy,
};

const STOCK: i64 = 1_000;
const HOUR: Duration = Duration::from_hours(1);
/// Processes know the database's time no better than this, since its answers take a while.
const CLOCK_ERROR: Duration = Duration::from_millis(250);

/// A moment after all that has happened, and before all that will. Ids begin with milliseconds.
async fn a_moment(app: &App) -> Timestamp {
    sleep(CLOCK_ERROR).await;
    let moment = db::now(app.db.read()).await.expect("the time");
    sleep(CLOCK_ERROR).await;
    moment
}

async fn check(app: &App) -> Checked {
    let checked = auditor::check_if_due(app, Duration::ZERO).await;
    checked.expect("the ledger can be checked").expect("nobody else checks")
}

/// An order that is paid, and PAID or FAILED.
async fn settled(client: &Client, lines: &[(i64, i64)]) -> String {
    let id = client.order(lines).await;
    client.pay(&id).await;
    client.settled(&id).await;
    id
}

async fn refund(client: &Client, order: &str, key: &str) -> u16 {
    let items = json!([{ "product_id": 1, "quantity": 1, "restock": true }]);
    let refund = json!({ "items": items, "reason": "returned" });
    let path = format!("/orders/{order}/refunds");
    client.post_with_key(&path, key, &refund).await.status
}

async fn status_of(client: &Client, order: &str) -> u16 {
    client.get(&format!("/orders/{order}")).await.status
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn old_orders_are_deleted_and_every_unit_stays_accounted_for(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, STOCK), (100, STOCK)]).await;
    // No check but those of the test.
    let never = [("SHOP_BOOKS_EVERY_SECONDS", "0")];
    let shop = Shop::start(&backend, &["serve"], &never);
    let _worker = (!backend.is_embedded()).then(|| Shop::start(&backend, &["work"], &never));
    let client = shop.client();
    let paid = settled(&client, &[(1, 10), (2, 5)]).await;
    let refunded = settled(&client, &[(1, 20)]).await;
    assert_eq!(refund(&client, &refunded, "early").await, 201);
    let refunded_late = settled(&client, &[(1, 40)]).await;
    let failed = settled(&client, &[(1, 2 * STOCK)]).await;
    let unpaid = client.order(&[(1, 1)]).await;
    let held = client.held_order(&[(1, 3)]).await;
    assert!(check(&app).await.report.is_clean());

    let cutoff = a_moment(&app).await;
    assert_eq!(refund(&client, &refunded_late, "late").await, 201);
    let young = settled(&client, &[(1, 80)]).await;
    let level = level_of(&app, 1).await;
    assert_eq!(level, (STOCK - 10 - 19 - 39 - 80, 3));

    let old = OldRows {
        orders: OldOrders {
            paid: 2,
            failed: 1,
            unpaid: 1,
        },
        keys: 1,
    };
    let counted = OldRows {
        orders: orders::count_old(app.db.read(), cutoff).await.expect("counted"),
        keys: idempotency::count_old(app.db.read(), cutoff).await.expect("counted"),
    };
    assert_eq!(counted, old);
    for expected in [old, OldRows::default()] {
        let now = Timestamp::now();
        assert_eq!(prune::delete(&app.db, now, cutoff).await.expect("deleted"), expected);
    }

    // A process that has cached none of them.
    let fresh = Shop::serve(&backend);
    let client = fresh.client();
    assert_eq!(level_of(&app, 1).await, level);
    let movements = client.get("/products/2/movements").await;
    assert_eq!(movements.body["items"][0]["delta"], -5, "{movements:?}");
    for (order, status) in [(&refunded_late, 200), (&held, 200), (&young, 200), (&unpaid, 404)] {
        assert_eq!(status_of(&client, order).await, status);
    }
    for order in [&paid, &refunded, &failed] {
        assert_eq!(refund(&client, order, "another").await, 404);
    }
    client.pay(&held).await;
    assert_eq!(client.settled(&held).await["status"], "PAID");
    let (first, second) = (check(&app).await, check(&app).await);
    assert!(first.report.is_clean() && first.is_full, "{first:?}");
    assert!(second.report.is_clean() && !second.is_full, "{second:?}");
    let report = ledger_report(&app).await;
    assert!(report.is_clean() && report.orders == 3, "{report:?}");
}

/// Makes orders and pays them. Answers how many payments were accepted, and of how many that is not known: the shop was too
/// busy to answer in time.
async fn order_and_pay(client: Client, orders: usize) -> (u64, u64) {
    let order = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] });
    let (mut accepted, mut unknown) = (0, 0);
    for _ in 0..orders {
        let made = unless_busy(|| client.post("/orders", &order)).await;
        let id = made.body["order_id"].as_str().expect("an id");
        match client.pay(id).await.status {
            200 | 202 => accepted += 1,
            503 => unknown += 1,
            // It was deleted before it was paid.
            status => assert_eq!(status, 404),
        }
    }
    (accepted, unknown)
}

/// Orders count as old as soon as they are settled, so that customers, workers and the command meet at the same rows.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_deleted_while_others_are_paid_and_no_payment_is_lost(
    #[values("embedded", "servers")] backend: &str,
) {
    const CUSTOMERS: usize = 8;
    const ORDERS: usize = 40;
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, STOCK)]).await;
    let often = [("SHOP_BOOKS_EVERY_SECONDS", "1")];
    let shop = Shop::start(&backend, &["serve"], &often);
    let worker = (!backend.is_embedded()).then(|| Shop::start(&backend, &["work"], &often));

    let mut customers = JoinSet::new();
    for _ in 0..CUSTOMERS {
        customers.spawn(order_and_pay(shop.client(), ORDERS));
    }
    let (mut known, mut unknown, mut deleted) = (0, 0, 0);
    while !customers.is_empty() {
        let cutoff = a_moment(&app).await;
        deleted += prune::delete(&app.db, cutoff, cutoff)
            .await
            .expect("deleted")
            .orders
            .paid;
        let report = ledger_report(&app).await;
        assert!(report.is_clean(), "{report:?}");
        while let Some(ended) = customers.try_join_next() {
            let paid = ended.expect("every answer is as expected");
            (known, unknown) = (known + paid.0, unknown + paid.1);
        }
    }

    all_settled(&app).await;
    let cutoff = a_moment(&app).await;
    deleted += prune::delete(&app.db, cutoff, cutoff)
        .await
        .expect("deleted")
        .orders
        .paid;
    assert_eq!(count(&app, "PAID").await, 0);
    assert!(
        (known..=known + unknown).contains(&deleted),
        "{known} {unknown} {deleted}"
    );
    assert_eq!(level_of(&app, 1).await, (STOCK - deleted.cast_signed(), 0));
    let report = ledger_report(&app).await;
    assert!(report.is_clean(), "{report:?}");
    // Nor has any of the periodic checks meanwhile.
    for process in [Some(shop), worker].iter().flatten() {
        assert!(!process.log().contains("found discrepancies"), "{}", process.log());
    }
}

/// `count` orders of one unit of product 1, made, paid and settled at `at`.
async fn settled_at(app: &App, at: Timestamp, count: u128) -> Vec<OrderId> {
    let new = |number: u128| NewOrder {
        id: uuid::Uuid::from_u128(first_id_at(at).as_u128() + number),
        created_at: at,
        ..new_order(&[(1, 1)])
    };

    let new: Vec<NewOrder> = (0..count).map(new).collect();
    let ids: Vec<_> = new.iter().map(|order| order.id).collect();
    let (new, all) = (&new, &ids);
    let settled = app.db.transaction(|txn| async move {
        orders::create(&txn, new).await?;
        let payments: Vec<_> = all.iter().map(|id| (Caller::Admin, *id).into()).collect();
        orders::accept_payments(&txn, at, &payments).await?;
        settlement::settle(&txn, at, all, 0).await
    });
    let settled: Result<_, Error> = settled.await;
    assert_eq!(settled.expect("settled").settled.len(), ids.len());
    ids
}

/// A newer version that runs beside this one has written it, and knows whether it is settled.
#[rstest]
#[tokio::test]
async fn an_order_whose_status_this_version_does_not_know_is_never_old(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, STOCK)]).await;
    let now = Timestamp::now();
    let [settled, unpaid, _] = settled_at(&app, now.minus(HOUR * 2), 3).await[..] else {
        panic!("three orders");
    };
    let lifted = if backend.is_embedded() {
        "PRAGMA ignore_check_constraints = ON"
    } else {
        "ALTER TABLE orders DROP CONSTRAINT orders_status_is_known, DROP CONSTRAINT orders_status_fits_the_rest"
    };
    app.db.write().execute_unprepared(lifted).await.expect(lifted);
    for (change, order) in [
        ("UPDATE orders SET status = 'ON_HOLD' WHERE id = ANY(:ids)", settled),
        (
            "UPDATE orders SET status = 'ON_HOLD', settled_at = NULL, accepted_at = NULL WHERE id = ANY(:ids)",
            unpaid,
        ),
    ] {
        let change = sql(change).list("ids", Column::Uuid(vec![order]));
        assert_eq!(change.execute(app.db.write()).await.expect("changed"), 1);
    }

    let old = OldOrders {
        paid: 1,
        ..OldOrders::default()
    };
    let cutoff = now.minus(HOUR);
    assert_eq!(orders::count_old(app.db.read(), cutoff).await.expect("counted"), old);
    let deleted = prune::delete(&app.db, now, cutoff).await.expect("deleted");
    assert_eq!(deleted.orders, old);
    let left: Vec<OrderId> = sql("SELECT id FROM orders ORDER BY id")
        .scalars(app.db.read())
        .await
        .expect("read");
    assert_eq!(left, [settled, unpaid]);
}

/// Nothing that was sold is deleted, so the totals are what they were.
#[rstest]
#[tokio::test]
async fn deleting_orders_that_have_sold_nothing_leaves_a_check_to_go_on_from(
    #[values("embedded", "servers")] backend: &str,
) {
    let app = Backend::named(backend).stock(&[(100, 0)]).await;
    let now = Timestamp::now();
    settled_at(&app, now.minus(HOUR * 2), 3).await;
    assert!(check(&app).await.report.is_clean());

    let deleted = prune::delete(&app.db, now, now.minus(HOUR)).await.expect("deleted");
    assert_eq!(deleted.orders.failed, 3, "{deleted:?}");

    let next = check(&app).await;
    assert!(!next.is_full && next.report.is_clean(), "{next:?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_it_would_delete_and_wants_a_yes(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10 * STOCK)]).await;
    let now = db::now(app.db.read()).await.expect("the time");
    let day = |days: u64| now.minus(Duration::from_hours(24 * days));
    // More than one transaction deletes.
    settled_at(&app, day(401), 2_100).await;
    settled_at(&app, day(399), 30).await;
    let old = "2100 PAID, 0 FAILED and 0 unpaid orders, and 0 idempotency keys of administrators";

    let prune = |more: &[&str]| {
        let output = run_to_end(&backend, &[&["prune", "--older-than", "400d"], more].concat(), &[]);
        let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stdout, stderr)
    };
    assert_eq!(prune(&["--dry-run"]).1, format!("{old} would be deleted"));
    let (code, _, stderr) = prune(&[]);
    assert!(
        code == Some(2) && stderr.contains(old) && stderr.contains("--yes"),
        "{stderr}"
    );
    assert_eq!(count(&app, "PAID").await, 2_130);

    assert_eq!(prune(&["--yes"]).1, format!("deleted {old}"));
    assert_eq!(count(&app, "PAID").await, 30);
    assert_eq!(level_of(&app, 1).await, (10 * STOCK - 2_130, 0));
    assert!(run_to_end(&backend, &["verify"], &[]).status.success());
    let left = "SELECT 1 FROM order_items WHERE order_id NOT IN (SELECT id FROM orders)";
    let left = app.db.read().query_all_raw(sea_orm::Statement::from_string(
        app.db.read().get_database_backend(),
        left,
    ));
    assert!(left.await.expect("read").is_empty());
}
