//! Writing a batch of new orders: priced from the catalogue, inserted in one statement each for orders and lines, and
//! recognised when they have been written before. Orders with a hold take the same way; what they need besides stands in
//! `hold`.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::DatabaseTransaction;
use serde_json::Value;

use super::{
    Created, Line, NewOrder, Order,
    hold::{self, Reserved},
    replay::{find_earlier, replay},
};
use crate::{
    db::sql::{Column, sql},
    domain::{Error, OrderId, ProductId, money, stock_level::StockLevel},
    entities::{
        Timestamp,
        order::{self, OrderStatus},
        order_item,
    },
};

/// Writes the orders whose products all exist, at the catalogue's prices. Returns results in the order of `orders`.
///
/// # Errors
/// For one order: [`Error::UnknownProducts`], [`Error::TotalTooLarge`], [`Error::IdempotencyKeyReused`],
/// [`Error::InsufficientStock`], [`Error::ReferenceTaken`]. For all: the database's, and [`Error::Busy`].
pub async fn create(txn: &DatabaseTransaction, orders: &[NewOrder]) -> Result<Vec<Result<Created, Error>>, Error> {
    let (prices, levels) = read_products(txn, orders).await?;
    let mut candidates: Vec<Result<Order, Error>> = orders.iter().map(|order| price(order, &prices)).collect();
    let Reserved { mut earlier, repeated } = match &levels {
        Some(levels) => hold::reserve(txn, orders, &mut candidates, levels).await?,
        None => Reserved::default(),
    };

    let written = insert_orders(txn, &candidates, &repeated).await?;
    insert_items(txn, &mut candidates, &written).await?;
    hold::write(txn, &candidates, &written).await?;

    // Also for orders that could not be priced this time: an order that exists is answered as it was. Of those that are
    // short of stock it is known that they do not exist.
    let is_short = |candidate: &Result<Order, Error>| matches!(candidate, Err(Error::InsufficientStock(_)));
    let not_written = orders.iter().zip(&candidates);
    let not_written = not_written.filter(|(order, candidate)| !written.contains(&order.id) && !is_short(candidate));
    earlier.extend(find_earlier(txn, not_written.map(|(order, _)| order).collect()).await?);

    let answer = |(new, candidate): (&NewOrder, Result<Order, Error>)| {
        if written.contains(&new.id) {
            let order = candidate?;
            return Ok(Created { order, replayed: false });
        }
        replay(new, &earlier).unwrap_or_else(|| {
            candidate?;
            Err(Error::Busy(format!("order {} was neither written nor found", new.id)))
        })
    };
    let answers: Vec<_> = orders.iter().zip(candidates).map(answer).collect();

    // The order that had the key or the reference was there when this one was inserted, and is not any more: `shop prune` has
    // deleted it. The next attempt can write this one.
    let is_busy = |answer: &&Result<Created, Error>| matches!(answer, Err(Error::Busy(_)));
    match answers.iter().find(is_busy) {
        Some(Err(busy)) => Err(busy.clone()),
        _ => Ok(answers),
    }
}

type Prices = HashMap<ProductId, i64>;
type Levels = HashMap<ProductId, StockLevel>;

/// The prices of the products that can be ordered. If any order is to be held, all products of the batch are locked as well,
/// and their levels read.
async fn read_products(txn: &DatabaseTransaction, orders: &[NewOrder]) -> Result<(Prices, Option<Levels>), Error> {
    let ordered = orders.iter().flat_map(|order| &order.lines).map(|line| line.product_id);
    let ordered: BTreeSet<ProductId> = ordered.collect();
    let ordered: Vec<ProductId> = ordered.into_iter().collect();

    if orders.iter().any(|order| order.hold.is_some()) {
        let (prices, levels) = lock_products(txn, ordered).await?;
        return Ok((prices, Some(levels)));
    }

    // What is taken off the list cannot be ordered, as if it did not exist.
    let prices: Vec<(ProductId, i64)> = sql("
        SELECT id, price
          FROM products
         WHERE id = ANY(:ids) AND active
         ORDER BY id")
    .list("ids", Column::BigInt(ordered))
    .tuples(txn)
    .await?;
    Ok((prices.into_iter().collect(), None))
}

/// Locks in id order, as everywhere.
async fn lock_products(txn: &DatabaseTransaction, ids: Vec<ProductId>) -> Result<(Prices, Levels), Error> {
    let products: Vec<(ProductId, i64, i64, i64)> = sql("
        SELECT id, price, stock, held
          FROM products
         WHERE id = ANY(:ids) AND active
         ORDER BY id
           FOR NO KEY UPDATE")
    .list("ids", Column::BigInt(ids))
    .tuples(txn)
    .await?;

    let prices = products.iter().map(|&(id, price, _, _)| (id, price));
    let levels = products
        .iter()
        .map(|&(id, _, stock, held)| (id, StockLevel { stock, held }));
    Ok((prices.collect(), levels.collect()))
}

/// The order as it will be stored, or why it cannot be.
fn price(new: &NewOrder, prices: &Prices) -> Result<Order, Error> {
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
        expires_at: new.hold.map(|hold| new.created_at.plus(hold)),
        accepted_at: None,
        notify_after: None,
        notify_attempts: 0,
        settled_at: None,
        failure: None,
        reference: new.labels.reference.clone(),
        metadata: new.labels.metadata.clone(),
        payment_reference: None,
        created_at: new.created_at,
        updated_at: new.created_at,
    };
    Ok(Order { row, items })
}

/// Inserts those that can be, but for `repeated`, and returns the ids that are new. What is missing from the answer has a row
/// already, or its reference belongs to another order.
async fn insert_orders(
    txn: &DatabaseTransaction,
    candidates: &[Result<Order, Error>],
    repeated: &HashSet<OrderId>,
) -> Result<HashSet<OrderId>, Error> {
    let orders = candidates.iter().flatten().map(|order| &order.row);
    let mut orders: Vec<&order::Model> = orders.filter(|row| !repeated.contains(&row.id)).collect();
    if orders.is_empty() {
        return Ok(HashSet::new());
    }

    // Everybody inserts in the same order, so that two batches with the same idempotency keys never wait for each other
    // in a circle.
    orders.sort_by(|a, b| (a.user_id, &a.idempotency_key, a.id).cmp(&(b.user_id, &b.idempotency_key, b.id)));
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();

    let numbers = |number: fn(&order::Model) -> i64| Column::BigInt(orders.iter().map(|order| number(order)).collect());
    let texts = |text: fn(&order::Model) -> String| Column::Text(orders.iter().map(|order| text(order)).collect());
    let instants = |instant: fn(&order::Model) -> Timestamp| {
        Column::Timestamp(orders.iter().map(|order| instant(order)).collect())
    };
    let metadata = |order: &&order::Model| order.metadata.as_ref().map_or("null".to_owned(), Value::to_string);

    // A key or a reference that is missing is sent as '', which no real one is, and a hold that is missing as `created_at`,
    // since none lasts for no time. SQLite needs `WHERE true` to tell ON CONFLICT from the ON of a join.
    let inserted = sql("
        INSERT INTO orders (id, user_id, status, total_price, currency, idempotency_key, expires_at, reference, metadata,
                            created_at, updated_at)
        SELECT id, user_id, 'PENDING', total_price, currency, NULLIF(idempotency_key, ''), NULLIF(expires_at, created_at),
               NULLIF(reference, ''), NULLIF(metadata, 'null'), created_at, created_at
          FROM :new_orders
         WHERE true
            ON CONFLICT DO NOTHING")
    .table(
        "new_orders",
        [
            ("id", Column::Uuid(ids.clone())),
            ("user_id", numbers(|order| order.user_id)),
            ("total_price", numbers(|order| order.total_price)),
            ("currency", texts(|order| order.currency.clone())),
            (
                "idempotency_key",
                texts(|order| order.idempotency_key.clone().unwrap_or_default()),
            ),
            ("expires_at", instants(|order| order.expires_at.unwrap_or(order.created_at))),
            ("reference", texts(|order| order.reference.clone().unwrap_or_default())),
            ("metadata", Column::Json(orders.iter().map(metadata).collect())),
            ("created_at", instants(|order| order.created_at)),
        ],
    )
    .execute(txn)
    .await?;
    if inserted == orders.len() as u64 {
        return Ok(ids.into_iter().collect());
    }

    let new = without_lines(txn, ids).await?;
    Ok(new.into_iter().collect())
}

/// Those of `ids` that were inserted just now: orders of earlier transactions have lines already.
async fn without_lines(txn: &DatabaseTransaction, ids: Vec<OrderId>) -> Result<Vec<OrderId>, Error> {
    let new = sql("
        SELECT o.id
          FROM orders o
         WHERE o.id = ANY(:ids) AND NOT EXISTS (SELECT 1 FROM order_items i WHERE i.order_id = o.id)")
    .list("ids", Column::Uuid(ids))
    .scalars(txn)
    .await?;
    Ok(new)
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
