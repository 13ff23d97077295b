//! Reading the refunds of an order, a page at a time.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use uuid::Uuid;

use super::{Refund, RefundId, RefundItem, RefundPage, RefundQuery};
use crate::{
    db::sql::{Column, sql},
    domain::{Caller, Error, ProductId, UserId},
};

/// The refunds of an order that the caller may see, newest first.
///
/// # Errors
/// [`Error::OrderNotFound`], also for an order of somebody else.
pub async fn list(connection: &impl ConnectionTrait, caller: Caller, query: RefundQuery) -> Result<RefundPage, Error> {
    let owner: Vec<UserId> = sql("SELECT user_id FROM orders WHERE id = :id")
        .bind("id", query.order_id)
        .scalars(connection)
        .await?;
    if !owner.iter().any(|owner| caller.can_view(*owner)) {
        return Err(Error::OrderNotFound(query.order_id));
    }

    let mut refunds: Vec<Refund> = sql("
        SELECT id, order_id, amount, currency, reason, user_id, created_at
          FROM refunds
         WHERE order_id = :order_id AND id < :before
         ORDER BY id DESC
         LIMIT :limit")
    .bind("order_id", query.order_id)
    .bind("before", query.before.unwrap_or(Uuid::max()))
    .bind("limit", i64::try_from(query.limit + 1).unwrap_or(i64::MAX))
    .rows(connection, read_refund)
    .await?;
    let more = refunds.len() as u64 > query.limit;
    refunds.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));

    let mut items = read_items(connection, refunds.iter().map(|refund| refund.id).collect()).await?;
    for refund in &mut refunds {
        refund.items = items.remove(&refund.id).unwrap_or_default();
    }
    Ok(RefundPage { refunds, more })
}

async fn read_items(
    connection: &impl ConnectionTrait,
    refunds: Vec<RefundId>,
) -> Result<HashMap<RefundId, Vec<RefundItem>>, Error> {
    let rows: Vec<(RefundId, ProductId, i64, Option<i64>)> = sql("
        SELECT refund_id, product_id, quantity, movement_id
          FROM refund_items
         WHERE refund_id = ANY(:refunds)
         ORDER BY refund_id, product_id")
    .list("refunds", Column::Uuid(refunds))
    .tuples(connection)
    .await?;

    let mut items: HashMap<RefundId, Vec<RefundItem>> = HashMap::new();
    for (refund_id, product_id, quantity, movement) in rows {
        items.entry(refund_id).or_default().push(RefundItem {
            product_id,
            quantity,
            restock: movement.is_some(),
        });
    }
    Ok(items)
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
