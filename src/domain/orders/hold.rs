//! Holds: an order can be made with its units set aside until a payment is accepted, in the transaction that makes it. The
//! products are locked first, so that what is seen available stays so until the commit.

use std::collections::{BTreeMap, HashSet};

use sea_orm::DatabaseTransaction;

use super::{
    NewOrder, Order,
    replay::{find_earlier, has_reference_of, is_made_by},
};
use crate::domain::{Error, OrderId, ProductId, UserId, stock_level};

/// Goes through the orders with a hold, first come first served, and refuses those that are short: their candidate becomes
/// [`Error::InsufficientStock`]. Returns the orders that were made before, which set nothing aside again. Does nothing in
/// a batch without holds.
pub(super) async fn reserve(
    txn: &DatabaseTransaction,
    orders: &[NewOrder],
    candidates: &mut [Result<Order, Error>],
) -> Result<Vec<Order>, Error> {
    let held: Vec<&Order> = candidates.iter().flatten().filter(|order| has_hold(order)).collect();
    if held.is_empty() {
        return Ok(Vec::new());
    }

    let mut levels = stock_level::lock(txn, units_of(held.into_iter()).into_keys().collect()).await?;
    // Under the lock: of two requests with one key, the second sees what the first has made.
    let with_hold = orders.iter().filter(|new| new.hold.is_some()).collect();
    let earlier = find_earlier(txn, with_hold).await?;

    let mut made: HashSet<Name> = HashSet::new();
    for (new, candidate) in orders.iter().zip(candidates) {
        let Ok(order) = &*candidate else { continue };
        // It will not be written: it was made before, or its reference is taken.
        let is_known = |earlier: &Order| is_made_by(earlier, new) || has_reference_of(earlier, new);
        let is_repeated = earlier.iter().any(is_known) || names_of(new).any(|name| made.contains(&name));
        if !has_hold(order) || is_repeated {
            continue;
        }

        match stock_level::set_aside(&units_of([order].into_iter()), &mut levels) {
            Ok(()) => made.extend(names_of(new)),
            Err(short) => *candidate = Err(Error::InsufficientStock(short)),
        }
    }
    Ok(earlier)
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
