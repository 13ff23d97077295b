//! The periodic check of the ledger: it goes on from the last clean check, in one process at a time, and neither misses an
//! order nor cries wolf, whenever transactions commit.

mod processes;

use std::{fs, sync::OnceLock, time::Duration};

use futures_util::future::join_all;
use rstest::rstest;
use sea_orm::{ConnectionTrait as _, Statement, TransactionTrait as _};
use shop::{
    app::App,
    db::in_flight,
    domain::{
        Error, OrderId,
        catalog::{self, Origin, StockChange},
        ledger::Checked,
        settlement,
    },
    entities::Timestamp,
    tasks::auditor,
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    servers::{self, Postgres},
    support::{Backend, Client, Shop, accepted, eventually, ledger_report, run_to_end},
};

const LOW_STOCK_AT: i64 = 0;
/// One check at the start, and none for the rest of the test.
const ONE_CHECK: (&str, &str) = ("SHOP_BOOKS_EVERY_SECONDS", "3600");

/// A back end for a test that counts what each check reads. That hangs on all transactions of a PostgreSQL server, so the
/// server is not shared with other tests.
fn undisturbed(name: &str) -> Backend {
    static POSTGRES: OnceLock<Postgres> = OnceLock::new();
    let mut backend = Backend::named(name);
    if !backend.is_embedded() {
        backend.database_url = POSTGRES.get_or_init(Postgres::start).create_database();
    }
    backend
}

/// A periodic check, made now.
async fn check(app: &App) -> Checked {
    let checked = auditor::check_if_due(app, Duration::ZERO).await;
    checked.expect("the ledger can be checked").expect("nobody else checks")
}

async fn settle(app: &App, ids: &[OrderId]) {
    let settled = app
        .db
        .transaction(|txn| async move { settlement::settle(&txn, Timestamp::now(), ids, LOW_STOCK_AT).await });
    let settled: Result<_, Error> = settled.await;
    assert_eq!(settled.expect("settled").settled.len(), ids.len());
}

/// `count` orders of one line of product 1 each, settled.
async fn settled(app: &App, count: usize) -> Vec<OrderId> {
    let ids = accepted(app, count, |_| vec![(1, 2)]).await;
    settle(app, &ids).await;
    ids
}

async fn run(app: &App, sql: &str) {
    app.db.write().execute_unprepared(sql).await.expect(sql);
}

async fn number(app: &App, select: &str) -> i64 {
    let statement = Statement::from_string(app.db.read().get_database_backend(), select);
    let row = app.db.read().query_one_raw(statement).await.expect(select);
    row.expect("a row").try_get_by_index(0).expect("a number")
}

/// How many products have totals that are not what the tables say. Right only when no order has been settled since.
async fn wrong_totals(app: &App) -> i64 {
    let wrong = "
        SELECT COUNT(*)
          FROM products p
          LEFT JOIN ledger_totals t ON t.product_id = p.id
         WHERE COALESCE(t.put_in, 0) <> (SELECT COALESCE(SUM(delta), 0) FROM stock_movements m WHERE m.product_id = p.id)
            OR COALESCE(t.sold, 0) <> (SELECT COALESCE(SUM(i.quantity), 0)
                                         FROM order_items i
                                         JOIN orders o ON o.id = i.order_id
                                        WHERE i.product_id = p.id AND o.status = 'PAID')";
    number(app, wrong).await
}

#[rstest]
#[tokio::test]
async fn a_check_reads_only_what_was_settled_since_the_last_clean_one(#[values("embedded", "servers")] backend: &str) {
    let app = undisturbed(backend).stock(&[(100, 1_000), (100, 1_000)]).await;
    settled(&app, 40).await;

    let first = check(&app).await;
    assert!(first.is_full && first.report.is_clean(), "{first:?}");
    assert_eq!(wrong_totals(&app).await, 0);

    for settled_since in [15, 0, 5] {
        settled(&app, settled_since).await;
        let next = check(&app).await;
        assert!(!next.is_full && next.report.is_clean(), "{next:?}");
        assert_eq!(next.report.orders, i64::try_from(settled_since).expect("few"));
        assert_eq!(wrong_totals(&app).await, 0);
    }
}

/// Each of these changes what the check reads: the stock of any product, and what was settled or moved since the last check.
#[rstest]
#[case::stock("UPDATE products SET stock = stock + 1 WHERE id = 2")]
#[case::quantity("UPDATE order_items SET quantity = 3 WHERE order_id IN (SELECT id FROM orders WHERE user_id = 8)")]
#[case::price("UPDATE order_items SET unit_price = 99 WHERE order_id IN (SELECT id FROM orders WHERE user_id = 8)")]
#[case::line("DELETE FROM order_items WHERE order_id IN (SELECT id FROM orders WHERE user_id = 8)")]
#[case::order(
    "DELETE FROM order_items WHERE order_id IN (SELECT id FROM orders WHERE user_id = 8); DELETE FROM orders WHERE user_id = 8"
)]
#[case::total("UPDATE orders SET total_price = 1 WHERE user_id = 8")]
#[case::reason("UPDATE orders SET failure = '{\"reason\": \"\"}' WHERE status = 'FAILED'")]
#[case::sold_by_hand("UPDATE orders SET status = 'PAID', settled_at = accepted_at WHERE status = 'PENDING'")]
#[case::refund(
    "INSERT INTO refunds (id, order_id, amount, currency, reason) \
     SELECT id, id, 201, 'USD', 'more than was paid' FROM orders WHERE user_id = 8"
)]
#[case::movement("UPDATE stock_movements SET delta = 11 WHERE reason = 'delivery'")]
#[case::movement_lost("DELETE FROM stock_movements WHERE reason = 'delivery'")]
#[tokio::test]
async fn a_periodic_check_finds_tampering(#[case] tamper: &str, #[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 1_000), (100, 1_000)]).await;
    settled(&app, 3).await;
    check(&app).await;

    // Since then: an order that is PAID, one that FAILED, one that waits, and a delivery.
    let ids = accepted(&app, 1, |_| vec![(1, 2)]).await;
    run(&app, "UPDATE orders SET user_id = 8 WHERE status = 'PENDING'").await;
    settle(&app, &ids).await;
    settle(&app, &accepted(&app, 1, |_| vec![(1, 5_000)]).await).await;
    accepted(&app, 1, |_| vec![(1, 2)]).await;
    restock(&app, 1).await;
    run(&app, tamper).await;

    let checked = check(&app).await;
    assert!(!checked.report.adds_up(), "{checked:?}");
    // It is found again and again, until it is put right.
    assert!(!check(&app).await.report.adds_up());
    assert!(!ledger_report(&app).await.adds_up());
}

async fn restock(app: &App, product_id: i64) {
    let (change, origin) = (&StockChange::by(product_id, 10, "delivery"), &Origin::default());
    let changed = app.db.transaction(|txn| async move {
        catalog::change_stock(&txn, Timestamp::now(), change, origin, LOW_STOCK_AT).await
    });
    let changed: Result<_, Error> = changed.await;
    changed.expect("restocked");
}

#[rstest]
#[tokio::test]
async fn a_check_is_clean_again_once_everything_is_put_right(#[values("embedded", "servers")] backend: &str) {
    let app = undisturbed(backend).stock(&[(100, 1_000)]).await;
    check(&app).await;
    settled(&app, 3).await;

    run(&app, "UPDATE products SET stock = stock + 1").await;
    let found = check(&app).await;
    assert!(found.is_full && !found.report.adds_up(), "{found:?}");
    settled(&app, 2).await;
    run(&app, "UPDATE products SET stock = stock - 1").await;

    let repaired = check(&app).await;
    assert!(repaired.is_full && repaired.report.is_clean(), "{repaired:?}");
    settled(&app, 4).await;
    let next = check(&app).await;
    assert!(!next.is_full && next.report.is_clean(), "{next:?}");
    assert_eq!(next.report.orders, 4);
}

/// What the documentation says that only `shop verify` finds.
#[rstest]
#[tokio::test]
async fn tampering_with_what_was_checked_before_is_found_by_verify_alone(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 1_000)]).await;
    settled(&app, 3).await;
    check(&app).await;

    run(&app, "UPDATE orders SET total_price = 1").await;

    assert!(check(&app).await.report.is_clean());
    assert_eq!(run_to_end(&backend, &["verify"], &[]).status.code(), Some(1));
}

/// A movement that somebody inserts under an id that was left out long ago is not among those that are new.
#[rstest]
#[tokio::test]
async fn what_a_periodic_check_cannot_explain_is_decided_by_a_full_one(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 1_000)]).await;
    check(&app).await;

    run(&app, "UPDATE products SET stock = stock + 5").await;
    run(
        &app,
        "INSERT INTO stock_movements (id, product_id, delta, reason) VALUES (-1, 1, 5, 'found')",
    )
    .await;

    let decided = check(&app).await;
    assert!(decided.is_full && decided.report.is_clean(), "{decided:?}");
    let next = check(&app).await;
    assert!(!next.is_full && next.report.is_clean(), "{next:?}");
}

/// As when so much has changed that reading it takes too long: the next time it would be more.
#[tokio::test]
async fn when_what_has_changed_cannot_be_read_in_time_everything_is() {
    let app = Backend::servers().stock(&[(100, 1_000)]).await;
    settled(&app, 3).await;
    check(&app).await;

    for statement in [
        "CREATE FUNCTION takes_too_long() RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
             IF current_setting('transaction_read_only')::boolean THEN RAISE query_canceled; END IF;
             RETURN false;
         END $$",
        "ALTER TABLE ledger_totals RENAME TO stored_totals",
        "CREATE VIEW ledger_totals AS SELECT * FROM stored_totals WHERE NOT takes_too_long()",
    ] {
        run(&app, statement).await;
    }
    settled(&app, 2).await;

    let checked = check(&app).await;
    assert!(checked.is_full && checked.report.is_clean(), "{checked:?}");
    assert_eq!(checked.report.orders, 5);
}

/// Transactions that have written and not committed, while checks go on and later transactions commit.
#[tokio::test]
async fn what_commits_late_is_neither_missed_nor_an_alarm() {
    let app = Backend::servers()
        .stock(&[(100, 1_000), (100, 1_000), (100, 1_000)])
        .await;
    check(&app).await;
    let late = accepted(&app, 1, |_| vec![(2, 2)]).await;

    let settling = app.db.write().begin().await.expect("begun");
    settlement::settle(&settling, Timestamp::now(), &late, LOW_STOCK_AT)
        .await
        .expect("settled");
    let restocking = app.db.write().begin().await.expect("begun");
    let (change, origin) = (StockChange::by(3, 10, "delivery"), Origin::default());
    catalog::change_stock(&restocking, Timestamp::now(), &change, &origin, LOW_STOCK_AT)
        .await
        .expect("restocked");

    for _ in 0..2 {
        settled(&app, 2).await;
        restock(&app, 1).await;
        let beside = check(&app).await;
        assert!(!beside.is_full && beside.report.is_clean(), "{beside:?}");
    }
    settling.commit().await.expect("committed");
    restocking.commit().await.expect("committed");

    // Four that were settled in time, and the late one; then nothing is left to read, and nothing is missing.
    for orders in [5, 0] {
        let after = check(&app).await;
        assert!(!after.is_full && after.report.is_clean(), "{after:?}");
        assert_eq!(after.report.orders, orders);
    }
    assert_eq!(wrong_totals(&app).await, 0);
}

/// Also of those that began after the last one that has ended.
#[tokio::test]
async fn a_mark_lies_behind_every_transaction_that_is_in_flight() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let app = backend.stock(&[(100, 1)]).await;

    let settling = app.db.write().begin().await.expect("begun");
    settling
        .execute_unprepared("UPDATE products SET stock = stock")
        .await
        .expect("written");
    let mark = in_flight::next_id(app.db.write()).await.expect("a mark");
    assert!(!in_flight::all_ended_below(app.db.write(), mark).await.expect("known"));
    settling.commit().await.expect("committed");
    assert!(in_flight::all_ended_below(app.db.write(), mark).await.expect("known"));
}

/// Its id says nothing of when it commits, and nothing of its day either: clocks differ.
#[tokio::test]
async fn a_refund_that_commits_late_is_checked() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let app = backend.stock(&[(100, 1_000)]).await;
    settled(&app, 1).await;
    check(&app).await;

    let refunding = app.db.write().begin().await.expect("begun");
    for refund in [
        "SELECT id FROM orders FOR NO KEY UPDATE",
        "INSERT INTO refunds (id, order_id, amount, currency, reason) \
         SELECT '01000000-0000-7000-8000-000000000000', id, 201, 'USD', 'more than was paid' FROM orders",
    ] {
        refunding.execute_unprepared(refund).await.expect(refund);
    }
    for _ in 0..2 {
        let beside = check(&app).await;
        assert!(!beside.is_full && beside.report.is_clean(), "{beside:?}");
    }
    refunding.commit().await.expect("committed");

    assert!(!check(&app).await.report.adds_up());
}

/// Several settle and restock at once, and take their time to commit, while one check follows the other.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_check_is_clean_and_every_order_counts_once(#[values("embedded", "servers")] backend: &str) {
    const SELLERS: i64 = 4;
    let app = undisturbed(backend).stock(&[(100, 100_000); 4]).await;
    check(&app).await;

    let mut selling = JoinSet::new();
    for product_id in 1..=SELLERS {
        let ids = accepted(&app, 150, |_| vec![(product_id, 3)]).await;
        let app = app.clone();
        selling.spawn(async move {
            for (number, batch) in (1..).zip(ids.chunks(5)) {
                let pause = Duration::from_millis(number * 7 % 40);
                let sold = app.db.transaction(|txn| async move {
                    settlement::settle(&txn, Timestamp::now(), batch, LOW_STOCK_AT).await?;
                    sleep(pause).await;
                    Ok::<_, Error>(())
                });
                sold.await.expect("sold");
                restock(&app, product_id).await;
            }
        });
    }

    let (mut checks, mut read) = (0, 0);
    while !selling.is_empty() {
        let checked = check(&app).await;
        assert!(!checked.is_full && checked.report.is_clean(), "{checked:?}");
        read += checked.report.orders;
        checks += 1;
        while let Some(sold) = selling.try_join_next() {
            sold.expect("a seller ends in peace");
        }
    }
    let last = check(&app).await;
    assert!(!last.is_full && last.report.is_clean(), "{last:?}");

    eprintln!("{checks} checks beside {SELLERS} sellers read {read} orders");
    assert_eq!(wrong_totals(&app).await, 0);
    assert!(ledger_report(&app).await.is_clean());
}
