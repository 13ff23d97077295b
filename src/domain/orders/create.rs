//! Writing a batch of new orders: priced from the catalogue, inserted in one statement each for orders and lines, and
//! recognised when they have been written before.

use std::collections::{HashMap, HashSet};

use sea_orm::{ConnectionTrait, QueryResult};

use super::{Created, Line, NewOrder, Order, find_many};
use crate::{
    db::sql::{Column, Sql},
    domain::{Error, OrderId, ProductId, money},
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
pub async fn create(txn: &impl ConnectionTrait, orders: &[NewOrder]) -> Result<Vec<Result<Created, Error>>, Error> {
    let prices = prices_of(txn, orders).await?;
    let mut candidates: Vec<Result<Order, Error>> = orders.iter().map(|order| price(order, &prices)).collect();
    let written = insert_orders(txn, &candidates).await?;
    insert_items(txn, &mut candidates, &written).await?;
    // Looked for whatever has become of the price since: the first answer is given again.
    let others = orders.iter().filter(|order| !written.contains(&order.id));
    let earlier = find_earlier(txn, others).await?;
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

async fn prices_of(txn: &impl ConnectionTrait, orders: &[NewOrder]) -> Result<HashMap<ProductId, i64>, Error> {
    let wanted: HashSet<ProductId> = orders
        .iter()
        .flat_map(|order| order.lines.iter().map(|line| line.product_id))
        .collect();
    let select = Sql::new(
        txn.get_database_backend(),
        "SELECT p.id, p.price FROM products p WHERE p.id IN (SELECT t.id FROM ",
    )
    .rows("t", [("id", Column::BigInt(wanted.into_iter().collect()))])
    .push(")");
    let rows = txn.query_all_raw(select.build()).await?;
    Ok(rows
        .iter()
        .map(QueryResult::try_get_many_by_index)
        .collect::<Result<_, _>>()?)
}

/// The order as it will be stored, or why it cannot be.
fn price(new: &NewOrder, prices: &HashMap<ProductId, i64>) -> Result<Order, Error> {
    let unknown: Vec<(usize, ProductId)> = new
        .lines
        .iter()
        .enumerate()
        .filter(|(_, line)| !prices.contains_key(&line.product_id))
        .map(|(place, line)| (place, line.product_id))
        .collect();
    if !unknown.is_empty() {
        return Err(Error::UnknownProducts(unknown));
    }
    let items: Vec<order_item::Model> = new
        .lines
        .iter()
        .map(|line| order_item::Model {
            id: 0,
            order_id: new.id,
            product_id: line.product_id,
            quantity: line.quantity,
            unit_price: prices[&line.product_id],
        })
        .collect();
    let total_price = money::total(items.iter().map(|item| (item.quantity, item.unit_price)))?;
    let row = order::Model {
        id: new.id,
        user_id: new.user_id,
        status: OrderStatus::Pending,
        total_price,
        currency: new.currency.clone(),
        created_at: new.created_at,
        idempotency_key: new.idempotency_key.clone(),
        accepted_at: None,
        notify_after: None,
        notify_attempts: 0,
        settled_at: None,
        failure: None,
    };
    Ok(Order { row, items })
}

/// Inserts those that can be; answers the ids that are new. What is missing from the answer has a row already.
async fn insert_orders(
    txn: &impl ConnectionTrait,
    candidates: &[Result<Order, Error>],
) -> Result<HashSet<OrderId>, Error> {
    let mut orders: Vec<&order::Model> = candidates.iter().flatten().map(|order| &order.row).collect();
    if orders.is_empty() {
        return Ok(HashSet::new());
    }
    // One order of insertion for all: two batches with the same idempotency keys wait for each other, never in a ring.
    orders.sort_by(|a, b| (a.user_id, &a.idempotency_key, a.id).cmp(&(b.user_id, &b.idempotency_key, b.id)));
    let texts = |text: fn(&order::Model) -> String| Column::Text(orders.iter().map(|order| text(order)).collect());
    let numbers = |number: fn(&order::Model) -> i64| Column::BigInt(orders.iter().map(|order| number(order)).collect());
    let columns = [
        ("id", Column::Uuid(orders.iter().map(|order| order.id).collect())),
        ("user_id", numbers(|order| order.user_id)),
        ("total_price", numbers(|order| order.total_price)),
        ("currency", texts(|order| order.currency.clone())),
        ("created_at", numbers(|order| order.created_at.0)),
        ("key", texts(|order| order.idempotency_key.clone().unwrap_or_default())),
    ];
    let insert = Sql::new(
        txn.get_database_backend(),
        "INSERT INTO orders (id, user_id, status, total_price, currency, created_at, idempotency_key) \
         SELECT t.id, t.user_id, 'PENDING', t.total_price, t.currency, t.created_at, NULLIF(t.key, '') FROM ",
    )
    .rows("t", columns)
    .push(" WHERE true ON CONFLICT DO NOTHING");
    let ids = orders.iter().map(|order| order.id);
    if txn.execute_raw(insert.build()).await?.rows_affected() == orders.len() as u64 {
        return Ok(ids.collect());
    }
    // Some were there already. Those of earlier transactions have their lines; those written just now do not yet.
    let select = Sql::new(
        txn.get_database_backend(),
        "SELECT o.id FROM orders o WHERE o.id IN (SELECT t.id FROM ",
    )
    .rows("t", [("id", Column::Uuid(ids.collect()))])
    .push(") AND NOT EXISTS (SELECT 1 FROM order_items i WHERE i.order_id = o.id)");
    let rows = txn.query_all_raw(select.build()).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect::<Result<_, _>>()?)
}

/// Inserts the lines of the orders that are new, and puts in the ids that they were given.
async fn insert_items(
    txn: &impl ConnectionTrait,
    candidates: &mut [Result<Order, Error>],
    written: &HashSet<OrderId>,
) -> Result<(), Error> {
    let mut items: Vec<&mut order_item::Model> = candidates
        .iter_mut()
        .flatten()
        .filter(|order| written.contains(&order.row.id))
        .flat_map(|order| &mut order.items)
        .collect();
    if items.is_empty() {
        return Ok(());
    }
    let numbers =
        |number: fn(&order_item::Model) -> i64| Column::BigInt(items.iter().map(|item| number(item)).collect());
    let columns = [
        (
            "order_id",
            Column::Uuid(items.iter().map(|item| item.order_id).collect()),
        ),
        ("product_id", numbers(|item| item.product_id)),
        ("quantity", numbers(|item| item.quantity)),
        ("unit_price", numbers(|item| item.unit_price)),
    ];
    let insert = Sql::new(
        txn.get_database_backend(),
        "INSERT INTO order_items (order_id, product_id, quantity, unit_price) \
         SELECT t.order_id, t.product_id, t.quantity, t.unit_price FROM ",
    )
    .rows("t", columns);
    let ids = insert.insert_numbered(txn, items.len()).await?;
    for (item, id) in items.iter_mut().zip(ids) {
        item.id = id;
    }
    Ok(())
}

/// The orders that were written before: under the same idempotency key, or by a transaction whose answer was lost.
async fn find_earlier<'a>(
    txn: &impl ConnectionTrait,
    orders: impl Iterator<Item = &'a NewOrder>,
) -> Result<Vec<Order>, Error> {
    let missing: Vec<&NewOrder> = orders.collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let columns = [
        ("id", Column::Uuid(missing.iter().map(|order| order.id).collect())),
        (
            "user_id",
            Column::BigInt(missing.iter().map(|order| order.user_id).collect()),
        ),
        (
            "key",
            Column::Text(
                missing
                    .iter()
                    .map(|order| order.idempotency_key.clone().unwrap_or_default())
                    .collect(),
            ),
        ),
    ];
    let select = Sql::new(txn.get_database_backend(), "SELECT o.id FROM orders o JOIN ")
        .rows("t", columns)
        .push(" ON o.id = t.id OR (o.user_id = t.user_id AND o.idempotency_key = NULLIF(t.key, ''))");
    let rows = txn.query_all_raw(select.build()).await?;
    let ids: Vec<OrderId> = rows
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect::<Result<_, _>>()?;
    Ok(find_many(txn, &ids).await?.into_values().collect())
}

/// The answer to a request whose order exists already: the first answer again, or a refusal when it asks for
/// something else. `None` if it does not exist.
fn replay(new: &NewOrder, earlier: &[Order]) -> Option<Result<Created, Error>> {
    if let Some(own) = earlier.iter().find(|order| order.row.id == new.id) {
        return Some(Ok(Created {
            order: own.clone(),
            replayed: false,
        }));
    }
    let same_key = |order: &&Order| {
        let order = &order.row;
        order.user_id == new.user_id && order.idempotency_key == new.idempotency_key
    };
    let first = earlier
        .iter()
        .filter(|_| new.idempotency_key.is_some())
        .find(same_key)?;
    let lines = first.items.iter().map(|item| Line {
        product_id: item.product_id,
        quantity: item.quantity,
    });
    if !lines.eq(new.lines.iter().copied()) {
        return Some(Err(Error::IdempotencyKeyReused));
    }
    let mut order = first.clone();
    order.row.status = OrderStatus::Pending;
    order.row.accepted_at = None;
    order.row.settled_at = None;
    order.row.failure = None;
    Some(Ok(Created { order, replayed: true }))
}
