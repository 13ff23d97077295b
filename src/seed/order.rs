//! Orders of a few products each, most of them paid; of the others some were cancelled, and some held their units for a while.

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
/// The percentage of orders that are paid, cancelled, and held until they expired. The others are still open.
const PAID_PERCENT: u32 = 85;
const CANCELLED_PERCENT: u32 = 5;
const EXPIRED_PERCENT: u32 = 5;
const HOLD: Duration = Duration::from_mins(15);

/// What becomes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Paid,
    Cancelled,
    Expired,
    Open,
}

/// The order with this number, counted from 0, and what becomes of it. Its id is of version 7, made from its date and
/// from random bits of `rng`.
pub(super) fn generate(rng: &mut ChaCha8Rng, products: &[i64], number: usize, currency: &str) -> (NewOrder, Outcome) {
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

    let user_id = rng.random_range(1..=1_000);
    let outcome = match rng.random_range(0..100) {
        percent if percent < PAID_PERCENT => Outcome::Paid,
        percent if percent < PAID_PERCENT + CANCELLED_PERCENT => Outcome::Cancelled,
        percent if percent < PAID_PERCENT + CANCELLED_PERCENT + EXPIRED_PERCENT => Outcome::Expired,
        _ => Outcome::Open,
    };

    let order = NewOrder {
        id,
        user_id,
        lines,
        currency: currency.to_owned(),
        idempotency_key: None,
        hold: (outcome == Outcome::Expired).then_some(HOLD),
        labels: Labels::default(),
        created_at,
    };
    (order, outcome)
}
