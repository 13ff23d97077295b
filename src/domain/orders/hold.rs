//! Holds: an order can be made with its units set aside until a payment is accepted, in the transaction that makes it. The
//! products are locked first, so that what is seen available stays so until the commit.

use std::collections::{BTreeMap, HashMap, HashSet};

use sea_orm::DatabaseTransaction;

use super::{
    NewOrder, Order,
    replay::{find_earlier, has_reference_of, is_made_by},
};
use crate::{
    domain::{
        Error, OrderId, ProductId, UserId,
        stock_level::{self, StockLevel},
    },
    entities::order::ShortLine,
};

/// Goes through the orders with a hold, first come first served, and refuses those that are short: their candidate becomes
/// [`Error::InsufficientStock`]. Returns the orders that were made before, which set nothing aside again. The products are
/// locked, and `levels` are theirs.
pub(super) async fn reserve(
    txn: &DatabaseTransaction,
    orders: &[NewOrder],
    candidates: &mut [Result<Order, Error>],
    levels: &HashMap<ProductId, StockLevel>,
) -> Result<Vec<Order>, Error> {
    let with_hold: Vec<&NewOrder> = orders.iter().filter(|new| new.hold.is_some()).collect();
    let any_named = with_hold.iter().any(|new| names_of(new).next().is_some());

    // Under the lock: of two requests with one key, the second sees what the first has made.
    let mut earlier = if any_named {
        find_earlier(txn, with_hold.clone()).await?
    } else {
        Vec::new()
    };
    let mut short = find_short(orders, candidates, levels.clone(), &earlier);
    // Orders without names were made before only if this transaction runs again, because the answer to its commit was lost.
    // Then their own units are missing from what is available.
    if !short.is_empty() && !any_named {
        earlier = find_earlier(txn, with_hold).await?;
        short = find_short(orders, candidates, levels.clone(), &earlier);
    }

    for (index, lines) in short {
        candidates[index] = Err(Error::InsufficientStock(lines));
    }
    Ok(earlier)
}

/// The orders with a hold that are short, by their index. `earlier` are those that exist already.
fn find_short(
    orders: &[NewOrder],
    candidates: &[Result<Order, Error>],
    mut levels: HashMap<ProductId, StockLevel>,
    earlier: &[Order],
) -> Vec<(usize, Vec<ShortLine>)> {
    let (mut made, mut short) = (HashSet::new(), Vec::new());
    for (index, (new, candidate)) in orders.iter().zip(candidates).enumerate() {
        let Ok(order) = candidate else { continue };
        // It will not be written: it was made before, or its reference is taken.
        let is_known = |earlier: &Order| is_made_by(earlier, new) || has_reference_of(earlier, new);
        let is_repeated = earlier.iter().any(is_known) || names_of(new).any(|name| made.contains(&name));
        if !has_hold(order) || is_repeated {
            continue;
        }

        match stock_level::set_aside(&units_of([order].into_iter()), &mut levels) {
            Ok(()) => made.extend(names_of(new)),
            Err(lines) => short.push((index, lines)),
        }
    }
    short
}

/// What only one order of a user can have.
#[derive(PartialEq, Eq, Hash)]
enum Name<'a> {
    Key(UserId, &'a str),
    Reference(UserId, &'a str),
}

fn names_of(new: &NewOrder) -> impl Iterator<Item = Name<'_>> {
    let key = new.idempotency_key.as_deref().map(|key| Name::Key(new.user_id, key));
    let reference = new.labels.reference.as_deref();
    let reference = reference.map(|reference| Name::Reference(new.user_id, reference));
    key.into_iter().chain(reference)
}

/// Sets the units of the orders that are new aside.
pub(super) async fn write(
    txn: &DatabaseTransaction,
    candidates: &[Result<Order, Error>],
    written: &HashSet<OrderId>,
) -> Result<(), Error> {
    let new = candidates.iter().flatten();
    let new = new.filter(|order| has_hold(order) && written.contains(&order.row.id));
    stock_level::hold(txn, &units_of(new)).await
}

fn has_hold(order: &Order) -> bool {
    order.row.expires_at.is_some()
}

/// The units on the lines of `orders`, by product.
fn units_of<'a>(orders: impl Iterator<Item = &'a Order>) -> BTreeMap<ProductId, i64> {
    let mut units = BTreeMap::new();
    for item in orders.flat_map(|order| &order.items) {
        *units.entry(item.product_id).or_default() += item.quantity;
    }
    units
}
