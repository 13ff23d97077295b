//! Fills a database with believable products and orders. The same seed gives the same data, and what is there already
//! is not added again.

use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    app::App,
    db,
    domain::{
        Caller, Error, OrderId,
        catalog::{self, NewProduct},
        orders::{self, Created, NewOrder, Payment},
        settlement,
    },
};

mod catalogue;
mod order;

use order::Outcome;

/// Rows that one transaction adds.
const CHUNK: usize = 500;
/// The key of the advisory lock under which one process at a time finds what is missing and adds it: "seed" in ASCII.
const SEED_LOCK: i64 = 0x7365_6564;

/// What to fill the database with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub products: usize,
    pub orders: usize,
    pub seed: u64,
}

/// How much was not there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    pub products: usize,
    pub orders: usize,
}

/// Adds the products and orders of the plan that the database does not have yet. Orders need products.
pub async fn fill(app: &App, plan: Plan) -> Result<Added, Error> {
    let bar = progress_bar(plan);
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);

    bar.set_message("products");
    let products = add_products(app, &catalogue::generate(&mut rng, plan.products), &bar).await?;

    bar.set_message("orders");
    let orders = add_orders(app, &mut rng, plan.orders, &bar).await?;

    app.cache.invalidate_pages().await;
    bar.finish_and_clear();
    Ok(Added { products, orders })
}

/// Shows itself only on a terminal.
fn progress_bar(plan: Plan) -> ProgressBar {
    let bar = ProgressBar::new((plan.products + plan.orders) as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

async fn add_products(app: &App, products: &[NewProduct], bar: &ProgressBar) -> Result<usize, Error> {
    let mut added = 0;
    for chunk in products.chunks(CHUNK) {
        let now = app.db.time();
        added += app
            .db
            .transaction(|txn| async move {
                db::advisory_lock(&txn, SEED_LOCK).await?;
                catalog::add_missing(&txn, now, chunk).await
            })
            .await?;
        bar.inc(chunk.len() as u64);
    }
    Ok(added)
}

async fn add_orders(app: &App, rng: &mut ChaCha8Rng, count: usize, bar: &ProgressBar) -> Result<usize, Error> {
    if count == 0 {
        return Ok(0);
    }
    let products = catalog::ids(app.db.read()).await?;
    if products.is_empty() {
        return Err(Error::Internal("orders need products: seed some first".to_owned()));
    }

    let currency = &app.config.catalog.currency;
    let mut added = 0;
    for first in (0..count).step_by(CHUNK) {
        let end = count.min(first + CHUNK);
        let chunk: Vec<(NewOrder, Outcome)> = (first..end)
            .map(|number| order::generate(rng, &products, number, currency))
            .collect();
        added += add_chunk(app, chunk).await?;
        bar.inc((end - first) as u64);
    }
    Ok(added)
}

/// Creates, pays, settles, cancels and expires orders with the functions that also serve customers, so that the ledger
/// check holds. Returns how many orders were not there before.
async fn add_chunk(app: &App, chunk: Vec<(NewOrder, Outcome)>) -> Result<usize, Error> {
    let with_outcome = |wanted: Outcome| -> Vec<(Caller, OrderId)> {
        let orders = chunk.iter().filter(|(_, outcome)| *outcome == wanted);
        orders.map(|(order, _)| (Caller::Admin, order.id)).collect()
    };
    let (payments, cancellations) = (&with_outcome(Outcome::Paid), &with_outcome(Outcome::Cancelled));
    let paid: &Vec<OrderId> = &payments.iter().map(|(_, id)| *id).collect();
    let new: &Vec<NewOrder> = &chunk.into_iter().map(|(order, _)| order).collect();
    let low_stock_at = app.config.catalog.low_stock_at;

    app.db
        .transaction(|txn| async move {
            db::advisory_lock(&txn, SEED_LOCK).await?;
            let known = orders::count_known(&*txn, new.iter().map(|order| order.id).collect()).await?;
            let now = app.db.time();

            let created = orders::create(&txn, new).await?;
            orders::create(&txn, &without_hold(new, &created)).await?;
            let payments: Vec<Payment> = payments.iter().map(|payment| (*payment).into()).collect();
            orders::accept_payments(&txn, now, &payments).await?;
            settlement::settle(&txn, now, paid, low_stock_at).await?;
            orders::cancel(&txn, now, cancellations).await?;
            orders::expire_due(&txn, now, i64::try_from(CHUNK).unwrap_or(i64::MAX), &[]).await?;
            Ok(new.len() - known)
        })
        .await
}

/// Those of the orders whose units could not be set aside, to be made without a hold.
fn without_hold(orders: &[NewOrder], created: &[Result<Created, Error>]) -> Vec<NewOrder> {
    let is_short = |created: &Result<Created, Error>| matches!(created, Err(Error::InsufficientStock(_)));
    let short = orders.iter().zip(created).filter(|(_, created)| is_short(created));
    short
        .map(|(order, _)| NewOrder {
            hold: None,
            ..order.clone()
        })
        .collect()
}
