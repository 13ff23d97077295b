//! Orders of a few products each, most of them paid.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    domain::orders::{Labels, Line, NewOrder},
    entities::Timestamp,
};

/// The first order is dated 2026-01-01T00:00:00Z, in microseconds since the Unix epoch.
const FIRST_ORDER_AT: i64 = 1_767_225_600_000_000;
/// Each order is dated this much later than the one before.
const ORDER_INTERVAL: Duration = Duration::from_secs(60);
/// The percentage of orders that are paid.
const PAID_PERCENT: u32 = 85;

/// The order with this number, counted from 0, and whether it is paid. Its id is of version 7, made from its date and
/// from random bits of `rng`.
pub(super) fn generate(rng: &mut ChaCha8Rng, products: &[i64], number: usize, currency: &str) -> (NewOrder, bool) {
    let since_first = ORDER_INTERVAL * u32::try_from(number).unwrap_or(u32::MAX);
    let created_at = Timestamp(FIRST_ORDER_AT).plus(since_first);
    let milliseconds = u64::try_from(created_at.0 / 1_000).unwrap_or(0);
    let id = uuid::Builder::from_unix_timestamp_millis(milliseconds, &rng.random()).into_uuid();

    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..rng.random_range(1..=4) {
        let product_id = products[rng.random_range(0..products.len())];
        let quantity = rng.random_range(1..=3);
        if lines.iter().all(|line| line.product_id != product_id) {
            lines.push(Line { product_id, quantity });
        }
    }

    let order = NewOrder {
        id,
        user_id: rng.random_range(1..=1_000),
        lines,
        currency: currency.to_owned(),
        idempotency_key: None,
        hold: None,
        labels: Labels::default(),
        created_at,
    };
    let is_paid = rng.random_range(0..100) < PAID_PERCENT;
    (order, is_paid)
}
