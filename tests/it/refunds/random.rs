//! Random refunds over many orders, many at once and some of them twice: together never more than was paid or ordered.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use serde_json::{Value, json};

use super::{item, refund, refunds_of, stock_of};
use crate::support::{Answer, Backend, Shop, accepted, all_settled, ledger_report, publish, unless_busy};

/// `REFUNDS=10000 REFUNDED_ORDERS=200 REFUND_SEED=1` tries more.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_random_refund_exceeds_what_was_paid_or_ordered(#[values("embedded", "servers")] backend: &str) {
    let setting = |name: &str, default: usize| std::env::var(name).map_or(default, |value| value.parse().expect(name));
    let (tries, count) = (setting("REFUNDS", 400), setting("REFUNDED_ORDERS", 12));
    let mut random = ChaCha8Rng::seed_from_u64(setting("REFUND_SEED", 1) as u64);
    let backend = Backend::named(backend);
    let app = backend
        .stock(&[(7, 1_000_000), (130, 1_000_000), (2_500, 1_000_000)])
        .await;
    let shops = [Shop::serve(&backend), Shop::serve(&backend)];
    let _workers = Shop::workers(&backend, 1);
    let clients = shops.each_ref().map(Shop::client);
    let orders = accepted(&app, count, |_| vec![(1, 40), (2, 9), (3, 2)]).await;
    publish(&app, &orders).await;
    all_settled(&app).await;

    let asked: Vec<(usize, String, Value)> = (0..tries)
        .map(|_| {
            let order = orders[random.random_range(0..count)].to_string();
            (random.random_range(0..tries), order, random_refund(&mut random))
        })
        .collect();
    // Some keys come twice, with the same body or another.
    let asking = asked.iter().enumerate().map(|(number, (key, order, body))| {
        let client = clients[number % 2].clone();
        async move {
            let key = format!("key-{key}");
            let answer = unless_busy(|| refund(&client, order, &key, body)).await;
            assert!(matches!(answer.status, 201 | 409 | 422), "{answer:?}");
            answer
        }
    });
    let answers: Vec<Answer> = stream::iter(asking).buffer_unordered(64).collect().await;

    let made: BTreeMap<String, Value> = answers
        .iter()
        .filter(|answer| answer.status == 201)
        .map(|answer| (answer.body["refund_id"].to_string(), answer.body.clone()))
        .collect();
    assert!(made.len() > count, "{} refunds", made.len());
    let mut listed = 0;
    for order in &orders {
        let refunds = refunds_of(&clients[0], &order.to_string()).await;
        listed += refunds.len();
        assert_within(&refunds, 40 * 7 + 9 * 130 + 2 * 2_500, &[(1, 40), (2, 9), (3, 2)]);
        assert!(
            refunds
                .iter()
                .all(|refund| made[&refund["refund_id"].to_string()] == *refund)
        );
    }
    assert_eq!(listed, made.len());
    let returned = |product: i64| -> i64 {
        let items = made
            .values()
            .flat_map(|refund| refund["items"].as_array().expect("a list"));
        let restocked = items.filter(|item| item["product_id"] == product && item["restock"] == true);
        restocked.filter_map(|item| item["quantity"].as_i64()).sum()
    };
    for (product, ordered) in [(1, 40), (2, 9), (3, 2)] {
        let sold = ordered * i64::try_from(count).expect("few");
        assert_eq!(stock_of(&app, product).await, 1_000_000 - sold + returned(product));
    }
    assert!(ledger_report(&app).await.is_clean());
}

fn random_refund(random: &mut ChaCha8Rng) -> Value {
    let mut body = json!({ "reason": "random" });
    if random.random_bool(0.5) {
        body["amount"] = json!(random.random_range(1..900));
    }
    if body["amount"].is_null() || random.random_bool(0.5) {
        let products = (1..=3).filter(|_| random.random_bool(0.5)).collect::<Vec<i64>>();
        let products = if products.is_empty() { vec![2] } else { products };
        let most = [0, 12, 3, 1];
        let items = products.into_iter().map(|product| {
            let most = most[usize::try_from(product).expect("small")];
            item(product, random.random_range(1..=most), random.random_bool(0.7))
        });
        body["items"] = items.collect();
    }
    body
}

/// Asserts that the refunds of an order are no more than `total` and the units that were ordered.
fn assert_within(refunds: &[Value], total: i64, ordered: &[(i64, i64)]) {
    let amount: i64 = refunds.iter().filter_map(|refund| refund["amount"].as_i64()).sum();
    assert!(amount <= total, "{amount} of {total}: {refunds:?}");

    for (product, ordered) in ordered {
        let items = refunds
            .iter()
            .flat_map(|refund| refund["items"].as_array().expect("a list"));
        let units = items.filter(|item| item["product_id"] == *product);
        let units: i64 = units.filter_map(|item| item["quantity"].as_i64()).sum();
        assert!(units <= *ordered, "{units} of {ordered} of product {product}");
    }
}
