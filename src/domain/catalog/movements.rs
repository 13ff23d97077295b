//! Stock movements: every change of stock but the sales of orders that exist, with why, under which key, and by whom; and what
//! deleted orders had sold. With the PAID orders they explain every unit on the shelf.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, FromQueryResult};
use uuid::Uuid;

use crate::{
    db::sql::{Column, sql},
    domain::{Error, ProductId, UserId},
    entities::Timestamp,
};

/// On whose behalf stock changes, and under which key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// `None` where users are not known.
    pub user_id: Option<UserId>,
    pub idempotency_key: Option<String>,
}

/// A movement to record.
pub(in crate::domain) struct Recorded<'a> {
    pub product_id: ProductId,
    /// Not 0.
    pub delta: i64,
    pub reason: &'a str,
}

/// Which movements to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovementQuery {
    pub product_id: ProductId,
    /// 1 to [`MAX_PAGE`](super::MAX_PAGE).
    pub limit: u64,
    /// Only movements with a smaller id.
    pub before: Option<i64>,
}

/// A movement that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Movement {
    pub id: i64,
    pub delta: i64,
    pub reason: String,
    pub idempotency_key: Option<String>,
    pub user_id: Option<UserId>,
    pub created_at: Timestamp,
    /// The refund that put the units back on the shelf.
    pub refund_id: Option<Uuid>,
}

/// A page of movements, newest first, and whether more follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovementPage {
    pub movements: Vec<Movement>,
    pub more: bool,
}

/// Records movements, and returns their ids in the same order.
pub(in crate::domain) async fn record(
    txn: &DatabaseTransaction,
    now: Timestamp,
    movements: &[Recorded<'_>],
    origin: &Origin,
) -> Result<Vec<i64>, Error> {
    if movements.is_empty() {
        return Ok(Vec::new());
    }

    let numbers = |number: fn(&Recorded) -> i64| Column::BigInt(movements.iter().map(number).collect());
    let ids = sql("
        INSERT INTO stock_movements (product_id, delta, reason, idempotency_key, user_id, created_at)
        SELECT product_id, delta, reason, :idempotency_key, :user_id, :now
          FROM :movements")
    .table(
        "movements",
        [
            ("product_id", numbers(|movement| movement.product_id)),
            ("delta", numbers(|movement| movement.delta)),
            (
                "reason",
                Column::Text(movements.iter().map(|movement| movement.reason.to_owned()).collect()),
            ),
        ],
    )
    .bind("idempotency_key", origin.idempotency_key.clone())
    .bind("user_id", origin.user_id)
    .timestamp("now", now)
    .insert_numbered(txn, movements.len())
    .await?;
    Ok(ids)
}

/// The movements of a product, newest first.
///
/// # Errors
/// [`Error::ProductNotFound`].
pub async fn list_movements(
    connection: &impl ConnectionTrait,
    mut query: MovementQuery,
) -> Result<MovementPage, Error> {
    loop {
        let (page, last) = read_page(connection, query).await?;
        match last {
            // A page on which no movement can be read says nothing of those that follow.
            Some(last) if page.movements.is_empty() && page.more => query.before = Some(last),
            Some(_) => return Ok(page),
            None => {
                super::find(connection, query.product_id).await?;
                return Ok(page);
            }
        }
    }
}

/// A page without the movements that cannot be read, and the last id on it, be it of one of those.
async fn read_page(
    connection: &impl ConnectionTrait,
    query: MovementQuery,
) -> Result<(MovementPage, Option<i64>), Error> {
    let mut rows: Vec<(i64, Result<Movement, DbErr>)> = sql("
        SELECT id, delta, reason, idempotency_key, user_id, created_at,
               (SELECT refund_id FROM refund_items WHERE movement_id = stock_movements.id) AS refund_id
          FROM stock_movements
         WHERE product_id = :product_id AND id < :before
         ORDER BY id DESC
         LIMIT :limit")
    .bind("product_id", query.product_id)
    .bind("before", query.before.unwrap_or(i64::MAX))
    .bind("limit", i64::try_from(query.limit + 1).unwrap_or(i64::MAX))
    .rows(connection, |row| {
        Ok((row.try_get_by_index(0)?, Movement::from_query_result(row, "")))
    })
    .await?;
    let more = rows.len() as u64 > query.limit;
    rows.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    let last = rows.last().map(|(id, _)| *id);

    let movements = rows.into_iter().filter_map(|(id, movement)| {
        let left_out = |error: &DbErr| tracing::error!(%error, id, "left out a stock movement that cannot be read");
        movement.inspect_err(left_out).ok()
    });
    let movements = movements.collect();
    Ok((MovementPage { movements, more }, last))
}
