//! Makes reading fast, and is never asked for anything that must be right. Ready-made answers are kept near (in this
//! process) and far (in Redis): pages of products for half a second and for the time to live, under a generation that changes
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
use moka::{Equivalent, future::Cache as Near};

use crate::{
    domain::{Error, OrderId, UserId},
    telemetry::figures,
};

mod redis;

/// A page near at hand is at most this old, so that a settlement anywhere is seen within a second.
const NEAR_PAGE_TTL: Duration = Duration::from_millis(500);
/// A settled order never changes; this only bounds how long it takes up room.
const ORDER_TTL: Duration = Duration::from_secs(300);
/// The most bytes kept near: of pages, and of orders.
const NEAR_CAPACITY: u64 = 8 << 20;

/// An answer in JSON, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
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
    pages: Near<(u64, String), Page>,
    orders: Near<OrderId, SettledOrder>,
    /// Part of every near page's key: what was stored before the last change here is never found again.
    generation: Arc<AtomicU64>,
    far: Far,
}

#[derive(Clone)]
enum Far {
    None,
    Redis(redis::Redis),
}

impl Cache {
    /// Chooses the back end by the URL. A Redis that is not there is looked for in the background.
    ///
    /// # Errors
    /// When the URL is not understood, in words without the URL.
    pub fn new(url: &str, prefix: &str, ttl: Duration) -> Result<Self, String> {
        let far = if url.starts_with("memory:") {
            Far::None
        } else {
            // What is found there at the last moment is near for a while yet.
            Far::Redis(redis::Redis::new(url, prefix, ttl.saturating_sub(NEAR_PAGE_TTL))?)
        };
        Ok(Self {
            pages: Near::builder()
                .max_capacity(NEAR_CAPACITY)
                .weigher(|(_, key): &(u64, String), page: &Page| weigh(key.len() + 2 * page.body.len()))
                .time_to_live(NEAR_PAGE_TTL)
                .build(),
            orders: Near::builder()
                .max_capacity(NEAR_CAPACITY)
                .weigher(|_, order: &SettledOrder| weigh(order.body.len()))
                .time_to_live(ORDER_TTL)
                .build(),
            generation: Arc::default(),
            far,
        })
    }

    /// The page under `key`, loaded at most once at a time however many ask for it.
    ///
    /// # Errors
    /// What `load` failed with.
    pub async fn page<F>(&self, key: &str, load: F) -> Result<Page, Error>
    where
        F: Future<Output = Result<Bytes, Error>>,
    {
        let near_key = (self.generation.load(Ordering::Acquire), key.to_owned());
        // What took long to load is still here when it is too old to be shown.
        if self.pages.get(&near_key).await.is_some_and(|page| page.is_old()) {
            self.pages.invalidate(&near_key).await;
        }
        self.pages
            // Boxed: this is the rare way, and it is large.
            .try_get_with(
                near_key,
                Box::pin(async {
                    let since = Instant::now();
                    let loaded = async {
                        figures::BUSY.missed_pages.increment(1);
                        load.await
                    };
                    let body = match &self.far {
                        Far::None => loaded.await?,
                        Far::Redis(redis) => redis.page(key, loaded).await?,
                    };
                    Ok(Page::new(body, since))
                }),
            )
            .await
            .map_err(|error: Arc<Error>| (*error).clone())
    }

    /// The page under `key` if it is near at hand.
    pub async fn near_page(&self, key: &str) -> Option<Page> {
        let generation = self.generation.load(Ordering::Acquire);
        let near = self.pages.get(&NearKey(generation, key)).await;
        let near = near.filter(|page| !page.is_old());
        if near.is_some() {
            figures::BUSY.near_pages.increment(1);
        }
        near
    }

    /// Forgets all pages of products, here at once and everywhere else within [`NEAR_PAGE_TTL`]. Call it after the
    /// commit that changed a product.
    pub async fn forget_pages(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        if let Far::Redis(redis) = &self.far {
            Box::pin(redis.forget_pages()).await;
        }
    }

    /// A settled order, if it is known here.
    pub async fn settled_order(&self, id: OrderId) -> Option<SettledOrder> {
        if let Some(order) = self.orders.get(&id).await {
            figures::BUSY.near_orders.increment(1);
            return Some(order);
        }
        let far = match &self.far {
            Far::None => None,
            Far::Redis(redis) => Box::pin(redis.order(id)).await,
        };
        let Some(order) = far else {
            figures::BUSY.missed_orders.increment(1);
            return None;
        };
        figures::BUSY.far_orders.increment(1);
        self.orders.insert(id, order.clone()).await;
        Some(order)
    }

    /// Keeps an order that has been settled. Never call it with one that may still change.
    pub async fn keep_settled_order(&self, id: OrderId, order: SettledOrder) {
        if let Far::Redis(redis) = &self.far {
            redis.keep_order(id, &order, ORDER_TTL);
        }
        self.orders.insert(id, order).await;
    }

    /// # Errors
    /// When the cache cannot be reached; nothing depends on it.
    pub async fn ping(&self) -> Result<(), String> {
        match &self.far {
            Far::None => Ok(()),
            Far::Redis(redis) => Box::pin(redis.ping()).await,
        }
    }
}

/// A near page's key without owning it; hashes as the owned one does.
#[derive(Hash)]
struct NearKey<'a>(u64, &'a str);

impl Equivalent<(u64, String)> for NearKey<'_> {
    fn equivalent(&self, (generation, key): &(u64, String)) -> bool {
        self.0 == *generation && self.1 == key
    }
}

impl Page {
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

    /// Near at hand it lives for [`NEAR_PAGE_TTL`] from when it was begun to be loaded, however long that took.
    fn is_old(&self) -> bool {
        self.since.elapsed() > NEAR_PAGE_TTL
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
