//! Where carts are stored: in Redis if the URL of the cache names one, else in the memory of this process. Every operation
//! on a cart runs alone, so that no change of it is lost. A cart may vanish, for want of memory or with a restart; what
//! must not vanish is the order that it became, and the database has that. As answers do, carts belong to the database whose
//! products they hold.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{task::yield_now, time::timeout};

mod memory;
mod redis;

use memory::Memory;

use super::{Cache, CurrentIdentity, SharedTier, redis::Redis};
use crate::{
    domain::{
        Error, OrderId, UserId,
        carts::{Cart, CartKey},
        orders::Line,
    },
    entities::Timestamp,
};

/// How long one request waits for carts, all its operations together.
const MAX_WAIT: Duration = Duration::from_millis(45);
/// How long a checkout keeps its cart from being changed when its outcome never becomes known: longer than any request
/// runs. After that the cart can be changed again, and checking it out still gives the one order.
const CHECKOUT_LEASE: Duration = Duration::from_secs(15);

/// The carts of the shop. Clones share them.
#[derive(Clone)]
pub struct Carts {
    /// Knows the database whose carts these are.
    cache: Cache,
    store: Store,
    ttl: Duration,
}

#[derive(Clone)]
enum Store {
    Memory(Memory),
    Redis(Redis),
}

/// One request that uses a cart.
pub struct CartRequest<'a> {
    carts: &'a Carts,
    key: CartKey,
    /// `None` asks for anybody, where users are not known.
    user: Option<UserId>,
    now: Timestamp,
    /// How much longer it may wait.
    left: Duration,
}

#[derive(Clone, Copy)]
enum Operation {
    Create,
    Find,
    Put(Line),
    BeginCheckout(UserId),
    ReleaseCheckout,
    FinishCheckout(OrderId),
}

/// Who runs an operation, in which shop, and when the cart expires after it.
struct Access {
    database_identity: CurrentIdentity,
    user: Option<UserId>,
    ttl: Duration,
    expires_at: Timestamp,
}

impl Carts {
    /// Carts where the cache has its answers. A cart lives for `ttl` after its last change.
    #[must_use]
    pub fn new(cache: &Cache, ttl: Duration) -> Self {
        let store = match &cache.shared {
            SharedTier::None => Store::Memory(Memory::new(ttl, memory::CAPACITY)),
            SharedTier::Redis(redis) => Store::Redis(redis.clone()),
        };
        Self {
            cache: cache.clone(),
            store,
            ttl,
        }
    }

    /// A request of this user, made at `now`, to use the cart under `key`.
    #[must_use]
    pub fn request(&self, key: CartKey, user: Option<UserId>, now: Timestamp) -> CartRequest<'_> {
        CartRequest {
            carts: self,
            key,
            user,
            now,
            left: MAX_WAIT,
        }
    }
}

/// # Errors
/// Every operation: [`Error::CartsUnavailable`]; all but [`CartRequest::create`]: [`Error::CartNotFound`], also when the
/// cart is another user's.
impl CartRequest<'_> {
    /// Makes an empty cart that belongs to the user.
    pub async fn create(&mut self) -> Result<Cart, Error> {
        self.run(Operation::Create).await
    }

    pub async fn find(&mut self) -> Result<Cart, Error> {
        self.run(Operation::Find).await
    }

    /// Sets how many units of a product are in the cart; 0 takes it out.
    ///
    /// # Errors
    /// [`Error::CartCheckedOut`], [`Error::CartFull`].
    pub async fn put(&mut self, line: Line) -> Result<Cart, Error> {
        self.run(Operation::Put(line)).await
    }

    /// Begins to make an order of `user_id` out of the cart. Until that is released or finished, the cart does not
    /// change. Any number of checkouts may run at once, for the same user; a cart that is checked out can be checked
    /// out again.
    ///
    /// # Errors
    /// [`Error::CartEmpty`], [`Error::CartOfAnotherOrder`].
    pub async fn begin_checkout(&mut self, user_id: UserId) -> Result<Cart, Error> {
        self.run(Operation::BeginCheckout(user_id)).await
    }

    /// Ends a checkout that was refused for good.
    pub async fn release_checkout(&mut self) -> Result<Cart, Error> {
        self.run(Operation::ReleaseCheckout).await
    }

    /// Ends a checkout by the order that the cart became. It does not change any more.
    pub async fn finish_checkout(&mut self, order_id: OrderId) -> Result<Cart, Error> {
        self.run(Operation::FinishCheckout(order_id)).await
    }

    async fn run(&mut self, operation: Operation) -> Result<Cart, Error> {
        let access = Access {
            database_identity: self.carts.cache.database_identity(),
            user: self.user,
            ttl: self.carts.ttl,
            expires_at: self.now.plus(self.carts.ttl),
        };
        let redis = match &self.carts.store {
            Store::Memory(memory) => return memory.run(self.key, &access, operation).await,
            Store::Redis(redis) => redis,
        };

        let started = Instant::now();
        let answer = with_timeout(self.left, redis::run(redis, self.key, &access, operation)).await;
        self.left = self.left.saturating_sub(started.elapsed());
        answer.unwrap_or_else(|| Err(Error::CartsUnavailable("Redis did not answer in time".to_owned())))
    }
}

/// What `answer` gives within `max_wait`. A process that is busy sees late what has come in time: when the time is up,
/// whatever has arrived by then is read first.
async fn with_timeout<T>(max_wait: Duration, answer: impl Future<Output = T>) -> Option<T> {
    /// The task of the connection needs one turn to read it and one to hand the answer over; the third is to spare, since
    /// it may have to wait for its turn.
    const READY_ROUNDS: usize = 3;

    let mut answer = pin!(answer);
    if let Ok(answer) = timeout(max_wait, answer.as_mut()).await {
        return Some(answer);
    }

    for _ in 0..READY_ROUNDS {
        yield_now().await;
        if let Some(answer) = answer.as_mut().now_or_never() {
            return Some(answer);
        }
    }
    None
}
