//! Reading orders: one, several by id, or a page of them.

use std::{collections::HashMap, time::Duration};

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _, QueryResult,
    QuerySelect as _,
    sea_query::{Expr, ExprTrait as _},
};

use super::{Order, OrderPage, OrderQuery};
use crate::{
    db::sql::{Column, sql},
    domain::{Caller, Error, OrderId, UserId, ids::first_id_at},
    entities::{
        Timestamp,
        order::{self, OrderStatus},
        order_item,
    },
};

/// The end of the year 9999, the last that RFC 3339 can write.
const LAST: Timestamp = Timestamp(253_402_300_800_000_000 - 1);
/// The instant that the id of an order begins with, and that at which it was made, differ by less.
const ID_TOLERANCE: Duration = Duration::from_secs(1);

/// An order that the caller may see.
///
/// # Errors
/// [`Error::OrderNotFound`], also for an order of somebody else.
pub async fn find(connection: &impl ConnectionTrait, caller: Caller, id: OrderId) -> Result<Order, Error> {
    let mut rows = sql("
        SELECT o.id, o.user_id, o.status, o.total_price, o.currency, o.idempotency_key, o.expires_at, o.accepted_at,
               o.notify_after, CAST(o.notify_attempts AS bigint), o.settled_at, o.failure, o.reference, o.metadata,
               o.payment_reference, o.created_at, o.updated_at,
               i.id, i.order_id, i.product_id, i.quantity, i.unit_price
          FROM orders o
          LEFT JOIN order_items i ON i.order_id = o.id
         WHERE o.id = :id
         ORDER BY i.id")
    .bind("id", id)
    .rows(connection, |row| {
        Ok((read_order(row, 0)?, read_item(row, ORDER_COLUMNS)?))
    })
    .await?
    .into_iter();

    let (row, first) = rows.next().ok_or(Error::OrderNotFound(id))?;
    if !caller.can_view(row.user_id) {
        return Err(Error::OrderNotFound(id));
    }
    let others = rows.filter_map(|(_, item)| item);
    let items = first.into_iter().chain(others).collect();
    Ok(Order { row, items })
}

/// The orders that exist among `ids` and can be read, without their lines, whoever they belong to.
pub async fn find_rows(connection: &impl ConnectionTrait, ids: &[OrderId]) -> Result<Vec<order::Model>, Error> {
    let rows = sql("
        SELECT id, user_id, status, total_price, currency, idempotency_key, expires_at, accepted_at, notify_after,
               CAST(notify_attempts AS bigint), settled_at, failure, reference, metadata, payment_reference,
               created_at, updated_at
          FROM orders
         WHERE id = ANY(:ids)
         ORDER BY id")
    .list("ids", Column::Uuid(ids.to_vec()))
    .readable_rows(connection, "orders", |row| read_order(row, 0))
    .await?;
    Ok(rows)
}

/// The orders that exist among `ids` and can be read, with their lines, whoever they belong to.
pub(super) async fn find_all(
    connection: &impl ConnectionTrait,
    ids: &[OrderId],
) -> Result<HashMap<OrderId, Order>, Error> {
    let rows = find_rows(connection, ids).await?;
    add_items(connection, rows).await
}

/// Orders by their ids, with the lines of each.
pub(super) async fn add_items(
    connection: &impl ConnectionTrait,
    rows: Vec<order::Model>,
) -> Result<HashMap<OrderId, Order>, Error> {
    if rows.is_empty() {
        return Ok(HashMap::new());
    }

    let ids = rows.iter().map(|row| row.id).collect();
    let items = sql("
        SELECT id, order_id, product_id, quantity, unit_price
          FROM order_items
         WHERE order_id = ANY(:ids)
         ORDER BY order_id, product_id")
    .list("ids", Column::Uuid(ids))
    .rows(connection, |row| {
        let order_id: OrderId = row.try_get_by_index(1)?;
        Ok((order_id, read_item(row, 0)))
    })
    .await?;

    let with_items = |row: order::Model| (row.id, Order { row, items: Vec::new() });
    let mut orders: HashMap<OrderId, Order> = rows.into_iter().map(with_items).collect();
    for (order_id, item) in items {
        match item {
            Ok(item) => {
                let order = orders.get_mut(&order_id);
                if let Some(order) = order {
                    order.items.extend(item);
                }
            }
            // Without one of its lines it would be another order.
            Err(error) => {
                tracing::error!(%error, %order_id, "left out an order with a line that cannot be read");
                orders.remove(&order_id);
            }
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

    let mut query = query.clone();
    loop {
        let (ids, more) = list_ids(connection, user_id, &query).await?;
        let mut found = find_all(connection, &ids).await?;
        let orders: Vec<Order> = ids.iter().filter_map(|id| found.remove(id)).collect();

        // A page on which no order can be read says nothing of those that follow.
        if !(orders.is_empty() && more) {
            return Ok(OrderPage { orders, more });
        }
        query.before = ids.last().copied();
    }
}

/// The ids of the orders on a page, and whether more follow.
async fn list_ids(
    connection: &impl ConnectionTrait,
    user_id: Option<UserId>,
    query: &OrderQuery,
) -> Result<(Vec<OrderId>, bool), Error> {
    let mut ids = match &query.reference {
        Some(reference) => ids_by_reference(connection, user_id, reference, query).await?,
        None => ids_in_range(connection, user_id, query).await?,
    };

    let more = ids.len() as u64 > query.limit;
    ids.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    Ok((ids, more))
}

/// MATERIALIZED, so that the orders are found by their reference, and not among all in the order of their ids.
async fn ids_by_reference(
    connection: &impl ConnectionTrait,
    user_id: Option<UserId>,
    reference: &str,
    query: &OrderQuery,
) -> Result<Vec<OrderId>, Error> {
    let ids = sql("
        WITH named AS MATERIALIZED (
            SELECT id, user_id, status, created_at
              FROM orders
             WHERE reference = :reference
        )
        SELECT id
          FROM named
         WHERE user_id BETWEEN :first_user AND :last_user
           AND (:status = '' OR status = :status)
           AND created_at >= :created_from AND created_at < :created_to
           AND id < :before
         ORDER BY id DESC
         LIMIT :limit")
    .bind("reference", reference)
    .bind("first_user", user_id.unwrap_or(UserId::MIN))
    .bind("last_user", user_id.unwrap_or(UserId::MAX))
    .bind("status", query.status.map_or("", OrderStatus::as_str))
    .timestamp("created_from", query.created_from.unwrap_or(Timestamp(0)))
    .timestamp("created_to", query.created_to.unwrap_or(LAST))
    .bind("before", query.before.unwrap_or(OrderId::max()))
    .bind("limit", i64::try_from(query.limit + 1).unwrap_or(i64::MAX))
    .scalars(connection)
    .await?;
    Ok(ids)
}

/// Ids begin with the time at which they were made, so that a range of time is a range of ids as well.
async fn ids_in_range(
    connection: &impl ConnectionTrait,
    user_id: Option<UserId>,
    query: &OrderQuery,
) -> Result<Vec<OrderId>, Error> {
    let backend = connection.get_database_backend();
    let created_at = || Expr::col(order::Column::CreatedAt);

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
    if let Some(from) = query.created_from {
        select = select
            .filter(order::Column::Id.gte(first_id_at(from.minus(ID_TOLERANCE))))
            .filter(created_at().gte(from.to_value(backend)));
    }
    if let Some(to) = query.created_to {
        select = select
            .filter(order::Column::Id.lt(first_id_at(to.plus(ID_TOLERANCE))))
            .filter(created_at().lt(to.to_value(backend)));
    }
    Ok(select.into_tuple().all(connection).await?)
}

/// Those of `ids` whose payment is accepted or that are settled, and whether they are.
pub async fn progress(connection: &impl ConnectionTrait, ids: &[OrderId]) -> Result<Vec<(OrderId, bool)>, Error> {
    let progress = sql("
        SELECT id, status
          FROM orders
         WHERE id = ANY(:ids) AND (accepted_at IS NOT NULL OR status <> 'PENDING')
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

/// How many columns [`read_order`] reads.
const ORDER_COLUMNS: usize = 17;

/// The columns of an order in the order of the statements above, from the column `first` on.
pub(super) fn read_order(row: &QueryResult, first: usize) -> Result<order::Model, DbErr> {
    Ok(order::Model {
        id: row.try_get_by_index(first)?,
        user_id: row.try_get_by_index(first + 1)?,
        status: row.try_get_by_index(first + 2)?,
        total_price: row.try_get_by_index(first + 3)?,
        currency: row.try_get_by_index(first + 4)?,
        idempotency_key: row.try_get_by_index(first + 5)?,
        expires_at: row.try_get_by_index(first + 6)?,
        accepted_at: row.try_get_by_index(first + 7)?,
        notify_after: row.try_get_by_index(first + 8)?,
        notify_attempts: row.try_get_by_index(first + 9)?,
        settled_at: row.try_get_by_index(first + 10)?,
        failure: row.try_get_by_index(first + 11)?,
        reference: row.try_get_by_index(first + 12)?,
        metadata: row.try_get_by_index(first + 13)?,
        payment_reference: row.try_get_by_index(first + 14)?,
        created_at: row.try_get_by_index(first + 15)?,
        updated_at: row.try_get_by_index(first + 16)?,
    })
}

/// The columns of a line, from the column `first` on; `None` where a LEFT JOIN found no line.
fn read_item(row: &QueryResult, first: usize) -> Result<Option<order_item::Model>, DbErr> {
    let id: Option<i64> = row.try_get_by_index(first)?;
    let Some(id) = id else { return Ok(None) };

    Ok(Some(order_item::Model {
        id,
        order_id: row.try_get_by_index(first + 1)?,
        product_id: row.try_get_by_index(first + 2)?,
        quantity: row.try_get_by_index(first + 3)?,
        unit_price: row.try_get_by_index(first + 4)?,
    }))
}
