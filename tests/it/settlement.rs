//! Creating, paying and settling on both databases, with the transactions inside the test: messages that come twice, early,
//! late, or for an order that was not paid.

use rstest::rstest;
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, TransactionTrait as _};
use shop::{
    app::App,
    db::sql::sql,
    domain::{
        Caller, Error, OrderId,
        orders::{self, NewOrder, Payment},
        settlement::{self, Settlement},
    },
    entities::{Timestamp, order::OrderStatus},
};
use uuid::Uuid;

use crate::support::{Backend, eventually, new_order};

async fn create(app: &App, orders: Vec<NewOrder>) -> Vec<Result<orders::Created, Error>> {
    let orders = &orders;
    app.db
        .transaction(|txn| async move { orders::create(&txn, orders).await })
        .await
        .expect("the batch is written")
}

async fn created(app: &App, lines: &[(i64, i64)]) -> OrderId {
    let created = create(app, vec![new_order(lines)]).await.pop().expect("one answer");
    created.expect("it can be created").order.row.id
}

async fn accept(app: &App, now: i64, ids: &[OrderId]) -> Vec<Result<orders::Order, Error>> {
    let ids: Vec<Payment> = ids.iter().map(|id| (Caller::Admin, *id).into()).collect();
    let ids = &ids;
    app.db
        .transaction(|txn| async move { orders::accept_payments(&txn, Timestamp(now), ids).await })
        .await
        .expect("the batch is written")
}

async fn settle(app: &App, ids: &[OrderId]) -> Settlement {
    let settlement: Result<Settlement, Error> = app
        .db
        .transaction(|txn| async move { settlement::settle(&txn, Timestamp::now(), ids, 5).await })
        .await;
    settlement.expect("the batch is written")
}

async fn stock_of(app: &App, product: i64) -> i64 {
    shop::domain::catalog::find(app.db.read(), product)
        .await
        .expect("it exists")
        .stock
}

#[rstest]
#[tokio::test]
async fn an_invalid_order_fails_alone_in_its_batch(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 5), (i64::MAX, 5)]).await;
    let answers = create(
        &app,
        vec![new_order(&[(1, 1)]), new_order(&[(1, 1), (9, 1)]), new_order(&[(2, 2)])],
    )
    .await;
    assert!(matches!(&answers[0], Ok(created) if created.order.row.total_price == 100));
    assert!(matches!(&answers[1], Err(Error::UnknownProducts(lines)) if lines == &[(1, 9)]));
    assert!(matches!(&answers[2], Err(Error::TotalTooLarge)));
}

#[rstest]
#[tokio::test]
async fn a_creation_whose_answer_was_lost_can_be_repeated(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 5)]).await;
    let order = new_order(&[(1, 2)]);
    let first = create(&app, vec![order.clone()]).await.remove(0).expect("created");
    let again = create(&app, vec![order.clone()]).await.remove(0).expect("created");
    assert_eq!(first, again);
    assert!(!again.replayed);
    assert_eq!(
        orders::find(app.db.read(), Caller::Admin, order.id)
            .await
            .expect("found"),
        first.order
    );
}

#[rstest]
#[tokio::test]
async fn a_redelivered_message_settles_once(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 5)]).await;
    let id = created(&app, &[(1, 2)]).await;
    accept(&app, 1, &[id]).await;
    let first = settle(&app, &[id]).await;
    assert_eq!(
        (first.settled[0].newly_settled, first.settled[0].status),
        (true, OrderStatus::Paid)
    );
    let again = settle(&app, &[id]).await;
    assert_eq!(
        (again.settled[0].newly_settled, again.settled[0].status),
        (false, OrderStatus::Paid)
    );
    assert_eq!(again.settled[0].settled_at, first.settled[0].settled_at);
    assert_eq!(stock_of(&app, 1).await, 3);
}

#[rstest]
#[tokio::test]
async fn an_unpaid_order_is_left_alone_and_an_unknown_one_is_reported(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 5)]).await;
    let (unpaid, unknown) = (created(&app, &[(1, 1)]).await, Uuid::now_v7());

    let settlement = settle(&app, &[unpaid, unknown]).await;
    assert_eq!(
        (settlement.not_accepted, settlement.unknown),
        (vec![unpaid], vec![unknown])
    );
    let order = orders::find(app.db.read(), Caller::Admin, unpaid)
        .await
        .expect("still there");
    assert_eq!((order.row.status, order.row.settled_at), (OrderStatus::Pending, None));
    assert_eq!(stock_of(&app, 1).await, 5);
}

#[rstest]
#[tokio::test]
async fn orders_of_a_batch_are_settled_in_the_order_of_their_payments(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 2)]).await;
    let (late, early) = (created(&app, &[(1, 2)]).await, created(&app, &[(1, 2)]).await);
    accept(&app, 2, &[late]).await;
    accept(&app, 1, &[early]).await;

    let settlement = settle(&app, &[late, early]).await;
    let status = |id| {
        settlement
            .settled
            .iter()
            .find(|order| order.id == id)
            .map(|order| order.status)
    };
    assert_eq!(
        (status(early), status(late)),
        (Some(OrderStatus::Paid), Some(OrderStatus::Failed))
    );
}

#[rstest]
#[tokio::test]
async fn accepting_twice_keeps_the_first_acceptance(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 2)]).await;
    let id = created(&app, &[(1, 1)]).await;
    accept(&app, 10, &[id]).await;
    let answers = accept(&app, 20, &[id, id, Uuid::now_v7()]).await;
    assert!(matches!(&answers[0], Ok(order) if order.row.accepted_at == Some(Timestamp(10))));
    assert!(matches!(&answers[1], Ok(order) if order.row.accepted_at == Some(Timestamp(10))));
    assert!(matches!(answers[2], Err(Error::OrderNotFound(_))));
}

#[rstest]
#[tokio::test]
async fn settle_requests_of_a_missed_order_are_resent_at_growing_intervals(
    #[values("embedded", "servers")] backend: &str,
) {
    let app = Backend::named(backend).stock(&[(100, 2)]).await;
    let (id, unpaid) = (created(&app, &[(1, 1)]).await, created(&app, &[(1, 1)]).await);
    accept(&app, 0, &[id]).await;
    let seconds = |seconds: i64| Timestamp(seconds * 1_000_000);

    let mut sent_at = Vec::new();
    for second in 0..200 {
        let overdue = orders::claim_due(app.db.write(), seconds(second), 100)
            .await
            .expect("answered");
        assert!(!overdue.contains(&unpaid));
        if overdue.contains(&id) {
            sent_at.push(second);
        }
    }

    assert_eq!(sent_at, [5, 15, 35, 75, 115, 155, 195]);

    settle(&app, &[id]).await;
    let later = orders::claim_due(app.db.write(), seconds(9_999), 100)
        .await
        .expect("answered");
    assert_eq!(later, Vec::<OrderId>::new());
}

#[rstest]
#[tokio::test]
async fn an_order_whose_settle_request_was_not_published_stays_due(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 2)]).await;
    let (id, other) = (created(&app, &[(1, 1)]).await, created(&app, &[(1, 1)]).await);
    accept(&app, 0, &[id, other]).await;
    let seconds = |seconds: i64| Timestamp(seconds * 1_000_000);
    let claim = |second| orders::claim_due(app.db.write(), seconds(second), 100);

    for second in 5..10 {
        assert!(claim(second).await.expect("answered").contains(&id));
        orders::release_due(app.db.write(), seconds(second), &[id])
            .await
            .expect("released");
    }

    assert_eq!(claim(10).await.expect("answered"), [id]);
    for second in 11..20 {
        let overdue = claim(second).await.expect("answered");
        assert_eq!(overdue.contains(&other), second == 15);
        assert!(
            !overdue.contains(&id),
            "one request was sent, so the next is due ten seconds later"
        );
    }
    assert_eq!(claim(20).await.expect("answered"), [id]);

    settle(&app, &[id]).await;
    orders::release_due(app.db.write(), seconds(30), &[id])
        .await
        .expect("released");
    assert!(!claim(9_999).await.expect("answered").contains(&id), "it is settled");
}

/// Whoever holds the lock is settling the order. On SQLite there is one writer.
#[tokio::test]
async fn releasing_claimed_orders_waits_for_nobody() {
    let app = Backend::servers().stock(&[(100, 2)]).await;
    let ids = [created(&app, &[(1, 1)]).await, created(&app, &[(1, 1)]).await];
    accept(&app, 0, &ids).await;
    let at = Timestamp(5_000_000);
    let claim = || orders::claim_due(app.db.write(), at, 100);
    assert_eq!(claim().await.expect("answered").len(), 2);

    let settling = app.db.write().begin().await.expect("begun");
    lock(&settling, ids[0]).await;
    let releasing = app.db.write().begin().await.expect("begun");
    let wait_for_nobody = "SET LOCAL lock_timeout = 1";
    releasing.execute_unprepared(wait_for_nobody).await.expect("set");
    let released = orders::release_due(&releasing, at, &ids).await;
    released.expect("released");
    releasing.commit().await.expect("committed");
    settling.rollback().await.expect("unlocked");

    assert_eq!(claim().await.expect("answered"), ids[1..]);
}

/// Others who lock several orders do so in that order too, so nobody waits in a circle. On SQLite there is one writer.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_made_due_in_the_order_of_their_ids() {
    let app = Backend::servers().stock(&[(100, 2)]).await;
    let mut ids = [created(&app, &[(1, 1)]).await, created(&app, &[(1, 1)]).await];
    ids.sort_unstable();
    let [first, second] = ids;
    // The table and its index have them the other way round.
    accept(&app, 0, &[second]).await;
    accept(&app, 1, &[first]).await;

    let settling = app.db.write().begin().await.expect("begun");
    lock(&settling, first).await;
    let making = tokio::spawn({
        let app = app.clone();
        async move { orders::make_all_due(app.db.write(), Timestamp::now()).await }
    });
    eventually("it waits for the first", || async {
        let waiting = sql("
            SELECT 1
              FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'");
        let waiting: Vec<i32> = waiting.scalars(app.db.read()).await.ok()?;
        (!waiting.is_empty()).then_some(())
    })
    .await;

    let free = sql("SELECT id FROM orders WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED").bind("id", second);
    let free: Vec<OrderId> = free.scalars(&settling).await.expect("answered");
    assert_eq!(free, [second], "it has not locked the second before the first");
    settling.commit().await.expect("committed");
    assert_eq!(making.await.expect("it ends").expect("written"), 2);
}

async fn lock(txn: &DatabaseTransaction, id: OrderId) {
    let locked = sql("SELECT id FROM orders WHERE id = :id FOR NO KEY UPDATE").bind("id", id);
    let locked: Vec<OrderId> = locked.scalars(txn).await.expect("locked");
    assert_eq!(locked, [id]);
}

#[rstest]
#[tokio::test]
async fn low_stock_is_published_once_and_again_after_a_redelivery(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 7)]).await;
    let ids = [
        created(&app, &[(1, 1)]).await,
        created(&app, &[(1, 1)]).await,
        created(&app, &[(1, 1)]).await,
    ];
    accept(&app, 1, &ids).await;
    assert_eq!(settle(&app, &ids[..1]).await.low_stock, []);
    let first = settle(&app, &ids[1..2]).await.low_stock;
    assert_eq!((first.len(), first[0].stock), (1, 5));
    assert_eq!(settle(&app, &ids[2..]).await.low_stock, []);

    // The same event again, although the stock is lower by now.
    let again = settle(&app, &ids[1..2]).await.low_stock;
    assert_eq!(again[0].since, first[0].since);
}
