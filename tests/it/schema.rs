//! The schema, on both databases: up, down, at the same time, and what it refuses to store.

use rstest::rstest;
use sea_orm::{ConnectionTrait as _, DbErr};
use shop::{
    app,
    db::schema::{self, Change, State},
};

use crate::support::{Backend, run_to_end};

#[rstest]
#[tokio::test]
async fn every_step_goes_up_and_down_and_up_again(#[values("embedded", "servers")] backend: &str) {
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
        .expect("starts afresh");
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

/// What no code of ours does, the database refuses by itself.
#[rstest]
#[tokio::test]
async fn the_database_refuses_what_must_never_be(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5)]).await;
    let order = |status: &str, rest: &str| {
        format!(
            "INSERT INTO orders (id, user_id, status, total_price, currency, created_at, notify_attempts, accepted_at, settled_at) \
             VALUES ({}, 1, '{status}', 100, 'USD', 1, 0, {rest})",
            if backend.is_embedded() {
                "randomblob(16)"
            } else {
                "gen_random_uuid()"
            }
        )
    };
    let run = async |sql: &str| -> Result<(), DbErr> { app.db.write().execute_unprepared(sql).await.map(drop) };
    run(&order("PENDING", "NULL, NULL")).await.expect("a fresh order");
    run(&order("PAID", "1, 1")).await.expect("a paid order");
    for refused in [
        "UPDATE products SET stock = -1",
        "UPDATE products SET price = -1",
        "INSERT INTO stock_movements (product_id, delta, reason, created_at) VALUES (1, 0, 'nothing', 1)",
        "INSERT INTO stock_movements (product_id, delta, reason, created_at) VALUES (99, 1, 'whose?', 1)",
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price) SELECT id, 1, 0, 1 FROM orders",
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price) SELECT id, 99, 1, 1 FROM orders",
        &order("SHIPPED", "NULL, NULL"),
        &order("PAID", "NULL, 1"),
        &order("PAID", "1, NULL"),
        &order("FAILED", "1, 1"),
        &order("PENDING", "1, 1"),
    ] {
        assert!(run(refused).await.is_err(), "{refused}");
    }
}
