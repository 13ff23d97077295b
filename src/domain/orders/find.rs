//! Reading orders: one, several by id, or a page of them.

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _, QueryResult,
    QuerySelect as _,
};

use super::{Order, OrderPage, OrderQuery};
use crate::{
    db::sql::{Column, sql},
    domain::{Caller, Error, OrderId},
    entities::{
        order::{self, OrderStatus},
        order_item,
    },
};

/// An order that the caller may see.
///
/// # Errors
/// [`Error::OrderNotFound`], also for an order of somebody else.
pub async fn find(connection: &impl ConnectionTrait, caller: Caller, id: OrderId) -> Result<Order, Error> {
    let mut found = find_many(connection, &[id]).await?;
    let order = found.remove(&id).filter(|order| caller.can_view(order.row.user_id));
    order.ok_or(Error::OrderNotFound(id))
}

/// The orders that exist among `ids`, with their lines.
pub(super) async fn find_many(
    connection: &impl ConnectionTrait,
    ids: &[OrderId],
) -> Result<HashMap<OrderId, Order>, Error> {
    let rows = sql("
        SELECT id, user_id, status, total_price, currency, idempotency_key, accepted_at, notify_after, notify_attempts,
               settled_at, failure, created_at, updated_at
          FROM orders
         WHERE id = ANY(:ids)
         ORDER BY id")
    .list("ids", Column::Uuid(ids.to_vec()))
    .rows(connection, read_order)
    .await?;
    let items = sql("
        SELECT id, order_id, product_id, quantity, unit_price
          FROM order_items
         WHERE order_id = ANY(:ids)
         ORDER BY order_id, product_id")
    .list("ids", Column::Uuid(ids.to_vec()))
    .rows(connection, read_item)
    .await?;

    let with_items = |row: order::Model| (row.id, Order { row, items: Vec::new() });
    let mut orders: HashMap<OrderId, Order> = rows.into_iter().map(with_items).collect();
    for item in items {
        if let Some(order) = orders.get_mut(&item.order_id) {
            order.items.push(item);
        }
    }
    for order in orders.values_mut() {
        order.items.sort_unstable_by_key(|item| item.id);
    }
    Ok(orders)
}

/// The caller's orders, newest first; an administrator's are everybody's.
///
/// # Errors
/// [`Error::Forbidden`] for the orders of somebody else.
pub async fn list(connection: &impl ConnectionTrait, caller: Caller, query: &OrderQuery) -> Result<OrderPage, Error> {
    let user_id = match (caller, query.user_id) {
        (Caller::Admin, user_id) => user_id,
        (Caller::User(own), None) => Some(own),
        (_, Some(user_id)) => {
            caller.authorize_for(user_id)?;
            Some(user_id)
        }
        (Caller::Anonymous, None) => return Err(Error::Forbidden("say who you are".to_owned())),
    };

    // Ids are UUIDs of version 7, so their order is the order of creation.
    let mut select = order::Entity::find()
        .select_only()
        .column(order::Column::Id)
        .order_by_desc(order::Column::Id)
        .limit(query.limit + 1);
    if let Some(user_id) = user_id {
        select = select.filter(order::Column::UserId.eq(user_id));
    }
    if let Some(status) = query.status {
        select = select.filter(order::Column::Status.eq(status));
    }
    if let Some(before) = query.before {
        select = select.filter(order::Column::Id.lt(before));
    }
    let mut ids: Vec<OrderId> = select.into_tuple().all(connection).await?;

    let more = ids.len() as u64 > query.limit;
    ids.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    let mut found = find_many(connection, &ids).await?;
    let orders = ids.iter().filter_map(|id| found.remove(id)).collect();
    Ok(OrderPage { orders, more })
}

/// Those of `ids` whose payment is accepted, and whether they are settled.
pub async fn progress(connection: &impl ConnectionTrait, ids: &[OrderId]) -> Result<Vec<(OrderId, bool)>, Error> {
    let progress = sql("
        SELECT id, status
          FROM orders
         WHERE id = ANY(:ids) AND accepted_at IS NOT NULL
         ORDER BY id")
    .list("ids", Column::Uuid(ids.to_vec()))
    .rows(connection, |row| {
        let status: OrderStatus = row.try_get_by_index(1)?;
        Ok((row.try_get_by_index(0)?, status != OrderStatus::Pending))
    })
    .await?;
    Ok(progress)
}

/// How many of `ids` are orders already.
pub async fn count_known(connection: &impl ConnectionTrait, ids: Vec<OrderId>) -> Result<usize, Error> {
    let known: Vec<OrderId> = sql("SELECT id FROM orders WHERE id = ANY(:ids) ORDER BY id")
        .list("ids", Column::Uuid(ids))
        .scalars(connection)
        .await?;
    Ok(known.len())
}

/// The columns of an order as [`find_many`] selects them.
fn read_order(row: &QueryResult) -> Result<order::Model, DbErr> {
    Ok(order::Model {
        id: row.try_get_by_index(0)?,
        user_id: row.try_get_by_index(1)?,
        status: row.try_get_by_index(2)?,
        total_price: row.try_get_by_index(3)?,
        currency: row.try_get_by_index(4)?,
        idempotency_key: row.try_get_by_index(5)?,
        accepted_at: row.try_get_by_index(6)?,
        notify_after: row.try_get_by_index(7)?,
        notify_attempts: row.try_get_by_index(8)?,
        settled_at: row.try_get_by_index(9)?,
        failure: row.try_get_by_index(10)?,
        created_at: row.try_get_by_index(11)?,
        updated_at: row.try_get_by_index(12)?,
    })
}

/// The columns of a line as [`find_many`] selects them.
fn read_item(row: &QueryResult) -> Result<order_item::Model, DbErr> {
    Ok(order_item::Model {
        id: row.try_get_by_index(0)?,
        order_id: row.try_get_by_index(1)?,
        product_id: row.try_get_by_index(2)?,
        quantity: row.try_get_by_index(3)?,
        unit_price: row.try_get_by_index(4)?,
    })
}
