//! Orders before they are settled: creating them, accepting their payment, finding them. Creating and accepting take a whole batch, so that locks,
//! round trips and the commit's fsync are paid once for all who asked meanwhile; each order is answered for itself.

use std::{collections::HashMap, time::Duration};

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect,
    sea_query::Expr,
};

mod create;

pub use create::create;

use super::{Caller, Error, OrderId, ProductId, UserId};
use crate::{
    db::sql::{Column, Sql},
    entities::{
        Timestamp,
        order::{self, OrderStatus},
        order_item,
    },
};

/// The most orders on a page.
pub const MAX_PAGE: u64 = 200;
/// An order accepted this long ago and still PENDING is rung for by the sweeper.
pub const NOTIFY_AFTER: Duration = Duration::from_secs(5);
/// The sweeper notify_attempts for one order no more rarely than this.
pub const MAX_NOTIFY_INTERVAL: Duration = Duration::from_secs(40);

/// A line that a customer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    pub product_id: ProductId,
    /// Units, 1 or more.
    pub quantity: i64,
}

/// An order to be. Its id is chosen by the caller, so that a transaction whose answer was lost can be run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    pub id: OrderId,
    pub user_id: UserId,
    /// One or more, no product twice.
    pub lines: Vec<Line>,
    pub currency: String,
    pub idempotency_key: Option<String>,
    pub created_at: Timestamp,
}

/// An order with its lines, in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub row: order::Model,
    pub items: Vec<order_item::Model>,
}

/// What became of a request to create an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub order: Order,
    /// The order had been created before, under the same idempotency key.
    pub replayed: bool,
}

/// Accepts the payment of those that are PENDING and that their caller sees, once: however often it is asked for, the
/// first acceptance stands. Answers with each order as it is now, in the order of `asked`.
///
/// # Errors
/// For one order: [`Error::OrderNotFound`]. For all: the database's.
pub async fn accept_payments(
    txn: &impl ConnectionTrait,
    now: Timestamp,
    asked: &[(Caller, OrderId)],
) -> Result<Vec<Result<Order, Error>>, Error> {
    let ids: Vec<OrderId> = asked.iter().map(|(_, id)| *id).collect();
    let columns = [
        ("id", Column::Uuid(ids.clone())),
        (
            "owner",
            Column::BigInt(asked.iter().map(|(caller, _)| caller.restriction()).collect()),
        ),
    ];
    // Locked in id order, as everywhere: an UPDATE alone would lock in the order in which it happens to find them.
    let accept = Sql::new(
        txn.get_database_backend(),
        "WITH due AS (SELECT o.id FROM orders o JOIN ",
    )
    .rows("t", columns)
    .push(
        " ON o.id = t.id WHERE (t.owner = 0 OR t.owner = o.user_id) AND o.status = 'PENDING' \
          AND o.accepted_at IS NULL ORDER BY o.id",
    )
    .for_update_of("o")
    .push(") UPDATE orders SET accepted_at = ")
    .bind(now)
    .push(", notify_after = ")
    .bind(now.plus(NOTIFY_AFTER))
    .push(" WHERE id IN (SELECT id FROM due)");
    txn.execute_raw(accept.build()).await?;
    let found = find_many(txn, &ids).await?;
    Ok(asked
        .iter()
        .map(|(caller, id)| {
            let order = found.get(id).filter(|order| caller.can_view(order.row.user_id));
            order.cloned().ok_or(Error::OrderNotFound(*id))
        })
        .collect())
}

/// An order that the caller sees.
///
/// # Errors
/// [`Error::OrderNotFound`] as well for an order of somebody else; or the database's.
pub async fn find(connection: &impl ConnectionTrait, caller: Caller, id: OrderId) -> Result<Order, Error> {
    let rows = order::Entity::find_by_id(id)
        .find_with_related(order_item::Entity)
        .order_by_asc(order_item::Column::Id)
        .all(connection)
        .await?;
    let seen = rows
        .into_iter()
        .next()
        .filter(|(order, _)| caller.can_view(order.user_id));
    let (row, items) = seen.ok_or(Error::OrderNotFound(id))?;
    Ok(Order { row, items })
}

/// Which orders to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderQuery {
    /// Only orders of this user.
    pub user_id: Option<UserId>,
    pub status: Option<OrderStatus>,
    /// 1 to [`MAX_PAGE`].
    pub limit: u64,
    /// Only orders made before this one.
    pub before: Option<OrderId>,
}

/// A page of orders, newest first, and whether more follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderPage {
    pub orders: Vec<Order>,
    pub more: bool,
}

/// The caller's orders, newest first; an administrator's are everybody's.
///
/// # Errors
/// [`Error::Forbidden`] for the orders of somebody else, or the database's.
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
        // As text and not beside it, so that the database sees when a partial index serves.
        select = select.filter(Expr::cust(match status {
            OrderStatus::Pending => "status = 'PENDING'",
            OrderStatus::Paid => "status = 'PAID'",
            OrderStatus::Failed => "status = 'FAILED'",
        }));
    }
    if let Some(before) = query.before {
        select = select.filter(order::Column::Id.lt(before));
    }
    let mut ids: Vec<OrderId> = select.into_tuple().all(connection).await?;
    let more = ids.len() as u64 > query.limit;
    ids.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    let mut found = find_many(connection, &ids).await?;
    let orders = ids.iter().filter_map(|id| found.remove(id));
    Ok(OrderPage {
        orders: orders.collect(),
        more,
    })
}

/// How far each of `ids` has come: those that are accepted, and whether they are settled.
///
/// # Errors
/// The database's.
pub async fn progress(connection: &impl ConnectionTrait, ids: &[OrderId]) -> Result<Vec<(OrderId, bool)>, Error> {
    let select = Sql::new(
        connection.get_database_backend(),
        "SELECT o.id, o.status FROM orders o WHERE o.accepted_at IS NOT NULL AND o.id IN (SELECT t.id FROM ",
    )
    .rows("t", [("id", Column::Uuid(ids.to_vec()))])
    .push(")");
    let rows = connection.query_all_raw(select.build()).await?;
    let read = |row: &QueryResult| -> Result<(OrderId, bool), DbErr> {
        let status: OrderStatus = row.try_get_by_index(1)?;
        Ok((row.try_get_by_index(0)?, status != OrderStatus::Pending))
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// Takes up to `limit` orders that were accepted, are still PENDING and are to be rung for by `now`, pushes their next
/// ring out (twice as far each time, up to [`MAX_NOTIFY_INTERVAL`]), and answers their ids.
///
/// # Errors
/// The database's.
pub async fn claim_due(txn: &impl ConnectionTrait, now: Timestamp, limit: i64) -> Result<Vec<OrderId>, Error> {
    let first = i64::try_from(NOTIFY_AFTER.as_micros()).unwrap_or(i64::MAX);
    let doublings = (MAX_NOTIFY_INTERVAL.as_secs() / NOTIFY_AFTER.as_secs()).ilog2();
    let take = Sql::new(
        txn.get_database_backend(),
        "WITH due AS (SELECT id FROM orders WHERE status = 'PENDING' AND accepted_at IS NOT NULL AND notify_after <= ",
    )
    .bind(now)
    .push(" ORDER BY notify_after LIMIT ")
    .bind(limit)
    .for_update_skip_locked()
    .push(") UPDATE orders SET notify_attempts = notify_attempts + 1, notify_after = ")
    .bind(now)
    .push(" + ")
    .bind(first)
    .push(" * (1 << (CASE WHEN notify_attempts < ")
    .bind(i32::try_from(doublings).unwrap_or(0))
    .push(" THEN notify_attempts + 1 ELSE ")
    .bind(i32::try_from(doublings).unwrap_or(0))
    .push(" END)) WHERE id IN (SELECT id FROM due) RETURNING id");
    let rows = txn.query_all_raw(take.build()).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get_by_index(0))
        .collect::<Result<_, _>>()?)
}

/// Undoes [`claim_due`] for `ids`, whose requests did not ring: they are due at `now`, and no ring is counted.
///
/// # Errors
/// The database's.
pub async fn release_due(connection: &impl ConnectionTrait, now: Timestamp, ids: &[OrderId]) -> Result<(), Error> {
    let release_due = Sql::new(
        connection.get_database_backend(),
        "UPDATE orders SET notify_attempts = notify_attempts - 1, notify_after = ",
    )
    .bind(now)
    .push(" WHERE status = 'PENDING' AND notify_attempts > 0 AND id IN (SELECT t.id FROM ")
    .rows("t", [("id", Column::Uuid(ids.to_vec()))])
    .push(")");
    connection.execute_raw(release_due.build()).await?;
    Ok(())
}

/// Makes every order that was accepted and is still PENDING due for a ring at `now`; answers how many there are.
///
/// # Errors
/// The database's.
pub async fn make_all_due(txn: &impl ConnectionTrait, now: Timestamp) -> Result<u64, Error> {
    let make_all_due = Sql::new(txn.get_database_backend(), "UPDATE orders SET notify_after = ")
        .bind(now)
        .push(" WHERE status = 'PENDING' AND accepted_at IS NOT NULL");
    Ok(txn.execute_raw(make_all_due.build()).await?.rows_affected())
}

/// How many of `ids` are orders already.
///
/// # Errors
/// The database's.
pub async fn count_known(
    connection: &impl ConnectionTrait,
    ids: impl Iterator<Item = OrderId>,
) -> Result<usize, Error> {
    let select = Sql::new(
        connection.get_database_backend(),
        "SELECT id FROM orders WHERE id IN (SELECT t.id FROM ",
    )
    .rows("t", [("id", Column::Uuid(ids.collect()))])
    .push(")");
    Ok(connection.query_all_raw(select.build()).await?.len())
}

/// The orders that exist among `ids`, with their lines.
async fn find_many(connection: &impl ConnectionTrait, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, Error> {
    let backend = connection.get_database_backend();
    let select = |text: &str| {
        Sql::new(backend, text)
            .rows("t", [("id", Column::Uuid(ids.to_vec()))])
            .push(")")
    };
    let orders = select("SELECT o.* FROM orders o WHERE o.id IN (SELECT t.id FROM ").build();
    let items = select("SELECT i.* FROM order_items i WHERE i.order_id IN (SELECT t.id FROM ")
        .push(" ORDER BY i.id")
        .build();
    let orders = order::Entity::find().from_raw_sql(orders).all(connection).await?;
    let items = order_item::Entity::find().from_raw_sql(items).all(connection).await?;
    let mut found: HashMap<OrderId, Order> = orders
        .into_iter()
        .map(|row| {
            let items = Vec::new();
            (row.id, Order { row, items })
        })
        .collect();
    for item in items {
        if let Some(order) = found.get_mut(&item.order_id) {
            order.items.push(item);
        }
    }
    Ok(found)
}
