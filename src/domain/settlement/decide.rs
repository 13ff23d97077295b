//! Decides what becomes of a batch of paid orders, as a pure function, so that what the shop promises about stock can be
//! tested without a database.

use std::collections::{BTreeMap, HashMap};

use crate::{
    domain::{OrderId, ProductId, money, stock_level::StockLevel},
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
    /// Its units are set aside, and counted among those that are held.
    pub has_hold: bool,
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

/// Decides over whole orders, first accepted first: an order takes all of its lines or none. An order with a hold takes from
/// what is held, which has its units; one without takes from what is available. `levels` are the units of each product
/// before, and afterwards what is left.
#[must_use]
pub fn decide(mut claims: Vec<Claim>, levels: &mut HashMap<ProductId, StockLevel>) -> Vec<(OrderId, Decision)> {
    claims.sort_by_key(|claim| (claim.accepted_at, claim.id));
    claims
        .iter()
        .map(|claim| (claim.id, decide_one(claim, levels)))
        .collect()
}

fn decide_one(claim: &Claim, levels: &mut HashMap<ProductId, StockLevel>) -> Decision {
    // Lines that name the same product take from the same shelf, so their sum is what counts.
    let mut wanted: BTreeMap<ProductId, i64> = BTreeMap::new();
    for line in &claim.lines {
        let sum = wanted.entry(line.product_id).or_default();
        *sum = sum.saturating_add(line.quantity);
    }

    let available = |product_id: &ProductId| {
        let level = levels.get(product_id).copied().unwrap_or_default();
        if claim.has_hold { level.held } else { level.available() }
    };
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
    let decision = match total {
        Ok(total_price) if short.is_empty() => Decision::Paid { total_price },
        _ => Decision::Failed(Failure {
            reason: FailureReason::InsufficientStock,
            lines: short,
        }),
    };

    let is_paid = matches!(decision, Decision::Paid { .. });
    for (product_id, quantity) in wanted {
        let level = levels.entry(product_id).or_default();
        if is_paid {
            level.stock -= quantity;
            assert!(
                level.stock >= 0,
                "decided to take more of product {product_id} than there is"
            );
        }
        if claim.has_hold {
            level.held = (level.held - quantity).max(0);
        }
    }
    decision
}
