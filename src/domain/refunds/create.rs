//! Making a refund, in one transaction: the order's row is locked, so that refunds of one order come one after another;
//! what is left is worked out; the refund is stored with the movements of what goes back on the shelf, and with its event.

use std::collections::HashMap;

use sea_orm::DatabaseTransaction;

use super::{
    NewRefund, Refund, RefundId, RefundItem,
    limit::{PaidLine, RefundBalance, refund_amount},
};
use crate::{
    db::sql::{Column, sql},
    domain::{
        Error, OrderId, ProductId, UserId,
        catalog::{Origin, StockChange, make_stock_changes},
        outbox,
    },
    entities::{Timestamp, order::OrderStatus},
};

/// The columns of an order that refunding it needs.
struct OrderRow {
    user_id: UserId,
    total_price: i64,
    currency: String,
}

/// Refunds a PAID order. The caller must have checked that the request is an administrator's.
///
/// # Errors
/// [`Error::OrderNotFound`], [`Error::OrderNotPaid`], [`Error::RefundExceedsPayment`], and [`Error::StockOutOfRange`] when
/// the shelf cannot hold what is put back.
pub async fn create(
    txn: &DatabaseTransaction,
    now: Timestamp,
    new: &NewRefund,
    origin: &Origin,
    low_stock_at: i64,
) -> Result<Refund, Error> {
    let order = lock_order(txn, new.order_id).await?;
    let balance = read_balance(txn, new.order_id, order.total_price).await?;
    let amount = refund_amount(new, &balance)?;

    let mut items = new.items.clone();
    items.sort_unstable_by_key(|item| item.product_id);
    let refund = Refund {
        id: new.id,
        order_id: new.order_id,
        amount,
        currency: order.currency,
        reason: new.reason.clone(),
        user_id: origin.user_id,
        created_at: now,
        items,
    };

    let returned = restocked(&refund);
    let made = make_stock_changes(txn, now, &returned, origin, low_stock_at).await;
    let made = made.map_err(|error| match error {
        Error::StockChangesRefused(mut refused) if !refused.is_empty() => refused.swap_remove(0).1,
        error => error,
    })?;

    insert(txn, &refund).await?;
    insert_items(txn, &refund, &made.movements).await?;
    outbox::store(txn, now, &[refund.event(order.user_id)]).await?;
    Ok(refund)
}

/// What goes back on the shelf.
fn restocked(refund: &Refund) -> Vec<StockChange> {
    let returned = refund.items.iter().filter(|item| item.restock);
    returned
        .map(|item| StockChange::by(item.product_id, item.quantity, refund.reason.as_str()))
        .collect()
}

/// Locks the order as settlement does. Whatever else refunds it waits here.
async fn lock_order(txn: &DatabaseTransaction, id: OrderId) -> Result<OrderRow, Error> {
    let orders: Vec<(UserId, OrderStatus, i64, String)> = sql("
        SELECT user_id, status, total_price, currency
          FROM orders
         WHERE id = :id
           FOR NO KEY UPDATE")
    .bind("id", id)
    .tuples(txn)
    .await?;

    match orders.into_iter().next() {
        None => Err(Error::OrderNotFound(id)),
        Some((user_id, OrderStatus::Paid, total_price, currency)) => Ok(OrderRow {
            user_id,
            total_price,
            currency,
        }),
        Some(_) => Err(Error::OrderNotPaid(id)),
    }
}

/// What was paid and refunded. The order is locked, so nothing is added to it meanwhile.
async fn read_balance(txn: &DatabaseTransaction, order_id: OrderId, paid: i64) -> Result<RefundBalance, Error> {
    let lines: Vec<(ProductId, i64, i64)> = sql("
        SELECT product_id, quantity, unit_price
          FROM order_items
         WHERE order_id = :order_id")
    .bind("order_id", order_id)
    .tuples(txn)
    .await?;
    let refunds: Vec<(RefundId, i64)> = sql("SELECT id, amount FROM refunds WHERE order_id = :order_id")
        .bind("order_id", order_id)
        .tuples(txn)
        .await?;

    let mut refunded_units: HashMap<ProductId, i64> = HashMap::new();
    if !refunds.is_empty() {
        let refunds: Vec<RefundId> = refunds.iter().map(|(id, _)| *id).collect();
        let units: Vec<(ProductId, i64)> = sql("
            SELECT product_id, quantity
              FROM refund_items
             WHERE refund_id = ANY(:refunds)")
        .list("refunds", Column::Uuid(refunds))
        .tuples(txn)
        .await?;
        for (product_id, quantity) in units {
            *refunded_units.entry(product_id).or_default() += quantity;
        }
    }

    let line = |(product_id, quantity, unit_price)| PaidLine {
        product_id,
        quantity,
        unit_price,
    };
    Ok(RefundBalance {
        paid,
        refunded: refunds.iter().map(|(_, amount)| amount).sum(),
        lines: lines.into_iter().map(line).collect(),
        refunded_units,
    })
}

async fn insert(txn: &DatabaseTransaction, refund: &Refund) -> Result<(), Error> {
    sql("
        INSERT INTO refunds (id, order_id, amount, currency, reason, user_id, created_at)
        VALUES (:id, :order_id, :amount, :currency, :reason, :user_id, :created_at)")
    .bind("id", refund.id)
    .bind("order_id", refund.order_id)
    .bind("amount", refund.amount)
    .bind("currency", refund.currency.clone())
    .bind("reason", refund.reason.clone())
    .bind("user_id", refund.user_id)
    .timestamp("created_at", refund.created_at)
    .execute(txn)
    .await?;
    Ok(())
}

/// Inserts the items, each with the movement that put it back on the shelf.
async fn insert_items(
    txn: &DatabaseTransaction,
    refund: &Refund,
    movements: &HashMap<ProductId, i64>,
) -> Result<(), Error> {
    if refund.items.is_empty() {
        return Ok(());
    }

    let numbers = |number: fn(&RefundItem) -> i64| Column::BigInt(refund.items.iter().map(number).collect());
    let movement = |item: &RefundItem| movements.get(&item.product_id).copied().unwrap_or(0);
    sql("
        INSERT INTO refund_items (refund_id, product_id, quantity, movement_id)
        SELECT :refund_id, product_id, quantity, NULLIF(movement_id, 0)
          FROM :items")
    .bind("refund_id", refund.id)
    .table(
        "items",
        [
            ("product_id", numbers(|item| item.product_id)),
            ("quantity", numbers(|item| item.quantity)),
            (
                "movement_id",
                Column::BigInt(refund.items.iter().map(movement).collect()),
            ),
        ],
    )
    .execute(txn)
    .await?;
    Ok(())
}
