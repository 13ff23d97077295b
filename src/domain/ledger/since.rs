//! The periodic check: what has changed since the last clean check, and the stock of every product. It takes the totals of that
//! check for granted, so it does not see when something that was clean then has been tampered with since.

use std::{collections::BTreeMap, time::Duration};

use sea_orm::DatabaseTransaction;

use super::{
    Error, MAX_LISTED, OrderDiscrepancy, ProductId, Report, StockDiscrepancy,
    changes::Changes,
    checkpoint::{Base, Checked, Checkpoint, Mark, Totals},
    holds::{held, hold_discrepancies},
    overdue,
    refunds::refund_discrepancies,
    stock::{self, Stocked},
};
use crate::{
    db::{
        self,
        sql::{Column, sql},
    },
    entities::Timestamp,
};

/// Checks what has changed since the last clean check. `None` if there is none to go on from. Run it in one snapshot.
pub async fn check_since_clean(
    txn: &DatabaseTransaction,
    now: Timestamp,
    max_age: Duration,
) -> Result<Option<Checked>, Error> {
    let checkpoint = Checkpoint::read(txn).await?;
    if !checkpoint.is_clean {
        return Ok(None);
    }
    let (base, mark) = (checkpoint.base(), checkpoint.closed(txn).await?);

    let counted: Vec<(i64, i64)> = sql("
        SELECT (SELECT COUNT(*) FROM products),
               (SELECT COUNT(*) FROM orders WHERE ledger_period >= :period)")
    .bind("period", base.period)
    .tuples(txn)
    .await?;
    let (products, orders) = counted.first().copied().unwrap_or_default();
    let unlike_base = stocked_unlike_base(txn).await?;
    let held = held(txn).await?;

    // All that follows starts from few rows.
    db::join_by_index(txn).await?;
    let changes = Changes::since(txn, base, mark).await?;
    let moved = stocked(txn, changes.products()).await?;
    let mut order_discrepancies = order_discrepancies(txn, base).await?;
    order_discrepancies.extend(refund_discrepancies(txn, base.period).await?);

    let report = Report {
        products,
        orders,
        stock_discrepancies: stock_discrepancies(unlike_base, &moved, &changes),
        hold_discrepancies: hold_discrepancies(txn, held).await?,
        order_discrepancies,
        overdue: overdue(txn, now, max_age).await?,
    };
    let totals = moved.iter().map(|product| totals(product, &changes)).collect();
    Ok(Some(Checked {
        report,
        is_full: false,
        base: Base { mark, totals },
    }))
}

/// Every product whose stock is not what the base says. Those that were sold or restocked since are among them.
async fn stocked_unlike_base(txn: &DatabaseTransaction) -> Result<Vec<Stocked>, Error> {
    let products = sql("
        SELECT p.id AS product_id,
               p.stock,
               COALESCE(t.put_in, 0) AS put_in,
               COALESCE(t.sold, 0) AS sold
          FROM products p
          LEFT JOIN ledger_totals t ON t.product_id = p.id
         WHERE p.stock < 0
            OR p.stock <> COALESCE(t.put_in, 0) - COALESCE(t.sold, 0)")
    .all(txn)
    .await?;
    Ok(products)
}

async fn stocked(txn: &DatabaseTransaction, products: Vec<ProductId>) -> Result<Vec<Stocked>, Error> {
    let products = sql("
        SELECT p.id AS product_id,
               p.stock,
               COALESCE(t.put_in, 0) AS put_in,
               COALESCE(t.sold, 0) AS sold
          FROM products p
          LEFT JOIN ledger_totals t ON t.product_id = p.id
         WHERE p.id = ANY(:products)")
    .list("products", Column::BigInt(products))
    .all(txn)
    .await?;
    Ok(products)
}

/// A product that has moved is among `moved` even if its stock is still what the base says.
fn stock_discrepancies(unlike_base: Vec<Stocked>, moved: &[Stocked], changes: &Changes) -> Vec<StockDiscrepancy> {
    let candidates: BTreeMap<ProductId, Stocked> = unlike_base
        .into_iter()
        .chain(moved.iter().copied())
        .map(|product| (product.product_id, product))
        .collect();

    let up_to_now = |product: Stocked| {
        let (put_in, sold) = changes.of(product.product_id);
        Stocked {
            put_in: product.put_in.saturating_add(put_in.units),
            sold: product.sold.saturating_add(sold.units),
            ..product
        }
    };
    stock::discrepancies(candidates.into_values().map(up_to_now))
}

/// The totals of a product up to the new mark.
fn totals(product: &Stocked, changes: &Changes) -> Totals {
    let (put_in, sold) = changes.of(product.product_id);
    Totals {
        product_id: product.product_id,
        put_in: product.put_in.saturating_add(put_in.closed),
        sold: product.sold.saturating_add(sold.closed),
    }
}

/// MATERIALIZED, so that the orders are found by their period and not in the order of their ids. An order's lines are looked
/// up by a subquery, which no planner turns into a join.
async fn order_discrepancies(txn: &DatabaseTransaction, base: Mark) -> Result<Vec<OrderDiscrepancy>, Error> {
    let found = sql("
        WITH settled AS MATERIALIZED (
            SELECT o.id, o.status, o.total_price, o.failure,
                   (SELECT SUM(i.quantity * i.unit_price)
                      FROM order_items i
                     WHERE i.order_id = o.id) AS lines_total
              FROM orders o
             WHERE o.ledger_period >= :base
        )
        SELECT id AS order_id, status, problem
          FROM (SELECT id,
                       status,
                       CASE WHEN lines_total IS NULL
                            THEN 'has no lines'
                            WHEN status = 'PAID' AND total_price <> lines_total
                            THEN 'its total is not the sum of its lines'
                            WHEN status = 'FAILED' AND COALESCE(failure ->> 'reason', '') = ''
                            THEN 'has failed without a reason'
                        END AS problem
                  FROM settled) checked
         WHERE problem IS NOT NULL
         ORDER BY id
         LIMIT :limit")
    .bind("base", base.period)
    .bind("limit", MAX_LISTED)
    .all(txn)
    .await?;
    Ok(found)
}
