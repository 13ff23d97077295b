//! The periodic check when several processes, or clocks that are put back, want to make it.

use super::*;

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

/// Here the stored result is gone before it can be shown, so the log is all that an operator has.
#[tokio::test(flavor = "multi_thread")]
async fn discrepancies_are_logged_although_the_gauges_cannot_be_set() {
    let backend = Backend::embedded();
    let app = backend.stock(&[(100, 1_000)]).await;
    run(&app, "UPDATE products SET stock = stock + 1").await;
    let lose_the_result = "CREATE TRIGGER lose AFTER UPDATE OF checked_at ON ledger BEGIN DELETE FROM ledger; END";
    run(&app, lose_the_result).await;

    let shop = Shop::start(&backend, &["serve"], &[ONE_CHECK]);
    shop.wait_for("the ledger check found discrepancies: run `shop verify`");
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
