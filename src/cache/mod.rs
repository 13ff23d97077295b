//! Makes reading fast, and is never asked for anything that must be right. Ready-made answers are kept near (in this
//! process) and shared (in Redis): pages of products for half a second and for the time to live, under a generation that changes
//! after every commit that touches a product; settled orders, which never change, for minutes.

use std::{
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Write as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use moka::{Equivalent, future::Cache as LocalCache};

use crate::{
    domain::{Error, OrderId, UserId},
    telemetry::metrics::BUSY,
};

mod redis;

/// A page near at hand is at most this old, so that a settlement anywhere is seen within a second.
const LOCAL_PAGE_TTL: Duration = Duration::from_millis(500);
/// A settled order never changes; this only bounds how long it takes up room.
const ORDER_TTL: Duration = Duration::from_secs(300);
/// The most bytes kept near: of pages, and of orders.
const LOCAL_CAPACITY: u64 = 8 << 20;

/// An answer in JSON, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedPage {
    pub body: Bytes,
    /// A strong entity tag made from the content (RFC 9110, section 8.8.3), quotes included.
    pub etag: Arc<str>,
    gzip: Arc<OnceLock<Bytes>>,
    /// When it was begun to be loaded: what it shows is no older.
    since: Instant,
}

/// A settled order, ready to be sent to whom it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledOrder {
    pub user_id: UserId,
    pub body: Bytes,
}

/// The caches of one process. Clones share them.
#[derive(Clone)]
pub struct Cache {
    pages: LocalCache<(u64, String), CachedPage>,
    orders: LocalCache<OrderId, SettledOrder>,
    /// Part of every near page's key: what was stored before the last change here is never found again.
    generation: Arc<AtomicU64>,
    shared: SharedTier,
}

#[derive(Clone)]
enum SharedTier {
    None,
    Redis(redis::Redis),
}

impl Cache {
    /// Chooses the back end by the URL. A Redis that is not there is looked for in the background.
    ///
    /// # Errors
    /// When the URL is not understood, in words without the URL.
    pub fn new(url: &str, prefix: &str, ttl: Duration) -> Result<Self, String> {
        let shared = if url.starts_with("memory:") {
            SharedTier::None
        } else {
            // What is found there at the last moment is near for a while yet.
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
            generation: Arc::default(),
            shared,
        })
    }

    /// The page under `key`, loaded at most once at a time however many ask for it.
    ///
    /// # Errors
    /// What `load` failed with.
    pub async fn page<F>(&self, key: &str, load: F) -> Result<CachedPage, Error>
    where
        F: Future<Output = Result<Bytes, Error>>,
    {
        let local_key = (self.generation.load(Ordering::Acquire), key.to_owned());
        // What took long to load is still here when it is too old to be shown.
        if self.pages.get(&local_key).await.is_some_and(|page| page.is_old()) {
            self.pages.invalidate(&local_key).await;
        }
        self.pages
            // Boxed: this is the rare way, and it is large.
            .try_get_with(
                local_key,
                Box::pin(async {
                    let since = Instant::now();
                    let loaded = async {
                        BUSY.missed_pages.increment(1);
                        load.await
                    };
                    let body = match &self.shared {
                        SharedTier::None => loaded.await?,
                        SharedTier::Redis(redis) => redis.page(key, loaded).await?,
                    };
                    Ok(CachedPage::new(body, since))
                }),
            )
            .await
            .map_err(|error: Arc<Error>| (*error).clone())
    }

    /// The page under `key` if it is near at hand.
    pub async fn local_page(&self, key: &str) -> Option<CachedPage> {
        let generation = self.generation.load(Ordering::Acquire);
        let near = self.pages.get(&LocalKey(generation, key)).await;
        let near = near.filter(|page| !page.is_old());
        if near.is_some() {
            BUSY.near_pages.increment(1);
        }
        near
    }

    /// Forgets all pages of products, here at once and everywhere else within [`LOCAL_PAGE_TTL`]. Call it after the
    /// commit that changed a product.
    pub async fn invalidate_pages(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let SharedTier::Redis(redis) = &self.shared {
            Box::pin(redis.invalidate_pages()).await;
        }
    }

    /// A settled order, if it is known here.
    pub async fn settled_order(&self, id: OrderId) -> Option<SettledOrder> {
        if let Some(order) = self.orders.get(&id).await {
            BUSY.near_orders.increment(1);
            return Some(order);
        }
        let shared = match &self.shared {
            SharedTier::None => None,
            SharedTier::Redis(redis) => Box::pin(redis.order(id)).await,
        };
        let Some(order) = shared else {
            BUSY.missed_orders.increment(1);
            return None;
        };
        BUSY.far_orders.increment(1);
        self.orders.insert(id, order.clone()).await;
        Some(order)
    }

    /// Keeps an order that has been settled. Never call it with one that may still change.
    pub async fn put_settled_order(&self, id: OrderId, order: SettledOrder) {
        if let SharedTier::Redis(redis) = &self.shared {
            redis.put_order(id, &order, ORDER_TTL);
        }
        self.orders.insert(id, order).await;
    }

    /// # Errors
    /// When the cache cannot be reached; nothing depends on it.
    pub async fn ping(&self) -> Result<(), String> {
        match &self.shared {
            SharedTier::None => Ok(()),
            SharedTier::Redis(redis) => Box::pin(redis.ping()).await,
        }
    }
}

/// A near page's key without owning it; hashes as the owned one does.
#[derive(Hash)]
struct LocalKey<'a>(u64, &'a str);

impl Equivalent<(u64, String)> for LocalKey<'_> {
    fn equivalent(&self, (generation, key): &(u64, String)) -> bool {
        self.0 == *generation && self.1 == key
    }
}

impl CachedPage {
    fn new(body: Bytes, since: Instant) -> Self {
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let etag = format!("\"{:x}-{:016x}\"", body.len(), hasher.finish()).into();
        Self {
            body,
            etag,
            gzip: Arc::default(),
            since,
        }
    }

    /// LocalCache at hand it lives for [`LOCAL_PAGE_TTL`] from when it was begun to be loaded, however long that took.
    fn is_old(&self) -> bool {
        self.since.elapsed() > LOCAL_PAGE_TTL
    }

    /// The page compressed (RFC 1952), under a tag of its own; the work is done once however often it is asked for.
    #[must_use]
    pub fn compressed(self) -> Self {
        let etag = format!("{}-gzip\"", self.etag.trim_end_matches('"')).into();
        Self {
            body: self.gzip(),
            etag,
            gzip: Arc::default(),
            since: self.since,
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
    // What an entry costs beside its content.
    const OVERHEAD: usize = 200;
    u32::try_from(bytes + OVERHEAD).unwrap_or(u32::MAX)
}
