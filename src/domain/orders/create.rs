//! Writing a batch of new orders: priced from the catalogue, inserted in one statement each for orders and lines, and
//! recognised when they have been written before.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::{ConnectionTrait, DatabaseTransaction};

use super::{Created, Line, NewOrder, Order, find::find_all};
use crate::{
    db::sql::{Column, sql},
    domain::{Error, OrderId, ProductId, UserId, money},
    entities::{
        order::{self, OrderStatus},
        order_item,
    },
};

/// Writes the orders whose products all exist, at the catalogue's prices. Answers in the order of `orders`.
///
/// # Errors
/// For one order: [`Error::UnknownProducts`], [`Error::TotalTooLarge`], [`Error::IdempotencyKeyReused`]. For all: the
/// database's.
pub async fn create(txn: &DatabaseTransaction, orders: &[NewOrder]) -> Result<Vec<Result<Created, Error>>, Error> {
    let prices = prices_of(txn, orders).await?;
    let mut candidates: Vec<Result<Order, Error>> = orders.iter().map(|order| price(order, &prices)).collect();

    let written = insert_orders(txn, &candidates).await?;
    insert_items(txn, &mut candidates, &written).await?;

    // Also for orders that could not be priced this time: an order that exists is answered as it was.
    let not_written = orders.iter().filter(|order| !written.contains(&order.id));
    let earlier = find_earlier(txn, not_written.collect()).await?;

    let answer = |(new, candidate): (&NewOrder, Result<Order, Error>)| {
        if written.contains(&new.id) {
            let order = candidate?;
            return Ok(Created { order, replayed: false });
        }
        replay(new, &earlier).unwrap_or_else(|| {
            candidate?;
            Err(Error::Internal(format!(
                "order {} was neither written nor found",
                new.id
            )))
        })
    };
    Ok(orders.iter().zip(candidates).map(answer).collect())
}

async fn prices_of(txn: &DatabaseTransaction, orders: &[NewOrder]) -> Result<HashMap<ProductId, i64>, Error> {
    let ordered = orders.iter().flat_map(|order| &order.lines).map(|line| line.product_id);
    let ordered: BTreeSet<ProductId> = ordered.collect();

    let prices: Vec<(ProductId, i64)> = sql("SELECT id, price FROM products WHERE id = ANY(:ids) ORDER BY id")
        .list("ids", Column::BigInt(ordered.into_iter().collect()))
        .tuples(txn)
        .await?;
    Ok(prices.into_iter().collect())
}

/// The order as it will be stored, or why it cannot be.
fn price(new: &NewOrder, prices: &HashMap<ProductId, i64>) -> Result<Order, Error> {
    let is_unknown = |line: &Line| !prices.contains_key(&line.product_id);
    let unknown: Vec<(usize, ProductId)> = new
        .lines
        .iter()
        .enumerate()
        .filter(|(_, line)| is_unknown(line))
        .map(|(index, line)| (index, line.product_id))
        .collect();
    if !unknown.is_empty() {
        return Err(Error::UnknownProducts(unknown));
    }

    let item = |line: &Line| order_item::Model {
        // Given when it is inserted.
        id: 0,
        order_id: new.id,
        product_id: line.product_id,
        quantity: line.quantity,
        unit_price: prices[&line.product_id],
    };
    let items: Vec<order_item::Model> = new.lines.iter().map(item).collect();
    let total_price = money::total(items.iter().map(|item| (item.quantity, item.unit_price)))?;

    let row = order::Model {
        id: new.id,
        user_id: new.user_id,
        status: OrderStatus::Pending,
        total_price,
        currency: new.currency.clone(),
        idempotency_key: new.idempotency_key.clone(),
        accepted_at: None,
        notify_after: None,
        notify_attempts: 0,
        settled_at: None,
        failure: None,
        created_at: new.created_at,
        updated_at: new.created_at,
    };
    Ok(Order { row, items })
}

/// Inserts those that can be, and answers the ids that are new. What is missing from the answer has a row already.
async fn insert_orders(
    txn: &DatabaseTransaction,
    candidates: &[Result<Order, Error>],
) -> Result<HashSet<OrderId>, Error> {
    let mut orders: Vec<&order::Model> = candidates.iter().flatten().map(|order| &order.row).collect();
    if orders.is_empty() {
        return Ok(HashSet::new());
    }

    // Everybody inserts in the same order, so that two batches with the same idempotency keys never wait for each other
    // in a circle.
    orders.sort_by(|a, b| (a.user_id, &a.idempotency_key, a.id).cmp(&(b.user_id, &b.idempotency_key, b.id)));
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();

    // SQLite needs `WHERE true` to tell ON CONFLICT from the ON of a join.
    let inserted = sql("
        INSERT INTO orders (id, user_id, status, total_price, currency, idempotency_key, created_at, updated_at)
        SELECT id, user_id, 'PENDING', total_price, currency, NULLIF(idempotency_key, ''), created_at, created_at
          FROM :new_orders
         WHERE true
            ON CONFLICT DO NOTHING")
    .table(
        "new_orders",
        [
            ("id", Column::Uuid(ids.clone())),
            (
                "user_id",
                Column::BigInt(orders.iter().map(|order| order.user_id).collect()),
            ),
            (
                "total_price",
                Column::BigInt(orders.iter().map(|order| order.total_price).collect()),
            ),
            (
                "currency",
                Column::Text(orders.iter().map(|order| order.currency.clone()).collect()),
            ),
            (
                "idempotency_key",
                keys_of(orders.iter().map(|order| &order.idempotency_key)),
            ),
            (
                "created_at",
                Column::Timestamp(orders.iter().map(|order| order.created_at).collect()),
            ),
        ],
    )
    .execute(txn)
    .await?;
    if inserted == orders.len() as u64 {
        return Ok(ids.into_iter().collect());
    }

    // Some were there already. Those of earlier transactions have their lines; those inserted just now do not yet.
    let new: Vec<OrderId> = sql("
        SELECT o.id
          FROM orders o
         WHERE o.id = ANY(:ids) AND NOT EXISTS (SELECT 1 FROM order_items i WHERE i.order_id = o.id)")
    .list("ids", Column::Uuid(ids))
    .scalars(txn)
    .await?;
    Ok(new.into_iter().collect())
}

/// Inserts the lines of the orders that are new, and puts in the ids that they were given.
async fn insert_items(
    txn: &DatabaseTransaction,
    candidates: &mut [Result<Order, Error>],
    written: &HashSet<OrderId>,
) -> Result<(), Error> {
    let new = candidates
        .iter_mut()
        .flatten()
        .filter(|order| written.contains(&order.row.id));
    let mut items: Vec<&mut order_item::Model> = new.flat_map(|order| &mut order.items).collect();
    if items.is_empty() {
        return Ok(());
    }

    let ids = sql("
        INSERT INTO order_items (order_id, product_id, quantity, unit_price)
        SELECT order_id, product_id, quantity, unit_price
          FROM :new_items")
    .table(
        "new_items",
        [
            (
                "order_id",
                Column::Uuid(items.iter().map(|item| item.order_id).collect()),
            ),
            (
                "product_id",
                Column::BigInt(items.iter().map(|item| item.product_id).collect()),
            ),
            (
                "quantity",
                Column::BigInt(items.iter().map(|item| item.quantity).collect()),
            ),
            (
                "unit_price",
                Column::BigInt(items.iter().map(|item| item.unit_price).collect()),
            ),
        ],
    )
    .insert_numbered(txn, items.len())
    .await?;

    for (item, id) in items.iter_mut().zip(ids) {
        item.id = id;
    }
    Ok(())
}

/// The orders that were written before: under the same idempotency key, or by a transaction whose answer was lost.
async fn find_earlier(txn: &DatabaseTransaction, orders: Vec<&NewOrder>) -> Result<Vec<Order>, Error> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }

    let with_key: Vec<Option<OrderId>> = sql("
        SELECT (SELECT o.id FROM orders o WHERE o.user_id = asked.user_id AND o.idempotency_key = asked.key)
          FROM :asked")
    .table(
        "asked",
        [
            (
                "user_id",
                Column::BigInt(orders.iter().map(|order| order.user_id).collect()),
            ),
            ("key", keys_of(orders.iter().map(|order| &order.idempotency_key))),
        ],
    )
    .scalars(txn)
    .await?;

    let mut ids: Vec<OrderId> = with_key.into_iter().flatten().collect();
    ids.extend(orders.iter().map(|order| order.id));
    Ok(find_all(txn, &ids).await?.into_values().collect())
}

/// The idempotency keys, empty where there is none: no key is empty.
fn keys_of<'a>(keys: impl Iterator<Item = &'a Option<String>>) -> Column {
    Column::Text(keys.map(|key| key.clone().unwrap_or_default()).collect())
}

/// The answer to a request whose order exists already: the first answer again, or a refusal when it asks for something
/// else. `None` if it does not exist.
fn replay(new: &NewOrder, earlier: &[Order]) -> Option<Result<Created, Error>> {
    // This transaction ran before, and its answer was lost: to the client it is the first answer.
    if let Some(own) = earlier.iter().find(|order| order.row.id == new.id) {
        let order = own.clone();
        return Some(Ok(Created { order, replayed: false }));
    }

    let key = new.idempotency_key.as_ref()?;
    let same_key = |order: &&Order| order.row.user_id == new.user_id && order.row.idempotency_key.as_ref() == Some(key);
    let first = earlier.iter().find(same_key)?;

    let lines = first.items.iter().map(|item| Line {
        product_id: item.product_id,
        quantity: item.quantity,
    });
    if !lines.eq(new.lines.iter().copied()) {
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
