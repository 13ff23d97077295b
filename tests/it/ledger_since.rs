//! The periodic check of the ledger: it goes on from the last clean check, in one process at a time, and neither misses an
//! order nor cries wolf, whenever transactions commit.

use std::{fs, sync::OnceLock, time::Duration};

use futures_util::future::join_all;
use rstest::rstest;
use sea_orm::{ConnectionTrait as _, Statement, TransactionTrait as _};
use shop::{
    app::App,
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

/// The metrics of the ledger check that a process exports; `None` before it has seen a check.
async fn exported(management: &Client) -> Option<Vec<String>> {
    let metrics = management.get("/metrics").await.body;
    let lines = metrics.as_str()?.lines();
    let lines: Vec<String> = lines
        .filter(|line| line.starts_with("shop_ledger_"))
        .map(str::to_owned)
        .collect();
    (!lines.is_empty()).then_some(lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_one_checks_and_both_export_the_same() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 1_000)]).await;
    let workers = [0, 1].map(|_| Shop::start(&backend, &["work"], &[ONE_CHECK]));
    let [one, other] = workers.each_ref().map(Shop::management);
    let both = |sample: &'static str| {
        let (one, other) = (one.clone(), other.clone());
        async move {
            eventually(sample, || async {
                let (one, other) = (exported(&one).await?, exported(&other).await?);
                (one == other && one.iter().any(|line| line == sample)).then_some(())
            })
            .await;
        }
    };

    both("shop_ledger_stock_discrepancies 0").await;
    assert_eq!(number(&app, "SELECT period - 1 FROM ledger").await, 1, "checks");

    run(&app, "UPDATE products SET stock = stock + 1").await;
    run(&app, "UPDATE ledger SET attempted_at = NULL").await;
    both("shop_ledger_stock_discrepancies 1").await;
    assert_eq!(number(&app, "SELECT period - 1 FROM ledger").await, 2, "checks");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_want_to_check_at_once_one_does() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let app = backend.stock(&[(100, 1_000)]).await;
    let every = Duration::from_hours(1);

    for _ in 0..10 {
        run(&app, "UPDATE ledger SET attempted_at = NULL").await;
        let attempts = (0..8).map(|_| auditor::check_if_due(&app, every));
        let checked = join_all(attempts).await;
        let checked = checked.into_iter().filter_map(|checked| checked.expect("no error"));
        assert_eq!(checked.count(), 1);
    }
}

/// What was written before the clock was put back lies far ahead, and would otherwise hold up the checks until then.
#[tokio::test]
async fn a_clock_that_was_put_back_holds_up_no_check() {
    let app = Backend::servers().stock(&[(100, 1_000)]).await;
    for ahead in [
        "UPDATE ledger SET attempted_at = now() + interval '1 day'",
        "UPDATE ledger SET lease_holder = gen_random_uuid(), lease_until = now() + interval '1 day'",
    ] {
        run(&app, ahead).await;
        assert!(check(&app).await.report.is_clean());
    }
}

#[cfg(feature = "failpoints")]
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_in_the_middle_of_a_check_does_not_stop_the_others(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 1_000)]).await;
    let role = if backend.is_embedded() { "serve" } else { "work" };
    let killed = Shop::start(&backend, &[role], &[ONE_CHECK, ("FAILPOINT", "ledgerread:1")]);
    killed.wait_for_end();
    assert_eq!(
        number(&app, "SELECT COUNT(*) FROM ledger WHERE lease_holder IS NOT NULL").await,
        1
    );

    let other = Shop::start(&backend, &[role], &[ONE_CHECK]);
    let management = other.management();
    eventually("the other one has checked", || exported(&management)).await;
    assert_eq!(
        number(
            &app,
            "SELECT COUNT(*) FROM ledger WHERE lease_holder IS NULL AND is_clean"
        )
        .await,
        1
    );
}

/// The holder was only slow: what it has found is not stored over what came after.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_was_taken_over_stores_nothing() {
    let app = Backend::servers().stock(&[(100, 1_000)]).await;
    let locked = app.db.write().begin().await.expect("begun");
    locked
        .execute_unprepared("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("locked");

    let slow = tokio::spawn({
        let app = app.clone();
        async move { auditor::check_if_due(&app, Duration::ZERO).await }
    });
    eventually("it waits for the products", || async {
        let waiting = "
            SELECT COUNT(*)
              FROM pg_locks
             WHERE NOT granted
               AND relation = 'products'::regclass
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        (number(&app, waiting).await == 1).then_some(())
    })
    .await;
    run(&app, "UPDATE ledger SET lease_holder = gen_random_uuid()").await;
    locked.rollback().await.expect("unlocked");

    let refused = slow.await.expect("it ends");
    assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
    assert_eq!(
        number(
            &app,
            "SELECT COUNT(*) FROM ledger WHERE checked_at IS NULL AND NOT is_clean"
        )
        .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_of_the_workers_may_check() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 1_000)]).await;
    let roles = concat!(env!("CARGO_MANIFEST_DIR"), "/config/postgres/roles.sql");
    let roles = fs::read_to_string(roles).expect("the script");
    servers::shared().postgres.psql(&backend.database_url, &roles);
    backend.database_url = backend.database_url.replace("postgres@", "shop_work@");

    let worker = Shop::start(&backend, &["work"], &[("SHOP_BOOKS_EVERY_SECONDS", "1")]);
    let management = worker.management();
    eventually("it has checked", || exported(&management)).await;
    settle(&app, &accepted(&app, 1, |_| vec![(1, 1)]).await).await;
    eventually("it has added up what was sold", || async {
        (number(&app, "SELECT CAST(COALESCE(SUM(sold), 0) AS bigint) FROM ledger_totals").await == 1).then_some(())
    })
    .await;
}
