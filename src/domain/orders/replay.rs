//! Requests to make an order that exists already: they are recognised by the order's id, which a transaction keeps that runs
//! again, or by their idempotency key. They get the first answer again, or are refused when they ask for something else. So
//! are requests whose reference belongs to another order.

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use super::{Created, Line, NewOrder, Order, find::find_all};
use crate::{
    db::sql::{Column, sql},
    domain::{Error, OrderId, UserId},
    entities::order::OrderStatus,
};

/// The orders that were written before: under the same idempotency key or reference, or by a transaction whose answer was
/// lost.
pub(super) async fn find_earlier(txn: &DatabaseTransaction, orders: Vec<&NewOrder>) -> Result<Vec<Order>, Error> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }

    let mut ids = ids_of_unique_keys(txn, &orders).await?;
    ids.extend(orders.iter().map(|order| order.id));
    Ok(find_all(txn, &ids).await?.into_values().collect())
}

/// The orders that have the idempotency keys or the references of these requests.
async fn ids_of_unique_keys(txn: &DatabaseTransaction, orders: &[&NewOrder]) -> Result<Vec<OrderId>, Error> {
    let has_no_key = |order: &&NewOrder| order.idempotency_key.is_none() && order.labels.reference.is_none();
    if orders.iter().all(has_no_key) {
        return Ok(Vec::new());
    }

    // A missing key or reference is sent as '', which no real one is.
    let texts = |text: fn(&NewOrder) -> &Option<String>| {
        Column::Text(
            orders
                .iter()
                .map(|order| text(order).clone().unwrap_or_default())
                .collect(),
        )
    };
    let found: Vec<(Option<OrderId>, Option<OrderId>)> = sql("
        SELECT (SELECT o.id FROM orders o WHERE o.user_id = asked.user_id AND o.idempotency_key = asked.key),
               (SELECT o.id FROM orders o WHERE o.reference = asked.reference AND o.user_id = asked.user_id)
          FROM :asked")
    .table(
        "asked",
        [
            (
                "user_id",
                Column::BigInt(orders.iter().map(|order| order.user_id).collect()),
            ),
            ("key", texts(|order| &order.idempotency_key)),
            ("reference", texts(|order| &order.labels.reference)),
        ],
    )
    .tuples(txn)
    .await?;

    let ids = found
        .into_iter()
        .flat_map(|(with_key, with_reference)| [with_key, with_reference]);
    Ok(ids.flatten().collect())
}

/// The answer to a request whose order exists already: the first answer again, or a refusal when it asks for something
/// else, or that its reference is taken. `None` if neither is so.
pub(super) fn replay(new: &NewOrder, earlier: &[Order]) -> Option<Result<Created, Error>> {
    // This transaction ran before, and its answer was lost: to the client it is the first answer.
    if let Some(own) = earlier.iter().find(|order| order.row.id == new.id) {
        let order = own.clone();
        return Some(Ok(Created { order, replayed: false }));
    }

    let Some(first) = earlier.iter().find(|order| is_made_by(order, new)) else {
        let other = earlier.iter().find(|order| has_reference_of(order, new))?;
        return Some(Err(Error::ReferenceTaken(other.row.id)));
    };
    let hold = first.row.expires_at.map(|end| first.row.created_at.age_at(end));
    let lines = first.items.iter().map(|item| Line {
        product_id: item.product_id,
        quantity: item.quantity,
    });
    let is_labelled_alike = first.row.reference == new.labels.reference && first.row.metadata == new.labels.metadata;
    if !lines.eq(new.lines.iter().copied()) || hold != new.hold || !is_labelled_alike {
        return Some(Err(Error::IdempotencyKeyReused));
    }

    Some(Ok(first_answer(first.clone())))
}

/// The first answer again, which showed the order as it was made.
fn first_answer(mut order: Order) -> Created {
    order.row.status = OrderStatus::Pending;
    order.row.accepted_at = None;
    order.row.settled_at = None;
    order.row.failure = None;
    order.row.payment_reference = None;
    Created { order, replayed: true }
}

/// The first answer to the request that made an order of this user under `key`, whatever it asked for.
pub async fn find_by_key(
    connection: &impl ConnectionTrait,
    user_id: UserId,
    key: &str,
) -> Result<Option<Created>, Error> {
    let ids: Vec<OrderId> = sql("SELECT id FROM orders WHERE user_id = :user_id AND idempotency_key = :key")
        .bind("user_id", user_id)
        .bind("key", key)
        .scalars(connection)
        .await?;

    let found = find_all(connection, &ids).await?.into_values().next();
    Ok(found.map(first_answer))
}

/// Whether this request made the order: itself, when it ran before, or under the same idempotency key.
pub(super) fn is_made_by(order: &Order, new: &NewOrder) -> bool {
    let row = &order.row;
    let same_key = new.idempotency_key.is_some() && row.idempotency_key == new.idempotency_key;
    row.id == new.id || (row.user_id == new.user_id && same_key)
}

/// Whether the order has the reference that this request wants.
pub(super) fn has_reference_of(order: &Order, new: &NewOrder) -> bool {
    let reference = &new.labels.reference;
    reference.is_some() && order.row.user_id == new.user_id && order.row.reference == *reference
}
