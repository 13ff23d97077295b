//! Orders of as many lines as an order may have, from many customers at once.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use rstest::rstest;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};
use shop::app::App;

use crate::support::{Answer, Backend, Client, Shop, all_settled, count, ledger_report, unless_busy};

const CUSTOMERS: usize = 1_000;
const LINES: i64 = 100;
/// The default of `batch_lines`.
const LINES_OF_A_TRANSACTION: i64 = 5_000;

/// A batch of all of them would take the database longer than a request may wait, and then nobody would be served.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn large_baskets_of_many_customers_are_stored_or_refused_at_once(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&vec![(1, 1_000_000); 200]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();

    let created = all_at_once(0..CUSTOMERS, |customer| place_order(&client, customer)).await;
    let statuses = count_by(&created, |answer| answer.status);
    eprintln!("created: {statuses:?}");
    for refused in created.iter().filter(|answer| answer.status != 201) {
        refused.problem(503, "overloaded");
    }

    let ids = created.iter().filter_map(|answer| answer.body["order_id"].as_str());
    // On a busy machine a payment may be refused as well; then it is made again.
    let paid = all_at_once(ids, |id| unless_busy(|| client.pay(id))).await;
    let statuses = count_by(&paid, |answer| answer.status);
    eprintln!("paid: {statuses:?}");
    let accepted = paid.iter().filter(|answer| matches!(answer.status, 200 | 202)).count();
    assert_eq!(accepted, paid.len(), "{statuses:?}");

    if !backend.is_embedded() {
        // A row knows the transaction that wrote it.
        let largest =
            "SELECT max(lines) FROM (SELECT count(*) AS lines FROM order_items GROUP BY xmin) AS transactions";
        let largest: Vec<i64> = scalars(&app, largest).await;
        assert!(
            (1..=LINES_OF_A_TRANSACTION).contains(&largest[0]),
            "{largest:?} lines at once"
        );
    }

    all_settled(&app).await;
    assert_eq!(count(&app, "PAID").await, i64::try_from(paid.len()).expect("few"));
    assert!(paid.len() > 50, "next to nobody was served");
    assert!(ledger_report(&app).await.is_clean());
}

async fn place_order(client: &Client, customer: usize) -> Answer {
    let first = i64::try_from(customer).expect("few") % LINES + 1;
    let items: Vec<Value> = (first..first + LINES)
        .map(|product| json!({ "product_id": product, "quantity": 1 }))
        .collect();
    client
        .post("/orders", &json!({ "user_id": customer + 1, "items": items }))
        .await
}

async fn all_at_once<T, Asked: Future<Output = Answer>>(
    of: impl IntoIterator<Item = T>,
    ask: impl Fn(T) -> Asked,
) -> Vec<Answer> {
    stream::iter(of).map(ask).buffer_unordered(CUSTOMERS).collect().await
}

fn count_by(answers: &[Answer], key: impl Fn(&Answer) -> u16) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(key(answer)).or_default() += 1;
    }
    counts
}

async fn scalars(app: &App, select: &str) -> Vec<i64> {
    let connection = app.db.read();
    let statement = Statement::from_string(connection.get_database_backend(), select);
    let rows = connection.query_all_raw(statement).await.expect("answered");
    rows.iter()
        .map(|row| row.try_get_by_index(0).expect("a number"))
        .collect()
}
