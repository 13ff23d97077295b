//! The writing paths against both databases, with the transactions inside the test: what is promised when messages come
//! twice, early, late, or for orders that nobody paid.

use rstest::rstest;
use shop::{
    app::App,
    domain::{
        Caller, Error, OrderId,
        orders::{self, Line, NewOrder},
        settlement::{self, Settlement},
    },
    entities::{Timestamp, order::OrderStatus},
};
use uuid::Uuid;

use crate::support::Backend;

fn new_order(lines: &[(i64, i64)]) -> NewOrder {
    NewOrder {
        id: Uuid::now_v7(),
        user_id: 1,
        lines: lines
            .iter()
            .map(|(product_id, quantity)| Line {
                product_id: *product_id,
                quantity: *quantity,
            })
            .collect(),
        currency: "USD".to_owned(),
        idempotency_key: None,
        created_at: Timestamp::now(),
    }
}

async fn create(app: &App, orders: Vec<NewOrder>) -> Vec<Result<orders::Created, Error>> {
    app.db
        .transaction(move |txn| {
            let orders = orders.clone();
            Box::pin(async move { orders::create(&txn, &orders).await })
        })
        .await
        .expect("the batch is written")
}

async fn made(app: &App, lines: &[(i64, i64)]) -> OrderId {
    let created = create(app, vec![new_order(lines)]).await.pop().expect("one answer");
    created.expect("it can be made").order.row.id
}

async fn accept(app: &App, now: i64, ids: &[OrderId]) -> Vec<Result<orders::Order, Error>> {
    let ids: Vec<(Caller, OrderId)> = ids.iter().map(|id| (Caller::Admin, *id)).collect();
    app.db
        .transaction(move |txn| {
            let ids = ids.clone();
            Box::pin(async move { orders::accept_payments(&txn, Timestamp(now), &ids).await })
        })
        .await
        .expect("the batch is written")
}

async fn settle(app: &App, ids: &[OrderId]) -> Settlement {
    let ids = ids.to_vec();
    app.db
        .transaction(move |txn| {
            let ids = ids.clone();
            Box::pin(async move { settlement::settle(&txn, Timestamp::now(), &ids, 5).await })
        })
        .await
        .map_err(|error: Error| error)
        .expect("the batch is written")
}

async fn stock_of(app: &App, product: i64) -> i64 {
    shop::domain::catalog::find(app.db.read(), product)
        .await
        .expect("it exists")
        .stock
}

#[rstest]
#[tokio::test]
async fn one_order_at_fault_is_answered_alone(#[values("embedded", "servers")] backend: &str) {
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
async fn a_creation_whose_answer_was_lost_can_be_run_again(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 5)]).await;
    let order = new_order(&[(1, 2)]);
    let first = create(&app, vec![order.clone()]).await.remove(0).expect("made");
    let again = create(&app, vec![order.clone()]).await.remove(0).expect("made");
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
    let id = made(&app, &[(1, 2)]).await;
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
async fn what_nobody_paid_is_left_alone_and_what_nobody_made_is_unknown(
    #[values("embedded", "servers")] backend: &str,
) {
    let app = Backend::named(backend).stock(&[(100, 5)]).await;
    let (unpaid, unknown) = (made(&app, &[(1, 1)]).await, Uuid::now_v7());
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
async fn who_paid_first_is_served_first_within_a_batch(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 2)]).await;
    let (late, early) = (made(&app, &[(1, 2)]).await, made(&app, &[(1, 2)]).await);
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
    let id = made(&app, &[(1, 1)]).await;
    accept(&app, 10, &[id]).await;
    let answers = accept(&app, 20, &[id, id, Uuid::now_v7()]).await;
    assert!(matches!(&answers[0], Ok(order) if order.row.accepted_at == Some(Timestamp(10))));
    assert!(matches!(&answers[1], Ok(order) if order.row.accepted_at == Some(Timestamp(10))));
    assert!(matches!(answers[2], Err(Error::OrderNotFound(_))));
}

#[rstest]
#[tokio::test]
async fn a_missed_order_is_rung_for_ever_more_rarely(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 2)]).await;
    let (id, unpaid) = (made(&app, &[(1, 1)]).await, made(&app, &[(1, 1)]).await);
    accept(&app, 0, &[id]).await;
    let seconds = |seconds: i64| Timestamp(seconds * 1_000_000);
    let mut rung_at = Vec::new();
    for second in 0..200 {
        let overdue = orders::claim_due(app.db.write(), seconds(second), 100)
            .await
            .expect("asked");
        assert!(!overdue.contains(&unpaid));
        if overdue.contains(&id) {
            rung_at.push(second);
        }
    }
    assert_eq!(rung_at, [5, 15, 35, 75, 115, 155, 195]);
    settle(&app, &[id]).await;
    let later = orders::claim_due(app.db.write(), seconds(9_999), 100)
        .await
        .expect("asked");
    assert_eq!(later, Vec::<OrderId>::new());
}

#[rstest]
#[tokio::test]
async fn an_order_whose_bell_did_not_ring_is_due_at_once_and_not_put_off(
    #[values("embedded", "servers")] backend: &str,
) {
    let app = Backend::named(backend).stock(&[(100, 2)]).await;
    let (id, other) = (made(&app, &[(1, 1)]).await, made(&app, &[(1, 1)]).await);
    accept(&app, 0, &[id, other]).await;
    let seconds = |seconds: i64| Timestamp(seconds * 1_000_000);
    let take = |second| orders::claim_due(app.db.write(), seconds(second), 100);
    for second in 5..10 {
        assert!(take(second).await.expect("asked").contains(&id));
        orders::release_due(app.db.write(), seconds(second), &[id])
            .await
            .expect("put back");
    }
    assert_eq!(take(10).await.expect("asked"), [id]);
    for second in 11..20 {
        let overdue = take(second).await.expect("asked");
        assert_eq!(overdue.contains(&other), second == 15);
        assert!(
            !overdue.contains(&id),
            "counted as rung for once: the next is ten seconds later"
        );
    }
    assert_eq!(take(20).await.expect("asked"), [id]);
    settle(&app, &[id]).await;
    orders::release_due(app.db.write(), seconds(30), &[id])
        .await
        .expect("put back");
    assert!(!take(9_999).await.expect("asked").contains(&id), "it is settled");
}

#[rstest]
#[tokio::test]
async fn stock_that_runs_low_is_told_once_and_again_after_a_redelivery(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 7)]).await;
    let ids = [
        made(&app, &[(1, 1)]).await,
        made(&app, &[(1, 1)]).await,
        made(&app, &[(1, 1)]).await,
    ];
    accept(&app, 1, &ids).await;
    assert_eq!(settle(&app, &ids[..1]).await.low_stock, []);
    let told = settle(&app, &ids[1..2]).await.low_stock;
    assert_eq!((told.len(), told[0].stock), (1, 5));
    assert_eq!(settle(&app, &ids[2..]).await.low_stock, []);
    // The same fact in the same words, though less is there by now.
    let again = settle(&app, &ids[1..2]).await.low_stock;
    assert_eq!(again[0].since, told[0].since);
}
