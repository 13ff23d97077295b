//! Changes of administrators that are made once, however often they are sent, if they carry an `Idempotency-Key`.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    app::App,
    db::Txn,
    domain::{
        Error,
        idempotency::{self, FirstAnswer, KeyedRequest},
    },
};

/// How long a change may take. A database that takes longer counts as unavailable.
const TIMEOUT: Duration = Duration::from_millis(2_500);

/// What a request was answered.
pub struct Answered {
    /// The body as JSON.
    pub body: Bytes,
    /// For the header `Idempotent-Replayed`.
    pub replayed: Option<String>,
}

/// A request of this operation, if it has a key. `body` is all that the request says.
pub fn keyed(key: Option<&str>, operation: &str, body: &Value) -> Option<KeyedRequest> {
    Some(KeyedRequest {
        id: Uuid::now_v7(),
        key: key?.to_owned(),
        request: json!([operation, body]).to_string(),
    })
}

/// Runs `work` in a transaction, and returns what it returns. With a key it is done once, and answered alike whenever it
/// is sent again; it is also tried again after a commit whose answer was lost, which is not safe without a key.
///
/// # Errors
/// What `work` failed with, [`Error::IdempotencyKeyReused`], or that the database did not answer in time.
pub async fn run<T, F>(app: &App, keyed: Option<&KeyedRequest>, work: impl Fn(Txn) -> F) -> Result<Answered, Error>
where
    F: Future<Output = Result<T, Error>>,
    T: Serialize,
{
    let now = app.db.time();
    let attempt = |txn: Txn| {
        let done = work(Txn::clone(&txn));
        async move {
            if let Some(keyed) = keyed
                && let Some(first) = idempotency::claim(&txn, now, keyed).await?
            {
                return Ok(first);
            }

            let answer = done.await?;
            let answer = serde_json::to_string(&answer).map_err(|error| Error::Internal(error.to_string()))?;
            if let Some(keyed) = keyed {
                idempotency::keep_answer(&txn, keyed, &answer).await?;
            }
            Ok(FirstAnswer {
                answer,
                replayed: false,
            })
        }
    };

    let answered: Result<FirstAnswer, Error> = if keyed.is_some() {
        app.db.timeout(TIMEOUT, app.db.transaction(attempt)).await
    } else {
        app.db.timeout(TIMEOUT, app.db.transaction_once(attempt)).await
    };
    let first = answered?;
    Ok(Answered {
        body: first.answer.into(),
        replayed: first.replayed.then(|| "true".to_owned()),
    })
}
