//! Reading the refunds of an order, a page at a time.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use uuid::Uuid;

use super::{Refund, RefundId, RefundItem, RefundPage, RefundQuery};
use crate::{
    db::sql::{Column, sql},
    domain::{Caller, Error, UserId},
};

/// The refunds of an order that the caller may see, newest first.
///
/// # Errors
/// [`Error::OrderNotFound`], also for an order of somebody else.
pub async fn list(
    connection: &impl ConnectionTrait,
    caller: Caller,
    mut query: RefundQuery,
) -> Result<RefundPage, Error> {
    let owner: Vec<UserId> = sql("SELECT user_id FROM orders WHERE id = :id")
        .bind("id", query.order_id)
        .scalars(connection)
        .await?;
    if !owner.iter().any(|owner| caller.can_view(*owner)) {
        return Err(Error::OrderNotFound(query.order_id));
    }

    loop {
        let (page, last) = read_page(connection, query).await?;
        match last {
            // A page on which no refund can be read says nothing of those that follow.
            Some(last) if page.refunds.is_empty() && page.more => query.before = Some(last),
            _ => return Ok(page),
        }
    }
}

/// A page without the refunds that cannot be read, and the last id on it, be it of one of those.
async fn read_page(
    connection: &impl ConnectionTrait,
    query: RefundQuery,
) -> Result<(RefundPage, Option<RefundId>), Error> {
    let mut rows: Vec<(RefundId, Result<Refund, DbErr>)> = sql("
        SELECT id, order_id, amount, currency, reason, user_id, created_at
          FROM refunds
         WHERE order_id = :order_id AND id < :before
         ORDER BY id DESC
         LIMIT :limit")
    .bind("order_id", query.order_id)
    .bind("before", query.before.unwrap_or(Uuid::max()))
    .bind("limit", i64::try_from(query.limit + 1).unwrap_or(i64::MAX))
    .rows(connection, |row| Ok((row.try_get_by_index(0)?, read_refund(row))))
    .await?;
    let more = rows.len() as u64 > query.limit;
    rows.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    let last = rows.last().map(|(id, _)| *id);

    let ids = rows.iter().map(|(id, _)| *id).collect();
    let mut items = read_items(connection, ids).await?;
    let mut refunds = Vec::with_capacity(rows.len());
    for (id, refund) in rows {
        let items = items.remove(&id).unwrap_or(Ok(Vec::new()));
        let whole = refund.and_then(|refund| items.map(|items| Refund { items, ..refund }));
        match whole {
            Ok(refund) => refunds.push(refund),
            Err(error) => tracing::error!(%error, refund_id = %id, "left out a refund that cannot be read"),
        }
    }
    Ok((RefundPage { refunds, more }, last))
}

/// The items of refunds. Without one of its items it would be another refund.
async fn read_items(
    connection: &impl ConnectionTrait,
    refunds: Vec<RefundId>,
) -> Result<HashMap<RefundId, Result<Vec<RefundItem>, DbErr>>, Error> {
    let rows: Vec<(RefundId, Result<RefundItem, DbErr>)> = sql("
        SELECT refund_id, product_id, quantity, movement_id
          FROM refund_items
         WHERE refund_id = ANY(:refunds)
         ORDER BY refund_id, product_id")
    .list("refunds", Column::Uuid(refunds))
    .rows(connection, |row| Ok((row.try_get_by_index(0)?, read_item(row))))
    .await?;

    let mut items: HashMap<RefundId, Result<Vec<RefundItem>, DbErr>> = HashMap::new();
    for (refund_id, item) in rows {
        let of_refund = items.entry(refund_id).or_insert(Ok(Vec::new()));
        match (item, of_refund) {
            (Ok(item), Ok(of_refund)) => of_refund.push(item),
            (Err(error), of_refund) => *of_refund = Err(error),
            (Ok(_), Err(_)) => {}
        }
    }
    Ok(items)
}

fn read_item(row: &QueryResult) -> Result<RefundItem, DbErr> {
    let movement: Option<i64> = row.try_get_by_index(3)?;
    Ok(RefundItem {
        product_id: row.try_get_by_index(1)?,
        quantity: row.try_get_by_index(2)?,
        restock: movement.is_some(),
    })
}

fn read_refund(row: &QueryResult) -> Result<Refund, DbErr> {
    Ok(Refund {
        id: row.try_get_by_index(0)?,
        order_id: row.try_get_by_index(1)?,
        amount: row.try_get_by_index(2)?,
        currency: row.try_get_by_index(3)?,
        reason: row.try_get_by_index(4)?,
        user_id: row.try_get_by_index(5)?,
        created_at: row.try_get_by_index(6)?,
        items: Vec::new(),
    })
}
