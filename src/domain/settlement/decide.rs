//! Decides what becomes of a batch of paid orders, as a pure function, so that what the shop promises about stock can be
//! tested without a database.

use std::collections::{BTreeMap, HashMap};

use crate::{
    domain::{OrderId, ProductId, money},
    entities::{
        Timestamp,
        order::{Failure, FailureReason, ShortLine},
    },
};

/// An accepted order as the decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub id: OrderId,
    pub accepted_at: Timestamp,
    pub lines: Vec<ClaimedLine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedLine {
    pub product_id: ProductId,
    pub quantity: i64,
    pub unit_price: i64,
}

/// What is decided about one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Paid { total_price: i64 },
    Failed(Failure),
}

/// Decides over whole orders, first accepted first: an order takes all of its lines or none. `stock` holds the units on the
/// shelf for each product, and afterwards what is left.
#[must_use]
pub fn decide(mut claims: Vec<Claim>, stock: &mut HashMap<ProductId, i64>) -> Vec<(OrderId, Decision)> {
    claims.sort_by_key(|claim| (claim.accepted_at, claim.id));
    claims
        .iter()
        .map(|claim| (claim.id, decide_one(claim, stock)))
        .collect()
}

fn decide_one(claim: &Claim, stock: &mut HashMap<ProductId, i64>) -> Decision {
    // Lines that name the same product take from the same shelf, so their sum is what counts.
    let mut wanted: BTreeMap<ProductId, i64> = BTreeMap::new();
    for line in &claim.lines {
        let sum = wanted.entry(line.product_id).or_default();
        *sum = sum.saturating_add(line.quantity);
    }

    let available = |product_id: &ProductId| stock.get(product_id).copied().unwrap_or(0);
    let short: Vec<ShortLine> = wanted
        .iter()
        .filter(|(product_id, requested)| available(product_id) < **requested)
        .map(|(product_id, requested)| ShortLine {
            product_id: *product_id,
            requested: *requested,
            available: available(product_id),
        })
        .collect();

    let total = money::total(claim.lines.iter().map(|line| (line.quantity, line.unit_price)));
    // A total that does not fit 64 bits was refused when the order was made. If a row says otherwise, nothing is sold.
    let (true, Ok(total_price)) = (short.is_empty(), total) else {
        return Decision::Failed(Failure {
            reason: FailureReason::InsufficientStock,
            lines: short,
        });
    };

    for (product_id, quantity) in wanted {
        let left = stock.entry(product_id).or_default();
        *left -= quantity;
        assert!(*left >= 0, "decided to take more of product {product_id} than there is");
    }
    Decision::Paid { total_price }
}
