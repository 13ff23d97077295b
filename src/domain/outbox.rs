//! The transactional outbox: events of facts that no message of the queue carries, such as a cancelled order. They are
//! stored in the transaction of the fact, so that they exist exactly if it does. The relay claims them, publishes them and
//! deletes them. If it dies on the way, they are due again, so each is published at least once.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, QueryResult};
use serde_json::Value;

use super::{
    Error,
    event::{Event, MAX_NAME},
};
use crate::{
    db::sql::{Column, sql},
    entities::Timestamp,
};

/// How long a claimed event is left to whoever claimed it. Publishing usually ends before that; if not,
/// another process publishes the same ids.
const CLAIM: Duration = Duration::from_secs(20);

/// An event of the outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub id: i64,
    pub event: Event,
}

/// Stores events in the transaction of the facts that they are about. Each is due at once.
pub async fn store(txn: &DatabaseTransaction, now: Timestamp, events: &[Event]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }

    let text = |of: fn(&Event) -> String| Column::Text(events.iter().map(of).collect());
    sql("
        INSERT INTO outbox (event_id, type, subject, time, data, publish_after)
        SELECT event_id, type, subject, time, data, :now
          FROM :events")
    .table(
        "events",
        [
            ("event_id", text(|event| event.id.clone())),
            ("type", text(|event| event.kind.clone().into_owned())),
            ("subject", text(|event| event.subject.clone())),
            (
                "time",
                Column::Timestamp(events.iter().map(|event| event.time).collect()),
            ),
            (
                "data",
                Column::Json(events.iter().map(|event| event.data.to_string()).collect()),
            ),
        ],
    )
    .timestamp("now", now)
    .execute(txn)
    .await?;
    Ok(())
}

/// Whether any event is due at `now`, or at a time that is too far ahead: a clock that was ahead has stored it, so it is due now.
/// Claims nothing and locks nothing.
pub async fn is_due(connection: &impl ConnectionTrait, now: Timestamp) -> Result<bool, Error> {
    let due: Vec<i64> = sql("
        SELECT id
          FROM outbox
         WHERE publish_after <= :now OR publish_after > :latest
         ORDER BY id
         LIMIT 1")
    .timestamp("now", now)
    .timestamp("latest", latest(now))
    .scalars(connection)
    .await?;
    Ok(!due.is_empty())
}

/// No event is due later than that.
fn latest(now: Timestamp) -> Timestamp {
    now.plus(CLAIM * 2)
}

/// Claims up to `limit` events that are due at `now` as [`is_due`] says, in the order in which they were stored. Whoever claims them deletes
/// them once they are published, or releases them; otherwise they are due again after a while.
pub async fn claim(connection: &impl ConnectionTrait, now: Timestamp, limit: i64) -> Result<Vec<Stored>, Error> {
    let mut claimed = sql("
        WITH due AS (
            SELECT id
              FROM outbox
             WHERE publish_after <= :now OR publish_after > :latest
             ORDER BY id
             LIMIT :limit
               FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE outbox
           SET publish_after = :again
         WHERE id IN (SELECT id FROM due)
        RETURNING id, event_id, type, subject, time, data")
    .timestamp("now", now)
    .timestamp("latest", latest(now))
    .timestamp("again", now.plus(CLAIM))
    .bind("limit", limit)
    .readable_rows(connection, "the outbox", read)
    .await?;

    claimed.sort_unstable_by_key(|stored| stored.id);
    Ok(claimed)
}

/// Undoes [`claim`] for events that could not be published.
pub async fn release(connection: &impl ConnectionTrait, now: Timestamp, ids: Vec<i64>) -> Result<(), Error> {
    sql("UPDATE outbox SET publish_after = :now WHERE id = ANY(:ids)")
        .timestamp("now", now)
        .list("ids", Column::BigInt(ids))
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes events that are published.
pub async fn delete(connection: &impl ConnectionTrait, ids: Vec<i64>) -> Result<(), Error> {
    sql("DELETE FROM outbox WHERE id = ANY(:ids)")
        .list("ids", Column::BigInt(ids))
        .execute(connection)
        .await?;
    Ok(())
}

/// How many events are stored. Reads the whole outbox, which is short unless the queue is away.
pub async fn len(connection: &impl ConnectionTrait) -> Result<i64, Error> {
    let counted: Vec<i64> = sql("SELECT COUNT(*) FROM outbox").scalars(connection).await?;
    Ok(counted.first().copied().unwrap_or_default())
}

/// The time of the fact whose event has been stored for the longest.
pub async fn oldest(connection: &impl ConnectionTrait) -> Result<Option<Timestamp>, Error> {
    let times: Vec<Timestamp> = sql("SELECT time FROM outbox ORDER BY id LIMIT 1")
        .scalars(connection)
        .await?;
    Ok(times.first().copied())
}

/// What no queue carries stays in the outbox, as what cannot be read does, and holds up nothing else.
fn read(row: &QueryResult) -> Result<Stored, DbErr> {
    let id: String = row.try_get_by_index(1)?;
    let kind: String = row.try_get_by_index(2)?;
    let data: Value = row.try_get_by_index(5)?;
    if id.len().max(kind.len()) > MAX_NAME {
        return Err(DbErr::Type(format!(
            "its id or its type is longer than {MAX_NAME} bytes"
        )));
    }

    Ok(Stored {
        id: row.try_get_by_index(0)?,
        event: Event {
            id,
            kind: kind.into(),
            subject: row.try_get_by_index(3)?,
            time: row.try_get_by_index(4)?,
            data,
        },
    })
}
