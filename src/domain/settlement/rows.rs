//! What a settlement reads, under locks: orders and their lines.

use std::collections::HashMap;

use sea_orm::{DatabaseTransaction, DbErr, QueryResult};

use super::{ClaimedLine, Decision, Settled};
use crate::{
    db::sql::{Column, sql},
    domain::{Error, OrderId, ProductId, UserId, transition::OrderState},
    entities::{
        Timestamp,
        order::{OrderStatus, StoredFailure},
    },
};

/// The columns of an order that settling it needs.
pub(super) struct OrderRow {
    pub id: OrderId,
    pub user_id: UserId,
    pub status: OrderStatus,
    pub total_price: i64,
    pub currency: String,
    pub expires_at: Option<Timestamp>,
    pub accepted_at: Option<Timestamp>,
    pub settled_at: Option<Timestamp>,
    pub failure: Option<StoredFailure>,
}

impl OrderRow {
    fn read(row: &QueryResult) -> Result<(OrderId, Self), DbErr> {
        let id = row.try_get_by_index(0)?;
        let order = Self {
            id,
            user_id: row.try_get_by_index(1)?,
            status: row.try_get_by_index(2)?,
            total_price: row.try_get_by_index(3)?,
            currency: row.try_get_by_index(4)?,
            expires_at: row.try_get_by_index(5)?,
            accepted_at: row.try_get_by_index(6)?,
            settled_at: row.try_get_by_index(7)?,
            failure: row.try_get_by_index(8)?,
        };
        Ok((id, order))
    }

    pub fn state(&self) -> OrderState {
        OrderState {
            status: self.status,
            accepted_at: self.accepted_at,
            expires_at: self.expires_at,
            settled_at: self.settled_at,
            failure: self.failure.as_ref().and_then(StoredFailure::reason),
        }
    }

    pub fn settled_before(self) -> Option<Settled> {
        Some(Settled {
            id: self.id,
            user_id: self.user_id,
            status: self.status,
            total_price: self.total_price,
            currency: self.currency,
            accepted_at: self.accepted_at,
            settled_at: self.settled_at?,
            failure: self.failure,
            newly_settled: false,
        })
    }

    pub fn settled_now(self, now: Timestamp, decision: Decision) -> Settled {
        let (status, total_price, failure) = match decision {
            Decision::Paid { total_price } => (OrderStatus::Paid, total_price, None),
            Decision::Failed(failure) => (OrderStatus::Failed, self.total_price, Some(failure.into())),
        };
        Settled {
            id: self.id,
            user_id: self.user_id,
            status,
            total_price,
            currency: self.currency,
            accepted_at: self.accepted_at,
            settled_at: now,
            failure,
            newly_settled: true,
        }
    }
}

/// The lines of the orders of a batch.
pub(super) struct Lines(HashMap<OrderId, Vec<ClaimedLine>>);

impl Lines {
    pub fn of(&self, order: OrderId) -> Vec<ClaimedLine> {
        self.0.get(&order).cloned().unwrap_or_default()
    }

    /// The products on the lines of `orders`, each once, in order.
    pub fn products_of<'a>(&self, orders: impl Iterator<Item = &'a OrderId>) -> Vec<ProductId> {
        let lines = orders.filter_map(|id| self.0.get(id)).flatten();
        let mut products: Vec<ProductId> = lines.map(|line| line.product_id).collect();
        products.sort_unstable();
        products.dedup();
        products
    }
}

/// Locks the orders in id order, as everywhere, and reads them.
pub(super) async fn lock_orders(
    txn: &DatabaseTransaction,
    ids: &[OrderId],
) -> Result<HashMap<OrderId, OrderRow>, Error> {
    let orders = sql("
        SELECT id, user_id, status, total_price, currency, expires_at, accepted_at, settled_at, failure
          FROM orders
         WHERE id = ANY(:ids)
         ORDER BY id
           FOR NO KEY UPDATE")
    .list("ids", Column::Uuid(ids.to_vec()))
    .rows(txn, OrderRow::read)
    .await?;
    Ok(orders.into_iter().collect())
}

pub(super) async fn read_lines(
    txn: &DatabaseTransaction,
    orders: impl Iterator<Item = &OrderId>,
) -> Result<Lines, Error> {
    let rows: Vec<(OrderId, ProductId, i64, i64)> = sql("
        SELECT order_id, product_id, quantity, unit_price
          FROM order_items
         WHERE order_id = ANY(:orders)
         ORDER BY order_id, product_id")
    .list("orders", Column::Uuid(orders.copied().collect()))
    .tuples(txn)
    .await?;

    let mut lines: HashMap<OrderId, Vec<ClaimedLine>> = HashMap::new();
    for (order_id, product_id, quantity, unit_price) in rows {
        lines.entry(order_id).or_default().push(ClaimedLine {
            product_id,
            quantity,
            unit_price,
        });
    }
    Ok(Lines(lines))
}
