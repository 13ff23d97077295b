//! Which accepted orders need another settle request. The orders table is its own outbox: `notify_after` says when an order
//! is due, `notify_attempts` how often the sweeper has published one.

use sea_orm::ConnectionTrait;

use super::{MAX_NOTIFY_INTERVAL, NOTIFY_AFTER};
use crate::{
    db::sql::{Column, sql},
    domain::{Error, OrderId},
    entities::Timestamp,
};

/// Claims up to `limit` orders that were accepted, are still PENDING and are due at `now`, and returns their ids. Each
/// is due again later, after twice as long each time, up to [`MAX_NOTIFY_INTERVAL`].
///
/// An order that would be due later than that was written by a clock that was ahead, or by hand: it is due now. So is one
/// without a time. Up to `limit` of them are claimed as well.
pub async fn claim_due(connection: &impl ConnectionTrait, now: Timestamp, limit: i64) -> Result<Vec<OrderId>, Error> {
    let doublings = (MAX_NOTIFY_INTERVAL.as_secs() / NOTIFY_AFTER.as_secs()).ilog2();

    let claimed = sql("
        WITH due AS (
            SELECT id
              FROM orders
             WHERE settled_at IS NULL AND accepted_at IS NOT NULL AND notify_after <= :now
             ORDER BY notify_after
             LIMIT :limit
               FOR NO KEY UPDATE SKIP LOCKED
        ), ahead AS (
            SELECT id
              FROM orders
             WHERE settled_at IS NULL AND accepted_at IS NOT NULL
               AND (notify_after > :latest OR notify_after IS NULL)
             LIMIT :limit
               FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE orders
           SET notify_attempts = notify_attempts + 1,
               notify_after = :now + :first * (1 << CASE WHEN notify_attempts < :doublings
                                                         THEN CAST(notify_attempts AS integer) + 1
                                                         ELSE :doublings END),
               updated_at = :now
         WHERE id IN (SELECT id FROM due UNION ALL SELECT id FROM ahead)
        RETURNING id")
    .timestamp("now", now)
    .timestamp("latest", now.plus(MAX_NOTIFY_INTERVAL + NOTIFY_AFTER))
    .bind("limit", limit)
    .duration("first", NOTIFY_AFTER)
    .bind("doublings", i32::try_from(doublings).unwrap_or(0))
    .scalars(connection)
    .await?;
    Ok(claimed)
}

/// Undoes [`claim_due`] for orders whose settle requests could not be published: they are due at `now`, and the attempt
/// does not count. An order that another transaction has locked is being settled, or is due again by itself.
pub async fn release_due(connection: &impl ConnectionTrait, now: Timestamp, ids: &[OrderId]) -> Result<(), Error> {
    sql("
        WITH released AS (
            SELECT id
              FROM orders
             WHERE id = ANY(:ids) AND status = 'PENDING' AND notify_attempts > 0
             ORDER BY id
               FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE orders
           SET notify_attempts = notify_attempts - 1, notify_after = :now, updated_at = :now
         WHERE id IN (SELECT id FROM released)")
    .timestamp("now", now)
    .list("ids", Column::Uuid(ids.to_vec()))
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes every order that was accepted and is still PENDING due at `now`; returns how many there are. Locks them in id order, as
/// everywhere. Without `COALESCE` SQLite would read all orders there are, because the index of their ids has that order.
pub async fn make_all_due(connection: &impl ConnectionTrait, now: Timestamp) -> Result<u64, Error> {
    let due = sql("
        WITH accepted AS (
            SELECT id
              FROM orders
             WHERE settled_at IS NULL AND accepted_at IS NOT NULL
             ORDER BY COALESCE(id, id)
               FOR NO KEY UPDATE
        )
        UPDATE orders
           SET notify_after = :now, updated_at = :now
         WHERE id IN (SELECT id FROM accepted)")
    .timestamp("now", now)
    .execute(connection)
    .await?;
    Ok(due)
}
