//! The ledger check: `shop verify` finds discrepancies, and reports nothing else.

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::Value;

use crate::{
    docs::pages::{blocks, read},
    support::{Backend, Shop, accepted, all_settled, eventually, run_to_end},
};

#[rstest]
#[tokio::test]
async fn the_ledger_check_finds_tampering(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (100, 10)]).await;
    let shop = Shop::serve(&backend);
    let workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let (paid, failed, waiting) = (
        client.order(&[(1, 4)]).await,
        client.order(&[(2, 11)]).await,
        client.order(&[(2, 1)]).await,
    );

    for id in [&paid, &failed] {
        client.pay(id).await;
        client.settled(id).await;
    }
    // They would settle an order that is made to look as if it had waited for long.
    drop((shop, workers));

    let verify = || run_to_end(&backend, &["verify"], &[]);
    assert!(verify().status.success());

    for (tamper, restore, expected) in tampering(&backend, [&paid, &failed, &waiting]) {
        app.db.write().execute_unprepared(&tamper).await.expect("tampers");
        assert_one_discrepancy(&backend, expected);
        app.db.write().execute_unprepared(&restore).await.expect("restores");
    }

    assert!(verify().status.success());
}

/// By the very statements of the runbook, which are about product 7.
#[rstest]
#[case("stock = stock + 3", "+3", "runbook-units-are-there")]
#[case("stock = stock + 3", "+3", "runbook-units-are-not-there")]
#[case("held = held + 2", "+2", "runbook-holds")]
#[tokio::test]
async fn the_runbook_mends_what_the_check_has_found(
    #[values("embedded", "servers")] backend: &str,
    #[case] tampering: &str,
    #[case] off_by: &str,
    #[case] repair: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10); 7]).await;
    let page = blocks(&read("docs/operations.md"));
    let repair = page.iter().find(|block| block.is(repair)).expect("the block");

    let tamper = format!("UPDATE products SET {tampering} WHERE id = 7");
    app.db.write().execute_unprepared(&tamper).await.expect("tampers");
    let found = run_to_end(&backend, &["verify"], &[]);
    assert_eq!(found.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(printed.contains(off_by), "{printed}");

    app.db.write().execute_unprepared(&repair.body).await.expect("repairs");
    let mended = run_to_end(&backend, &["verify"], &[]);
    assert!(mended.status.success(), "{}", String::from_utf8_lossy(&mended.stdout));
}

/// What somebody may do to the database by hand, how to undo it, and what the check then names.
fn tampering<'a>(backend: &Backend, [paid, failed, waiting]: [&'a str; 3]) -> [(String, String, &'a str); 6] {
    let id_of = |id: &str| {
        if backend.is_embedded() {
            format!("x'{}'", id.replace('-', ""))
        } else {
            format!("'{id}'")
        }
    };
    let in_the_future = if backend.is_embedded() {
        "4102444800000000"
    } else {
        "'2100-01-01'"
    };
    let long_ago = if backend.is_embedded() { "1" } else { "'2020-01-01'" };

    [
        (
            "UPDATE products SET held = held + 2 WHERE id = 2".to_owned(),
            "UPDATE products SET held = held - 2 WHERE id = 2".to_owned(),
            "+2",
        ),
        (
            format!(
                "UPDATE orders SET expires_at = {in_the_future} WHERE id = {}",
                id_of(waiting)
            ),
            format!("UPDATE orders SET expires_at = NULL WHERE id = {}", id_of(waiting)),
            "-1",
        ),
        (
            "UPDATE products SET stock = stock + 1 WHERE id = 1".to_owned(),
            "UPDATE products SET stock = stock - 1 WHERE id = 1".to_owned(),
            "+1",
        ),
        (
            format!("UPDATE orders SET total_price = 1 WHERE id = {}", id_of(paid)),
            format!("UPDATE orders SET total_price = 400 WHERE id = {}", id_of(paid)),
            paid,
        ),
        (
            format!(
                "UPDATE orders SET failure = '{{\"reason\": \"\"}}' WHERE id = {}",
                id_of(failed)
            ),
            format!(
                "UPDATE orders SET failure = '{{\"reason\": \"insufficient_stock\", \"lines\": []}}' WHERE id = {}",
                id_of(failed)
            ),
            failed,
        ),
        (
            format!(
                "UPDATE orders SET accepted_at = {long_ago} WHERE id = {}",
                id_of(waiting)
            ),
            format!("UPDATE orders SET accepted_at = NULL WHERE id = {}", id_of(waiting)),
            waiting,
        ),
    ]
}

/// Asserts that `shop verify` fails with one discrepancy of the three orders, and prints `expected`.
fn assert_one_discrepancy(backend: &Backend, expected: &str) {
    let table = run_to_end(backend, &["verify"], &[]);
    assert_eq!(table.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(printed.contains(expected), "{expected}: {printed}");

    let json = run_to_end(backend, &["verify", "--json"], &[]);
    assert_eq!(json.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["ok"], &json["orders"]), (&false.into(), &3.into()));

    let found = [
        "stock_discrepancies",
        "hold_discrepancies",
        "order_discrepancies",
        "overdue",
    ]
    .map(|list| json[list].as_array().expect("a list").len());
    assert_eq!(found.iter().sum::<usize>(), 1, "{json}");
}

#[rstest]
#[tokio::test]
async fn the_metrics_of_the_ledger_check_show_discrepancies(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let role = if backend.is_embedded() { "serve" } else { "work" };
    let shop = Shop::start(&backend, &[role], &[("SHOP_BOOKS_EVERY_SECONDS", "1")]);
    let management = shop.management();

    let shows = |sample: &'static str| {
        let management = management.clone();
        async move {
            eventually(sample, || async {
                let metrics = management.get("/metrics").await.body;
                let metrics = metrics.as_str().expect("text");
                metrics.lines().any(|line| line == sample).then_some(())
            })
            .await;
        }
    };

    shows("shop_ledger_stock_discrepancies 0").await;
    for (change, sample) in [
        (
            "UPDATE products SET stock = stock + 1",
            "shop_ledger_stock_discrepancies 1",
        ),
        (
            "UPDATE products SET stock = stock - 1",
            "shop_ledger_stock_discrepancies 0",
        ),
    ] {
        app.db.write().execute_unprepared(change).await.expect("changes");
        shows(sample).await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_balances_at_any_moment_while_orders_are_settled(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 500), (100, 500)]).await;
    accepted(&app, 1_500, |_| vec![(1, 1), (2, 1)]).await;
    let _shop = Shop::start(&backend, &["serve"], &[("SHOP_BATCH_MAX", "10")]);
    let _workers: Vec<Shop> = (0..if backend.is_embedded() { 0 } else { 2 })
        .map(|_| Shop::start(&backend, &["work"], &[("SHOP_BATCH_MAX", "10")]))
        .collect();

    for _ in 0..10 {
        let found = run_to_end(&backend, &["verify"], &[]);
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
    }

    all_settled(&app).await;
    assert!(run_to_end(&backend, &["verify"], &[]).status.success());
}

#[tokio::test]
async fn seeding_twice_adds_nothing_and_the_ledger_balances() {
    let backend = Backend::embedded();
    backend.app().await;
    let seed = || {
        let output = run_to_end(
            &backend,
            &["seed", "--products", "30", "--orders", "600", "--seed", "5"],
            &[],
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(seed(), "added 30 products and 600 orders");
    assert_eq!(seed(), "added 0 products and 0 orders");
    let verified = run_to_end(&backend, &["verify"], &[]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}
