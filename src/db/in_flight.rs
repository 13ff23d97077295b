//! Transactions in flight: whoever reads everything up to a mark has to know that no transaction that has not committed yet
//! will add something before that mark. Sequences and clocks cannot tell, because transactions commit in another order.

use sea_orm::{ConnectionTrait, DbBackend, DbErr};

use super::sql::sql;

/// An id that is higher than that of every transaction that has written or locked anything until now: that of a transaction
/// of its own. The end of a snapshot (`pg_snapshot_xmax`) would not do, since it is the id after the last transaction that has
/// ended, and later ones may be running. On SQLite, where one transaction writes at a time, 0.
pub async fn next_id(connection: &impl ConnectionTrait) -> Result<i64, DbErr> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(0);
    }

    let ids: Vec<i64> = sql("SELECT pg_current_xact_id()::text::bigint")
        .scalars(connection)
        .await?;
    Ok(ids.first().copied().unwrap_or(i64::MAX))
}

/// Whether all transactions with an id below `id` had ended when the snapshot was taken that `connection` reads from. What they
/// committed can be read there. An id that no transaction has had yet was noted in another database, which this one is a
/// copy of; nothing of that is in flight here.
pub async fn all_ended_below(connection: &impl ConnectionTrait, id: i64) -> Result<bool, DbErr> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(true);
    }

    let ended: Vec<bool> = sql("
        SELECT :id <= pg_snapshot_xmin(snapshot)::text::bigint OR :id > pg_snapshot_xmax(snapshot)::text::bigint
          FROM pg_current_snapshot() AS snapshot")
    .bind("id", id)
    .scalars(connection)
    .await?;
    Ok(ended == [true])
}
