//! Requests of administrators that are done once, however often they are sent. The key commits in the transaction of what
//! the request does, together with the first answer, which is given again whenever the request comes again.

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use uuid::Uuid;

use super::Error;
use crate::{db::sql::sql, entities::Timestamp};

/// The most keys that one transaction deletes.
const PRUNED_AT_ONCE: i64 = 1_000;

/// A request under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedRequest {
    /// The caller chooses it, so that a transaction whose answer was lost is known when it runs again.
    pub id: Uuid,
    /// Unique for all administrators together: whoever sends a request again, it is done once.
    pub key: String,
    /// What is asked for. Two requests are the same if these texts are.
    pub request: String,
}

/// The answer that a request was given when it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstAnswer {
    pub answer: String,
    /// The request was sent before; `false` if only its transaction ran before.
    pub replayed: bool,
}

/// Claims the key for this transaction, and waits for another transaction that has claimed it. Returns the first answer if
/// the request was done before. Otherwise do it, and [`keep_answer`] in the same transaction.
///
/// # Errors
/// [`Error::IdempotencyKeyReused`] when the key belongs to another request.
pub async fn claim(
    txn: &DatabaseTransaction,
    now: Timestamp,
    keyed: &KeyedRequest,
) -> Result<Option<FirstAnswer>, Error> {
    let claimed = sql("
        INSERT INTO idempotency_keys (idempotency_key, request_id, request, created_at)
        VALUES (:key, :id, :request, :now)
            ON CONFLICT DO NOTHING")
    .bind("key", keyed.key.clone())
    .bind("id", keyed.id)
    .bind("request", keyed.request.clone())
    .timestamp("now", now)
    .execute(txn)
    .await?;
    if claimed == 1 {
        return Ok(None);
    }

    let known: Vec<(Uuid, String, Option<String>)> = sql("
        SELECT request_id, request, answer
          FROM idempotency_keys
         WHERE idempotency_key = :key")
    .bind("key", keyed.key.clone())
    .tuples(txn)
    .await?;
    match known.into_iter().next() {
        Some((_, request, _)) if request != keyed.request => Err(Error::IdempotencyKeyReused),
        Some((id, _, Some(answer))) => Ok(Some(FirstAnswer {
            answer,
            replayed: id != keyed.id,
        })),
        // `shop prune` has deleted the key between the two statements, so the next attempt can claim it.
        None => Err(Error::Busy(format!("the key {} was deleted meanwhile", keyed.key))),
        Some(_) => Err(Error::Internal(format!("the key {} has no answer", keyed.key))),
    }
}

/// Keeps the first answer of a request whose key this transaction has claimed.
pub async fn keep_answer(txn: &DatabaseTransaction, keyed: &KeyedRequest, answer: &str) -> Result<(), Error> {
    sql("UPDATE idempotency_keys SET answer = :answer WHERE idempotency_key = :key")
        .bind("answer", answer)
        .bind("key", keyed.key.clone())
        .execute(txn)
        .await?;
    Ok(())
}

/// How many keys were claimed before `cutoff`. Reads all of them.
pub async fn count_old(connection: &impl ConnectionTrait, cutoff: Timestamp) -> Result<u64, Error> {
    let counted: Vec<i64> = sql("SELECT COUNT(*) FROM idempotency_keys WHERE created_at < :cutoff")
        .timestamp("cutoff", cutoff)
        .scalars(connection)
        .await?;
    Ok(counted
        .iter()
        .map(|count| u64::try_from(*count).unwrap_or_default())
        .sum())
}

/// Deletes a thousand of the keys that were claimed before `cutoff`, and returns how many that were.
pub async fn delete_old(txn: &DatabaseTransaction, cutoff: Timestamp) -> Result<u64, Error> {
    let deleted = sql("
        DELETE FROM idempotency_keys
         WHERE idempotency_key IN (SELECT idempotency_key
                                     FROM idempotency_keys
                                    WHERE created_at < :cutoff
                                    LIMIT :limit)")
    .timestamp("cutoff", cutoff)
    .bind("limit", PRUNED_AT_ONCE)
    .execute(txn)
    .await?;
    Ok(deleted)
}
