//! Carts in the memory of one process, where there is no Redis. What they occupy is bounded: when it is exceeded, those
//! that were used least recently are dropped.

use std::{
    future::ready,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::counter;
use moka::{future::Cache, notification::RemovalCause, ops::compute::Op, policy::EvictionPolicy};

use super::{Access, CHECKOUT_LEASE, Operation};
use crate::{
    domain::{
        Error, OrderId, UserId,
        carts::{Cart, CartKey, MAX_LINES},
        orders::Line,
    },
    telemetry::metrics::CARTS_EVICTED,
};

/// The most bytes of all carts, roughly: 200,000 carts of two lines, or 30,000 full ones.
pub(super) const CAPACITY: u64 = 64 << 20;

#[derive(Clone)]
pub(super) struct Memory {
    /// The key has the number of the database, so that carts of a database that is not read any more are not found.
    carts: Cache<(u64, CartKey), Entry>,
}

#[derive(Clone)]
struct Entry {
    cart: Cart,
    checkout: Option<Checkout>,
}

/// From the first checkout on.
#[derive(Clone, Copy)]
struct Checkout {
    /// Whose order it becomes.
    user_id: UserId,
    /// Checkouts that may still succeed.
    attempts: u32,
    frozen_until: Instant,
}

impl Memory {
    pub(super) fn new(ttl: Duration, capacity: u64) -> Self {
        let evicted = |_: Arc<(u64, CartKey)>, _: Entry, cause: RemovalCause| {
            if cause == RemovalCause::Size {
                counter!(CARTS_EVICTED).increment(1);
            }
        };

        let carts = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Entry| entry.weight())
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(evicted)
            .time_to_live(ttl)
            .build();
        Self { carts }
    }

    /// Runs `operation` on the cart under `key`, alone.
    pub(super) async fn run(&self, key: CartKey, access: &Access, operation: Operation) -> Result<Cart, Error> {
        let key = (access.database_identity.databases, key);
        if matches!(operation, Operation::Find) {
            let entry = self.carts.get(&key).await;
            return Ok(open_entry(entry, access)?.cart);
        }

        let mut answer = Err(Error::CartNotFound);
        let change = |found: Option<moka::Entry<(u64, CartKey), Entry>>| {
            let changed = apply(found.map(moka::Entry::into_value), access, operation);
            answer = changed.as_ref().map(|entry| entry.cart.clone()).map_err(Error::clone);
            ready(changed.map_or(Op::Nop, Op::Put))
        };
        self.carts.entry(key).and_compute_with(change).await;
        answer
    }
}

/// The entry, if this user may use it.
fn open_entry(found: Option<Entry>, access: &Access) -> Result<Entry, Error> {
    let open = found.filter(|entry| entry.cart.is_open_to(access.user));
    open.ok_or(Error::CartNotFound)
}

/// The entry after `operation`.
fn apply(found: Option<Entry>, access: &Access, operation: Operation) -> Result<Entry, Error> {
    let mut entry = match operation {
        Operation::Create => Entry::new(access),
        _ => open_entry(found, access)?,
    };

    match operation {
        Operation::Create => {}
        // Looking at a cart does not keep it.
        Operation::Find => return Ok(entry),
        Operation::Put(line) => entry.put(line)?,
        Operation::BeginCheckout(user_id) => entry.begin_checkout(user_id)?,
        Operation::ReleaseCheckout => entry.release_checkout(),
        Operation::FinishCheckout(order_id) => entry.finish_checkout(order_id),
    }
    entry.cart.expires_at = access.expires_at;
    Ok(entry)
}

impl Entry {
    fn new(access: &Access) -> Self {
        let cart = Cart {
            owner: access.user,
            lines: Vec::new(),
            order_id: None,
            expires_at: access.expires_at,
        };
        Self { cart, checkout: None }
    }

    /// The bytes that it occupies, roughly.
    fn weight(&self) -> u32 {
        /// Of a cart without lines, and of what stores it.
        const EMPTY: usize = 300;

        let lines = self.cart.lines.capacity() * size_of::<Line>();
        u32::try_from(EMPTY + lines).unwrap_or(u32::MAX)
    }

    /// A quantity of 0 takes the product out.
    fn put(&mut self, line: Line) -> Result<(), Error> {
        if self.cart.order_id.is_some() || self.is_frozen() {
            return Err(Error::CartCheckedOut);
        }

        let lines = &mut self.cart.lines;
        let index = lines.iter().position(|known| known.product_id == line.product_id);
        match index {
            Some(index) if line.quantity == 0 => drop(lines.remove(index)),
            Some(index) => lines[index] = line,
            None if line.quantity == 0 => {}
            None if lines.len() >= MAX_LINES => return Err(Error::CartFull),
            None => lines.push(line),
        }
        Ok(())
    }

    fn is_frozen(&self) -> bool {
        let now = Instant::now();
        self.checkout
            .is_some_and(|checkout| checkout.attempts > 0 && checkout.frozen_until > now)
    }

    /// Freezes the cart, until every checkout that has begun is over, or for [`CHECKOUT_LEASE`].
    fn begin_checkout(&mut self, user_id: UserId) -> Result<(), Error> {
        if self.checkout.is_some_and(|checkout| checkout.user_id != user_id) {
            return Err(Error::CartOfAnotherOrder);
        }
        if self.cart.lines.is_empty() {
            return Err(Error::CartEmpty);
        }

        if self.cart.order_id.is_none() {
            self.checkout = Some(Checkout {
                user_id,
                attempts: self.checkout.map_or(0, |checkout| checkout.attempts) + 1,
                frozen_until: Instant::now() + CHECKOUT_LEASE,
            });
        }
        Ok(())
    }

    /// A checkout was refused for good. When no other one may still succeed, the cart is as it was before.
    fn release_checkout(&mut self) {
        if self.cart.order_id.is_some() {
            return;
        }

        let released = self.checkout.map(|checkout| Checkout {
            attempts: checkout.attempts.saturating_sub(1),
            ..checkout
        });
        self.checkout = released.filter(|checkout| checkout.attempts > 0);
    }

    fn finish_checkout(&mut self, order_id: OrderId) {
        self.cart.order_id = Some(order_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cache::CurrentIdentity, domain::carts::CartId, entities::Timestamp};

    #[tokio::test]
    async fn when_the_memory_of_carts_is_full_the_least_recently_used_are_dropped() {
        const KEPT: usize = 100;
        let carts = Memory::new(Duration::from_secs(60), 300 * KEPT as u64);
        let access = Access {
            database_identity: CurrentIdentity::default(),
            user: None,
            ttl: Duration::from_secs(60),
            expires_at: Timestamp(0),
        };
        let (mut keys, used) = (Vec::new(), CartId::random().expect("random numbers").key());
        carts.run(used, &access, Operation::Create).await.expect("created");

        for _ in 0..20 * KEPT {
            let key = CartId::random().expect("random numbers").key();
            carts.run(key, &access, Operation::Create).await.expect("created");
            carts.run(used, &access, Operation::Find).await.expect("it is in use");
            carts.carts.run_pending_tasks().await;
            keys.push(key);
        }

        let mut found = Vec::new();
        for key in &keys {
            found.push(carts.run(*key, &access, Operation::Find).await.is_ok());
        }
        assert_eq!(found.iter().filter(|found| **found).count(), KEPT - 1);
        assert!(found[keys.len() - KEPT + 1..].iter().all(|found| *found));
    }
}
