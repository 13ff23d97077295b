//! A believable catalogue, and orders to go with it: the same for the same seed, and nothing twice.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    app::App,
    db,
    domain::{
        Caller, Error, OrderId,
        catalog::{self, NewProduct},
        orders::{self, Line, NewOrder},
        settlement,
    },
    entities::Timestamp,
};

const MATERIALS: [&str; 20] = [
    "Walnut", "Oak", "Linen", "Ceramic", "Brass", "Copper", "Wool", "Cork", "Bamboo", "Slate", "Leather", "Steel",
    "Cotton", "Marble", "Glass", "Ash", "Rattan", "Enamel", "Canvas", "Birch",
];
const THINGS: [(&str, i64); 25] = [
    ("OrderIntake Lamp", 4_990),
    ("Mug", 1_490),
    ("Notebook", 1_250),
    ("Cutting Board", 3_290),
    ("Throw Blanket", 6_900),
    ("Pour-over Set", 4_450),
    ("Wall Clock", 5_990),
    ("Storage Box", 2_790),
    ("Pen", 1_990),
    ("Water Bottle", 2_490),
    ("Planter", 2_190),
    ("Tray", 2_390),
    ("Backpack", 8_900),
    ("Candle Holder", 1_790),
    ("Serving Bowl", 3_490),
    ("Headphone Stand", 3_990),
    ("Bookend Pair", 2_990),
    ("Apron", 3_190),
    ("Door Mat", 2_690),
    ("Side Table", 12_900),
    ("Pencil Case", 1_590),
    ("Coaster Set", 1_690),
    ("Picture Frame", 2_290),
    ("Umbrella", 3_790),
    ("Laptop Sleeve", 4_190),
];
/// Rows written in one transaction.
const AT_ONCE: usize = 500;
/// Seeded orders are dated one after another from here on (2026-01-01T00:00:00Z), a minute apart.
const FIRST_ORDER_AT: i64 = 1_767_225_600_000_000;
const BETWEEN_ORDERS: Duration = Duration::from_secs(60);
/// Of a hundred seeded orders so many are paid.
const PAID_OF_100: u32 = 85;

/// The key under which one seed at a time looks for what is missing and adds it: "seed" in ASCII.
const SEED_LOCK: i64 = 0x7365_6564;

/// What to fill the database with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub products: usize,
    pub orders: usize,
    pub seed: u64,
}

/// How much was new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    pub products: usize,
    pub orders: usize,
}

/// Adds what the plan names and the database does not have yet.
///
/// # Errors
/// The database's, or that orders cannot be made without products.
pub async fn fill(app: &App, plan: Plan) -> Result<Added, Error> {
    let bar = ProgressBar::new((plan.products + plan.orders) as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut added = Added::default();
    bar.set_message("products");
    for chunk in products(&mut rng, plan.products).chunks(AT_ONCE) {
        let now = Timestamp::now();
        added.products += app
            .db
            .transaction(|txn| async move {
                db::advisory_lock(&txn, SEED_LOCK).await?;
                catalog::add_missing(&txn, now, chunk).await
            })
            .await?;
        bar.inc(AT_ONCE.min(plan.products) as u64);
    }
    bar.set_message("orders");
    if plan.orders > 0 {
        let ids = catalog::ids(app.db.read()).await?;
        if ids.is_empty() {
            return Err(Error::Internal("orders need products: seed some first".to_owned()));
        }
        let mut number = 0;
        while number < plan.orders {
            let count = AT_ONCE.min(plan.orders - number);
            let batch = (number..number + count).map(|number| order(&mut rng, &ids, number, &app.config.currency));
            added.orders += write_orders(app, batch.collect()).await?;
            number += count;
            bar.inc(count as u64);
        }
    }
    app.cache.invalidate_pages().await;
    bar.finish_and_clear();
    Ok(added)
}

fn products(rng: &mut ChaCha8Rng, count: usize) -> Vec<NewProduct> {
    let mut kinds: Vec<(&str, &str, i64)> = MATERIALS
        .iter()
        .flat_map(|material| THINGS.iter().map(move |(thing, price)| (*material, *thing, *price)))
        .collect();
    kinds.shuffle(rng);
    (0..count)
        .map(|number| {
            let (material, thing, price) = kinds[number % kinds.len()];
            let name = match number / kinds.len() {
                0 => format!("{material} {thing}"),
                edition => format!("{material} {thing} No. {}", edition + 1),
            };
            NewProduct {
                name,
                // Around the usual price, ending in 0 or 90 as prices do.
                price: price * rng.random_range(80..=140) / 1_000 * 10,
                stock: rng.random_range(20..=500),
            }
        })
        .collect()
}

/// One to four lines of small quantities; ids of version 7, made of the date and the seed's chance.
fn order(rng: &mut ChaCha8Rng, products: &[i64], number: usize, currency: &str) -> (NewOrder, bool) {
    let since_first = BETWEEN_ORDERS * u32::try_from(number).unwrap_or(u32::MAX);
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
        created_at,
    };
    let paid = rng.random_range(0..100) < PAID_OF_100;
    (order, paid)
}

/// Through the same functions as everybody's orders, so that the books are right. Answers how many were new.
async fn write_orders(app: &App, batch: Vec<(NewOrder, bool)>) -> Result<usize, Error> {
    let paid: &Vec<OrderId> = &batch
        .iter()
        .filter(|(_, paid)| *paid)
        .map(|(order, _)| order.id)
        .collect();
    let new: &Vec<NewOrder> = &batch.into_iter().map(|(order, _)| order).collect();
    let low_stock_at = app.config.low_stock_at;
    app.db
        .transaction(|txn| async move {
            db::advisory_lock(&txn, SEED_LOCK).await?;
            let known = orders::count_known(&*txn, new.iter().map(|order| order.id).collect()).await?;
            let now = Timestamp::now();
            orders::create(&txn, new).await?;
            let asked: Vec<(Caller, OrderId)> = paid.iter().map(|id| (Caller::Admin, *id)).collect();
            orders::accept_payments(&txn, now, &asked).await?;
            settlement::settle(&txn, now, paid, low_stock_at).await?;
            Ok(new.len() - known)
        })
        .await
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_catalogue_and_no_name_twice() {
        let catalogue = |seed| products(&mut ChaCha8Rng::seed_from_u64(seed), 1_200);
        assert_eq!(catalogue(7), catalogue(7));
        assert_ne!(catalogue(7), catalogue(8));
        let names: HashSet<String> = catalogue(7).into_iter().map(|product| product.name).collect();
        assert_eq!(names.len(), 1_200);
    }
}
