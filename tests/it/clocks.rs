//! Clocks that are wrong: a machine that was an hour ahead and was set right, and machines that differ.

use std::time::Duration;

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use shop::{
    app::App,
    db,
    domain::{
        Caller, Error, OrderId,
        ledger::{self, MAX_AGE},
        orders, outbox,
    },
    entities::Timestamp,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{Backend, Client, Shop, accepted, all_settled, count, eventually, ledger_report, run_to_end};

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

/// A machine's own clock does not matter: here it is an hour behind that of the database.
#[tokio::test(flavor = "multi_thread")]
async fn every_process_goes_by_the_clock_of_the_database() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    for sql in [
        "CREATE SCHEMA ahead",
        "CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
         $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$",
    ] {
        app.db.write().execute_unprepared(sql).await.expect(sql);
    }
    backend.database_url += "?options[search_path]=ahead,pg_catalog,public";
    let (shop, _work) = (Shop::serve(&backend), Shop::work(&backend));
    let client = shop.client();

    let held = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }], "hold_seconds": 600 });
    let order = client.post("/orders", &held).await;
    let created_at = time_of(&order.body["created_at"]);
    assert!(created_at > Timestamp::now().plus(HOUR / 2), "{order:?}");
    assert_eq!(
        time_of(&order.body["expires_at"]),
        created_at.plus(Duration::from_secs(600))
    );

    let cart = client.post("/carts", &json!({})).await;
    let week = Duration::from_hours(7 * 24);
    assert!(time_of(&cart.body["expires_at"]) > created_at.plus(week), "{cart:?}");

    // A worker by another clock would have ended the hold by now.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let id = order.body["order_id"].as_str().expect("an id");
    assert_eq!(client.pay(id).await.status, 202);
    let paid = client.settled(id).await;
    assert_eq!(paid["status"], "PAID");
    for time in ["accepted_at", "settled_at"] {
        assert!(time_of(&paid[time]) > created_at, "{paid}");
    }
}

fn time_of(text: &Value) -> Timestamp {
    let text = text.as_str().expect("a time");
    OffsetDateTime::parse(text, &Rfc3339).expect("RFC 3339").into()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_wrong_clock_has_put_off_is_published(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let in_an_hour = Timestamp::now().plus(HOUR);
    let time = if backend.is_embedded() {
        in_an_hour.0.to_string()
    } else {
        "now() + interval '1 hour'".to_owned()
    };
    let store = format!(
        "INSERT INTO outbox (event_id, type, subject, time, data, publish_after)
         VALUES ('x', 'order.failed', 'x', {time}, '{{}}', {time})"
    );
    app.db.write().execute_unprepared(&store).await.expect("stored");

    let _shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    eventually("the event is published", || async {
        let left = outbox::len(app.db.read()).await.expect("counted");
        (left == 0).then_some(())
    })
    .await;
}
