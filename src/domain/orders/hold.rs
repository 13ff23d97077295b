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

/// What is known of a batch before it is written.
#[derive(Default)]
pub(super) struct Reserved {
    /// The orders with a hold that were made before, and set nothing aside again.
    pub earlier: Vec<Order>,
    /// The orders whose key or reference an order before them in this batch has taken. They must not be written: only one
    /// of the two can be, and it is the first whose units were counted.
    pub repeated: HashSet<OrderId>,
}

/// Goes through the orders of a batch, first come first served, and refuses those with a hold that are short: their candidate
/// becomes [`Error::InsufficientStock`]. The products are locked, and `levels` are theirs.
pub(super) async fn reserve(
    txn: &DatabaseTransaction,
    orders: &[NewOrder],
    candidates: &mut [Result<Order, Error>],
    levels: &HashMap<ProductId, StockLevel>,
) -> Result<Reserved, Error> {
    let with_hold: Vec<&NewOrder> = orders.iter().filter(|new| new.hold.is_some()).collect();
    let any_has_key = with_hold.iter().any(|new| unique_keys_of(new).next().is_some());

    // Under the lock: of two requests with one key, the second sees what the first has made.
    let mut earlier = if any_has_key {
        find_earlier(txn, with_hold.clone()).await?
    } else {
        Vec::new()
    };
    let (mut short, mut repeated) = find_short(orders, candidates, levels.clone(), &earlier);
    // Orders without a key were made before only if this transaction runs again, because the answer to its commit was lost.
    // Then their own units are missing from what is available.
    if !short.is_empty() && !any_has_key {
        earlier = find_earlier(txn, with_hold).await?;
        (short, repeated) = find_short(orders, candidates, levels.clone(), &earlier);
    }

    for (index, lines) in short {
        candidates[index] = Err(Error::InsufficientStock(lines));
    }
    Ok(Reserved { earlier, repeated })
}

type Short = Vec<(usize, Vec<ShortLine>)>;

/// The orders with a hold that are short, by their index, and the orders that repeat one before them. `earlier` are those
/// that exist already.
fn find_short(
    orders: &[NewOrder],
    candidates: &[Result<Order, Error>],
    mut levels: HashMap<ProductId, StockLevel>,
    earlier: &[Order],
) -> (Short, HashSet<OrderId>) {
    let (mut taken, mut short, mut repeated) = (HashSet::new(), Vec::new(), HashSet::new());
    for (index, (new, candidate)) in orders.iter().zip(candidates).enumerate() {
        let Ok(order) = candidate else { continue };
        // It will not be written: it was made before, or its reference is taken.
        let is_known = |existing: &Order| is_made_by(existing, new) || has_reference_of(existing, new);
        if earlier.iter().any(is_known) {
            continue;
        }
        if unique_keys_of(new).any(|key| taken.contains(&key)) {
            repeated.insert(new.id);
            continue;
        }

        if has_hold(order)
            && let Err(lines) = stock_level::set_aside(&units_of([order].into_iter()), &mut levels)
        {
            short.push((index, lines));
            continue;
        }
        taken.extend(unique_keys_of(new));
    }
    (short, repeated)
}

/// What only one order of a user can have.
#[derive(PartialEq, Eq, Hash)]
enum UniqueKey<'a> {
    Idempotency(UserId, &'a str),
    Reference(UserId, &'a str),
}

fn unique_keys_of(new: &NewOrder) -> impl Iterator<Item = UniqueKey<'_>> {
    let key = new.idempotency_key.as_deref();
    let key = key.map(|key| UniqueKey::Idempotency(new.user_id, key));
    let reference = new.labels.reference.as_deref();
    let reference = reference.map(|reference| UniqueKey::Reference(new.user_id, reference));
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
