//! The schema on both databases: migrations up and down, by several processes at once, and what the constraints reject.

use rstest::rstest;
use sea_orm::{ConnectionTrait as _, DbErr};
use serde_json::{Value, json};
use shop::{
    app,
    db::schema::{self, Change, State},
    domain::catalog,
    entities::Timestamp,
};

use crate::support::{Backend, run_to_end};

#[rstest]
#[tokio::test]
async fn every_migration_goes_up_and_down_and_up_again(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.app().await;
    let steps = schema::status(app.db.read()).await.expect("readable");
    assert!(steps.len() >= 2 && steps.iter().all(|step| step.state == State::Applied));

    for left in (0..steps.len()).rev() {
        app::migrate(&app.db, &app.config, Change::Down)
            .await
            .expect("goes down");
        let applied = schema::status(app.db.read()).await.expect("readable");
        assert_eq!(applied.iter().filter(|step| step.state == State::Applied).count(), left);
    }

    app::migrate(&app.db, &app.config, Change::Up)
        .await
        .expect("goes up again");
    app::migrate(&app.db, &app.config, Change::Fresh)
        .await
        .expect("drops and creates everything");
    assert_eq!(schema::pending(app.db.read()).await.expect("readable"), [""; 0]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn migrations_run_by_several_processes_at_once_all_succeed(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| run_to_end(&backend, &["migrate"], &[])))
            .collect();

        for run in runs {
            let output = run.join().expect("runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    });
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn data_is_deleted_only_when_that_is_said_and_the_ledger_stays_right(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5)]).await;
    let (id, now) = if backend.is_embedded() {
        ("x'01'", "1")
    } else {
        ("gen_random_uuid()", "now()")
    };
    for sql in [
        format!(
            "INSERT INTO orders (id, user_id, status, total_price, currency, accepted_at, settled_at) \
             VALUES ({id}, 1, 'PAID', 200, 'USD', {now}, {now})"
        ),
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price) SELECT id, 1, 2, 100 FROM orders"
            .to_owned(),
        "UPDATE products SET stock = 3".to_owned(),
    ] {
        app.db.write().execute_unprepared(&sql).await.expect("written");
    }

    for action in ["down", "fresh"] {
        let refused = run_to_end(&backend, &["migrate", action], &[]);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("1 orders") && stderr.contains("--yes"), "{stderr}");
    }

    for arguments in [&["down", "--yes"][..], &["up"]] {
        let done = run_to_end(&backend, &[&["migrate"], arguments].concat(), &[]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let verified = run_to_end(&backend, &["verify"], &[]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

/// The constraints hold whatever the code does.
#[rstest]
#[tokio::test]
async fn the_database_rejects_what_must_never_be(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5), (100, 5)]).await;
    let (id, now) = if backend.is_embedded() {
        ("randomblob(16)", "1")
    } else {
        ("gen_random_uuid()", "now()")
    };

    let order = |status: &str, accepted_at: &str, settled_at: &str| {
        format!(
            "INSERT INTO orders (id, user_id, status, total_price, currency, accepted_at, settled_at) \
             VALUES ({id}, 1, '{status}', 100, 'USD', {accepted_at}, {settled_at})"
        )
    };

    let run = async |sql: &str| -> Result<(), DbErr> { app.db.write().execute_unprepared(sql).await.map(drop) };

    run(&order("PENDING", "NULL", "NULL")).await.expect("a new order");
    run(&order("PAID", now, now)).await.expect("a paid order");
    run("INSERT INTO order_items (order_id, product_id, quantity, unit_price) SELECT id, 1, 1, 100 FROM orders")
        .await
        .expect("their lines");

    for rejected in [
        "UPDATE products SET stock = -1",
        "UPDATE products SET price = -1",
        "UPDATE products SET currency = 'dollars'",
        "INSERT INTO stock_movements (product_id, delta, reason) VALUES (1, 0, 'nothing')",
        "INSERT INTO stock_movements (product_id, delta, reason) VALUES (99, 1, 'of which product?')",
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price) SELECT id, 2, 0, 1 FROM orders",
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price) SELECT id, 99, 1, 1 FROM orders",
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price) SELECT id, 1, 1, 1 FROM orders",
        "UPDATE order_items SET product_id = 99",
        "DELETE FROM products",
        "DELETE FROM orders",
        "INSERT INTO shop (currency) VALUES ('USD')",
        "UPDATE orders SET created_at = '2026-01-01 noon'",
        &order("SHIPPED", "NULL", "NULL"),
        &order("PAID", "NULL", now),
        &order("PAID", now, "NULL"),
        "UPDATE products SET held = -1",
        "UPDATE products SET held = stock + 1",
        &format!(
            "INSERT INTO orders (id, user_id, status, total_price, currency, accepted_at, settled_at, failure) \
             VALUES ({id}, 1, 'FAILED', 100, 'USD', {now}, {now}, '{{\"reason\": \"cancelled\", \"lines\": []}}')"
        ),
        &order("FAILED", now, now),
        &order("PENDING", now, now),
    ] {
        assert!(run(rejected).await.is_err(), "{rejected}");
    }
}

#[rstest]
#[tokio::test]
async fn a_product_inserted_by_hand_is_in_the_shops_currency_and_its_units_come_from_nowhere(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.app().await;
    let insert = "INSERT INTO products (name, price, stock) VALUES ('Lamp', 4990, 3)";

    app.db.write().execute_unprepared(insert).await.expect("inserted");

    let product = catalog::find(app.db.read(), 1).await.expect("found");
    assert_eq!((product.currency.as_str(), product.stock), ("USD", 3));
    assert!(
        Timestamp::now().age_at(product.created_at).is_zero(),
        "created before now"
    );
    assert!(
        product.created_at.age_at(Timestamp::now()).as_secs() < 60,
        "created just now"
    );

    let verified = run_to_end(&backend, &["verify", "--json"], &[]);
    let report: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(verified.status.code(), Some(1));
    assert_eq!(
        report["stock_discrepancies"],
        json!([{ "product_id": 1, "stock": 3, "put_in": 0, "sold": 0 }])
    );
}

#[rstest]
#[tokio::test]
async fn a_shop_keeps_its_currency_once_something_has_a_price(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let euro = [("SHOP_CURRENCY", "EUR")];

    // While nothing has a price, the configuration decides.
    let seeded_in_dollars = run_to_end(&backend, &["migrate"], &[]);
    assert!(seeded_in_dollars.status.success());
    let seeded = run_to_end(&backend, &["seed", "--products", "2"], &euro);
    assert!(seeded.status.success(), "{}", String::from_utf8_lossy(&seeded.stderr));

    // From then on, another currency is refused, by name.
    for command in ["serve", "seed"] {
        let refused = run_to_end(&backend, &[command], &[("SHOP_BIND", "127.0.0.1:0")]);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains("EUR") && stderr.contains("USD") && stderr.contains("currency"),
            "{stderr}"
        );
    }

    let again = run_to_end(&backend, &["seed", "--products", "2"], &euro);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
}
