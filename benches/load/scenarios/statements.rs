//! Statements with arrays, as the shop writes orders, against the builder of SeaORM.

use std::time::{Duration, Instant};

use sea_orm::{EntityTrait as _, Set, TransactionTrait as _};
use shop::{
    db::Db,
    domain::{
        Error,
        orders::{self, Created, Labels, Line, NewOrder},
    },
    entities::{Timestamp, order, order_item},
};
use uuid::Uuid;

use super::setup;
use crate::{
    report::{Round, Table},
    rounds,
};

/// The orders of one batch.
const BATCH: usize = 500;

/// Orders of two lines in batches. The statements with arrays also read the prices.
pub async fn builder(table: &mut Table) {
    const BATCHES: usize = 40;
    let backend = setup::backend();
    let db = Db::connect(&backend.database_url, 2, 100).await.expect("connects");

    let mut measured = Vec::new();
    for _ in 0..rounds() {
        let started = Instant::now();
        for _ in 0..BATCHES {
            write_by_builder(&db, new_orders()).await;
        }
        let floor = started.elapsed();

        let started = Instant::now();
        for _ in 0..BATCHES {
            let batch = &new_orders();
            let written: Result<Vec<Result<Created, Error>>, Error> = db
                .transaction(|txn| async move { orders::create(&txn, batch).await })
                .await;
            assert_eq!(written.expect("written").len(), BATCH);
        }

        let a_second = |took: Duration| (BATCHES * BATCH) as f64 / took.as_secs_f64();
        measured.push(Round {
            rate: a_second(started.elapsed()),
            floor: a_second(floor),
            ..Round::default()
        });
    }

    table.rate(
        "orders written by array statements, 500 a batch",
        "SeaORM's builder",
        &measured,
    );
}

fn new_orders() -> Vec<NewOrder> {
    let line = |product_id| Line {
        product_id,
        quantity: 1,
    };
    let order = |number: i64| NewOrder {
        id: Uuid::now_v7(),
        user_id: 7,
        lines: vec![line(number % 999 + 1), line(number % 999 + 2)],
        currency: "USD".to_owned(),
        idempotency_key: None,
        hold: None,
        labels: Labels::default(),
        created_at: Timestamp::now(),
    };
    (0..).take(BATCH).map(order).collect()
}

async fn write_by_builder(db: &Db, batch: Vec<NewOrder>) {
    let orders = batch.iter().map(|new| order::ActiveModel {
        id: Set(new.id),
        user_id: Set(new.user_id),
        status: Set(order::OrderStatus::Pending),
        total_price: Set(3_000),
        currency: Set(new.currency.clone()),
        created_at: Set(new.created_at),
        updated_at: Set(new.created_at),
        ..Default::default()
    });
    let items = batch.iter().flat_map(|new| {
        new.lines.iter().map(|line| order_item::ActiveModel {
            order_id: Set(new.id),
            product_id: Set(line.product_id),
            quantity: Set(line.quantity),
            unit_price: Set(1_500),
            ..Default::default()
        })
    });

    let txn = db.write().begin().await.expect("begins");
    order::Entity::insert_many(orders)
        .exec_without_returning(&txn)
        .await
        .expect("written");
    order_item::Entity::insert_many(items)
        .exec_with_returning(&txn)
        .await
        .expect("written");
    txn.commit().await.expect("commits");
}
