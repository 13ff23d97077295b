//! Ready-made answers, so that reading is fast. There are two tiers: a local one in this process, and a shared one in
//! Redis if the URL names one. Pages of products live for half a second in the local tier and for the time to live in the
//! shared one, under a generation that changes after every commit that touches a product. Settled orders never change
//! and live for minutes. Nothing that must be right may come from here.
//!
//! An answer belongs to the database that it was made from. Two shops may share a Redis, and a database may be made anew or
//! restored under a running shop: then nothing of before is found any more.

use std::{
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use moka::{Equivalent, future::Cache as LocalCache};
use tokio::time::sleep;

use coalesce::{Coalesce, INTERVAL};

use crate::{
    db::DatabaseIdentity,
    domain::{Error, OrderId, UserId},
    telemetry::metrics::CACHE,
};

pub mod carts;
mod coalesce;
mod redis;

/// How old a page of the local tier may be, so that a settlement by any process shows within a second.
const LOCAL_PAGE_TTL: Duration = Duration::from_millis(500);
/// A settled order never changes; this only bounds how long it occupies memory.
const ORDER_TTL: Duration = Duration::from_secs(300);
/// The most bytes in the local tier, of pages and of orders each.
const LOCAL_CAPACITY: u64 = 8 << 20;

/// A page of products in JSON, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedPage {
    pub body: Bytes,
    /// A strong entity tag made from the content (RFC 9110, section 8.8.3), quotes included.
    pub etag: Arc<str>,
    gzip: Arc<OnceLock<Bytes>>,
    /// When its loading started: the content is no older than that.
    loaded_since: Instant,
}

/// A settled order in JSON, ready to be sent to its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledOrder {
    pub user_id: UserId,
    pub body: Bytes,
}

/// The caches of one process. Clones share them.
#[derive(Clone)]
pub struct Cache {
    pages: LocalCache<(u64, String), CachedPage>,
    orders: LocalCache<(u64, OrderId), SettledOrder>,
    database_identity: Arc<RwLock<CurrentIdentity>>,
    /// Part of every local page's key: pages from before the last change in this process are never found again.
    generation: Arc<AtomicU64>,
    shared: SharedTier,
    coalesce: Arc<Coalesce>,
}

/// The identity of the database that answers are made from.
#[derive(Clone, Debug, Default)]
pub struct CurrentIdentity {
    /// Counts up when its rows may have become older, by a restore for one: part of every local order's key.
    incarnations: u64,
    /// Counts up when another database takes its place: part of every local cart's key.
    databases: u64,
    /// `None` until it is known; nothing is shared before.
    database_identity: Option<Arc<DatabaseIdentity>>,
}

impl CurrentIdentity {
    /// Part of the key of whatever was read from the database.
    fn incarnation(&self) -> Option<&str> {
        Some(&self.database_identity.as_ref()?.incarnation)
    }

    /// Part of the key of whatever outlives a restart of the database.
    fn database(&self) -> Option<&str> {
        Some(&self.database_identity.as_ref()?.database)
    }
}

#[derive(Clone)]
enum SharedTier {
    None,
    Redis(redis::Redis),
}

impl Cache {
    /// Chooses the back end by the URL. It connects to Redis in the background, and reconnects by itself. `ttl` bounds
    /// the age of every page, both tiers together.
    ///
    /// # Errors
    /// Why the URL is not understood, without the URL, which may hold a password.
    pub fn new(url: &str, prefix: &str, ttl: Duration) -> Result<Self, String> {
        let shared = if url == "memory:" {
            SharedTier::None
        } else {
            // A page that is read there in its last moment lives on in the local tier.
            SharedTier::Redis(redis::Redis::new(url, prefix, ttl.saturating_sub(LOCAL_PAGE_TTL))?)
        };

        Ok(Self {
            pages: LocalCache::builder()
                .max_capacity(LOCAL_CAPACITY)
                .weigher(|(_, key): &(u64, String), page: &CachedPage| weigh(key.len() + 2 * page.body.len()))
                .time_to_live(LOCAL_PAGE_TTL)
                .build(),
            orders: LocalCache::builder()
                .max_capacity(LOCAL_CAPACITY)
                .weigher(|_, order: &SettledOrder| weigh(order.body.len()))
                .time_to_live(ORDER_TTL)
                .build(),
            database_identity: Arc::default(),
            generation: Arc::default(),
            shared,
            coalesce: Arc::default(),
        })
    }

    /// Names the database that answers are made from. If it is another one than before, or the same after a restart, no answer
    /// is found that was cached until now. Returns whether that is so.
    pub fn set_database_identity(&self, identity: DatabaseIdentity) -> bool {
        let mut current = self.database_identity.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.database_identity.as_deref();
        if before == Some(&identity) {
            return false;
        }
        let is_another = before.is_some();
        let is_same_database = before.is_some_and(|before| before.database == identity.database);

        *current = CurrentIdentity {
            incarnations: current.incarnations + 1,
            databases: current.databases + u64::from(!is_same_database),
            database_identity: Some(Arc::new(identity)),
        };
        self.generation.fetch_add(1, Ordering::AcqRel);
        is_another
    }

    /// The identity of the database that is read now. Ask for it before reading what is to be stored under it.
    pub fn database_identity(&self) -> CurrentIdentity {
        self.database_identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Redis, if there is one, and the incarnation of the database, once it is known.
    fn shared<'a>(&'a self, current: &'a CurrentIdentity) -> Option<(&'a redis::Redis, &'a str)> {
        match &self.shared {
            SharedTier::None => None,
            SharedTier::Redis(redis) => Some((redis, current.incarnation()?)),
        }
    }

    /// The page under `key`. Of the callers that miss it at the same time one loads it, and the others wait for that.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn page<F>(&self, key: &str, load: F) -> Result<CachedPage, Error>
    where
        F: Future<Output = Result<Bytes, Error>>,
    {
        let local_key = (self.generation.load(Ordering::Acquire), key.to_owned());
        // The cache counts the time to live from when loading ended, which may have taken long.
        if self.pages.get(&local_key).await.is_some_and(|page| page.is_expired()) {
            self.pages.invalidate(&local_key).await;
        }

        // Boxed, because it is large and runs on a miss alone.
        let load_page = Box::pin(async {
            let loaded_since = Instant::now();
            let load = async {
                CACHE.missed_pages.increment(1);
                load.await
            };
            let current = self.database_identity();
            let body = match self.shared(&current) {
                None => load.await?,
                Some((redis, incarnation)) => redis.page(incarnation, key, load).await?,
            };
            Ok(CachedPage::new(body, loaded_since))
        });
        self.pages
            .try_get_with(local_key, load_page)
            .await
            .map_err(|error: Arc<Error>| (*error).clone())
    }

    /// The page under `key`, if the local tier has it.
    pub async fn local_page(&self, key: &str) -> Option<CachedPage> {
        let generation = self.generation.load(Ordering::Acquire);
        let page = self.pages.get(&LocalKey(generation, key)).await;

        let page = page.filter(|page| !page.is_expired());
        if page.is_some() {
            CACHE.local_pages.increment(1);
        }
        page
    }

    /// Invalidates all pages of products, in this process at once and in others within half a second. Call it after
    /// the commit that changed a product.
    pub async fn invalidate_pages(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let Some((redis, incarnation)) = self.shared(&self.database_identity()) {
            Box::pin(redis.invalidate_pages(incarnation)).await;
        }
    }

    /// As [`Cache::invalidate_pages`], for changes that come many times a second: at once if this was not done just now,
    /// else a quarter of a second later, once for all that has changed by then. Does not wait for it.
    pub fn invalidate_pages_soon(&self) {
        if !self.coalesce.begin() {
            return;
        }

        let cache = self.clone();
        tokio::spawn(async move {
            loop {
                cache.invalidate_pages().await;
                sleep(INTERVAL).await;
                if !cache.coalesce.next() {
                    return;
                }
            }
        });
    }

    /// Does at once what [`Cache::invalidate_pages_soon`] has put off. Call it before the process ends.
    pub async fn flush(&self) {
        if self.coalesce.take() {
            self.invalidate_pages().await;
        }
    }

    /// The settled order, if the local tier has it.
    pub async fn local_settled_order(&self, id: OrderId) -> Option<SettledOrder> {
        let incarnations = self
            .database_identity
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .incarnations;
        let order = self.orders.get(&(incarnations, id)).await;
        if order.is_some() {
            CACHE.local_orders.increment(1);
        }
        order
    }

    /// The settled order, if either tier has it.
    pub async fn settled_order(&self, id: OrderId) -> Option<SettledOrder> {
        if let Some(order) = self.local_settled_order(id).await {
            return Some(order);
        }

        let current = self.database_identity();
        let shared = match self.shared(&current) {
            None => None,
            Some((redis, incarnation)) => Box::pin(redis.order(incarnation, id)).await,
        };
        let Some(order) = shared else {
            CACHE.missed_orders.increment(1);
            return None;
        };

        CACHE.shared_orders.increment(1);
        self.orders.insert((current.incarnations, id), order.clone()).await;
        Some(order)
    }

    /// Stores an order in both tiers, which was read after `current` was. It must be settled: it is served for five minutes,
    /// whatever becomes of the row.
    pub async fn put_settled_order(&self, current: &CurrentIdentity, id: OrderId, order: SettledOrder) {
        if let Some((redis, incarnation)) = self.shared(current) {
            redis.put_order(incarnation, id, &order, ORDER_TTL);
        }
        self.orders.insert((current.incarnations, id), order).await;
    }

    /// Whether there is no other tier than the local one.
    pub fn is_memory(&self) -> bool {
        matches!(self.shared, SharedTier::None)
    }

    /// Waits until there is a connection to Redis, for `max_wait` at most.
    pub async fn until_connected(&self, max_wait: Duration) {
        if let SharedTier::Redis(redis) = &self.shared {
            redis.until_connected(max_wait).await;
        }
    }

    /// Whether Redis stores and answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), String> {
        match &self.shared {
            SharedTier::None => Ok(()),
            SharedTier::Redis(redis) => Box::pin(redis.ping()).await,
        }
    }
}

/// The key of a local page, borrowed. It hashes as the owned one does.
#[derive(Hash)]
struct LocalKey<'a>(u64, &'a str);

impl Equivalent<(u64, String)> for LocalKey<'_> {
    fn equivalent(&self, (generation, key): &(u64, String)) -> bool {
        self.0 == *generation && self.1 == key
    }
}

impl CachedPage {
    fn new(body: Bytes, loaded_since: Instant) -> Self {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let etag = format!("\"{:x}-{:016x}\"", body.len(), hasher.finish()).into();

        Self {
            body,
            etag,
            gzip: Arc::default(),
            loaded_since,
        }
    }

    fn is_expired(&self) -> bool {
        self.loaded_since.elapsed() > LOCAL_PAGE_TTL
    }

    /// The page compressed (RFC 1952), under an entity tag of its own. It is compressed once, however often it is sent.
    #[must_use]
    pub fn compressed(self) -> Self {
        let etag = format!("{}-gzip\"", self.etag.trim_end_matches('"')).into();
        Self {
            body: self.gzip(),
            etag,
            gzip: Arc::default(),
            loaded_since: self.loaded_since,
        }
    }

    fn gzip(&self) -> Bytes {
        let compress = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let compressed = encoder.write_all(&self.body).and_then(|()| encoder.finish());
            compressed.map(Bytes::from).unwrap_or_default()
        };
        self.gzip.get_or_init(compress).clone()
    }
}

fn weigh(bytes: usize) -> u32 {
    /// The bytes that an entry occupies beside its content, roughly.
    const OVERHEAD: usize = 200;

    u32::try_from(bytes + OVERHEAD).unwrap_or(u32::MAX)
}
