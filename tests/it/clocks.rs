//! Clocks that are wrong: a machine that was an hour ahead and was set right, and machines that differ.

use std::time::Duration;

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::Value;
use shop::{
    app::App,
    db,
    domain::{
        Caller, Error, OrderId,
        ledger::{self, MAX_AGE},
        orders,
    },
    entities::Timestamp,
};

use crate::support::{Backend, Client, Shop, accepted, all_settled, count, ledger_report, run_to_end};

const HOUR: Duration = Duration::from_hours(1);

/// An order whose payment was accepted by a clock that shows `at`, and whose settle request was lost.
async fn accepted_at(app: &App, client: &Client, at: Timestamp) -> OrderId {
    let id: OrderId = client.order(&[(1, 1)]).await.parse().expect("an id");
    let payments = &[(Caller::Admin, id).into()];
    let accepted = app
        .db
        .transaction(|txn| async move { orders::accept_payments(&txn, at, payments).await });
    let answers: Result<Vec<Result<_, Error>>, Error> = accepted.await;
    assert!(answers.expect("written")[0].is_ok());
    id
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_a_wrong_clock_has_accepted_is_reported_and_settled_at_once(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    // Without a queue and a worker nothing is settled yet.
    let no_queue = [("SHOP_QUEUE_URL", "amqp://guest:guest@127.0.0.1:1/%2f")];
    let shop = Shop::start(&backend, &["serve"], &no_queue);
    let client = shop.client();
    let ahead = accepted_at(&app, &client, Timestamp::now().plus(HOUR)).await;

    let verified = run_to_end(&backend, &["verify", "--max-age", "10s", "--json"], &[]);
    let report: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(report["overdue"][0]["order_id"], ahead.to_string(), "{report}");

    // By hand, or by a program that does not know of it.
    let others = [
        accepted_at(&app, &client, Timestamp::now().minus(HOUR)).await,
        accepted_at(&app, &client, Timestamp::now()).await,
        accepted_at(&app, &client, Timestamp::now()).await,
    ];
    let id_of = |id: OrderId| {
        let simple = id.simple();
        if backend.is_embedded() {
            format!("x'{simple}'")
        } else {
            format!("'{id}'")
        }
    };
    let infinity = if backend.is_embedded() {
        "9223372036854775807"
    } else {
        "'infinity'"
    };
    for (id, time) in [(others[1], infinity), (others[2], "NULL")] {
        let by_hand = format!("UPDATE orders SET notify_after = {time} WHERE id = {}", id_of(id));
        app.db.write().execute_unprepared(&by_hand).await.expect("written");
    }
    drop(shop);

    let _shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    all_settled(&app).await;
    assert_eq!(count(&app, "PAID").await, 4);
    assert!(ledger_report(&app).await.is_clean());
}

/// A sweeper goes by the clock of the database, so that two machines agree.
#[rstest]
#[tokio::test]
async fn a_time_that_is_too_far_ahead_is_due_and_one_of_the_sweepers_own_is_not(
    #[values("embedded", "servers")] backend: &str,
) {
    let app = Backend::named(backend).stock(&[(100, 10)]).await;
    let id = accepted(&app, 1, |_| vec![(1, 1)]).await[0];
    let now = db::now(app.db.read()).await.expect("answered");
    let claim = |at: Timestamp| {
        let app = app.clone();
        async move { orders::claim_due(app.db.write(), at, 10).await.expect("answered") }
    };

    // It is due in five seconds; an hour ago that was too far ahead.
    let nothing: Vec<OrderId> = Vec::new();
    assert_eq!(claim(now).await, nothing);
    assert_eq!(claim(now.minus(HOUR)).await, [id]);
    assert_eq!(claim(now.minus(HOUR)).await, nothing, "it has been claimed");

    for (age, reported) in [(Duration::ZERO, 0), (HOUR, 1)] {
        let found = ledger::overdue(app.db.read(), now.minus(age), MAX_AGE)
            .await
            .expect("read");
        assert_eq!(found.len(), reported);
    }
}
