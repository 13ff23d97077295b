//! Who makes the next periodic check: one process, which holds a lease for as long as it lives.

use std::time::Duration;

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::Error;
use crate::{db::sql::sql, entities::Timestamp};

/// How long a process may be silent before another one takes over.
pub const LEASE: Duration = Duration::from_secs(15);

/// The right to make one check. Whatever is written under a lease that another process has taken over changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(super) holder: Uuid,
}

impl Lease {
    /// Takes the lease if it is free and the last attempt at a check was `every` ago or longer, or if its holder has been
    /// silent for [`LEASE`]. `now` is the time at the database. An instant that lies far ahead of it was written before
    /// the clock was put back, and holds up nothing.
    pub async fn claim(
        connection: &impl ConnectionTrait,
        now: Timestamp,
        every: Duration,
    ) -> Result<Option<Self>, Error> {
        let holder = Uuid::new_v4();

        let claimed = sql("
            UPDATE ledger
               SET lease_holder = :holder, lease_until = :lease_until
             WHERE (lease_holder IS NULL
                    AND (attempted_at IS NULL OR attempted_at <= :due_before OR attempted_at > :far_ahead))
                OR (lease_holder IS NOT NULL
                    AND (lease_until <= :now OR lease_until > :far_ahead))")
        .bind("holder", holder)
        .timestamp("now", now)
        .timestamp("lease_until", now.plus(LEASE))
        .timestamp("due_before", now.minus(every))
        .timestamp("far_ahead", now.plus(LEASE * 2))
        .execute(connection)
        .await?;
        Ok((claimed == 1).then_some(Self { holder }))
    }

    /// Says that the holder is alive. Returns whether it still holds the lease.
    pub async fn renew(&self, connection: &impl ConnectionTrait, now: Timestamp) -> Result<bool, Error> {
        let renewed = sql("
            UPDATE ledger
               SET lease_until = :lease_until
             WHERE lease_holder = :holder")
        .timestamp("lease_until", now.plus(LEASE))
        .bind("holder", self.holder)
        .execute(connection)
        .await?;
        Ok(renewed == 1)
    }

    /// Gives the lease back after a check that failed. The next one is due as if it had succeeded.
    pub async fn release(&self, connection: &impl ConnectionTrait, now: Timestamp) -> Result<(), Error> {
        sql("
            UPDATE ledger
               SET lease_holder = NULL, lease_until = NULL, attempted_at = :now
             WHERE lease_holder = :holder")
        .timestamp("now", now)
        .bind("holder", self.holder)
        .execute(connection)
        .await?;
        Ok(())
    }
}
