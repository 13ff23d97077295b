//! Both tiers of the cache: a change is seen whatever is being read meanwhile, and an outage of the cache changes no answer.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rstest::rstest;
use shop::{
    cache::{Cache, SettledOrder},
    domain::Error,
};
use uuid::Uuid;

use crate::{
    servers::Redis,
    support::{Backend, Shop, eventually, identity},
};

const TTL: Duration = Duration::from_secs(5);

fn open(backend: &Backend) -> Cache {
    let cache = Cache::new(&backend.cache_url, &backend.prefix, TTL).expect("a known URL");
    cache.set_database_identity(identity("one"));
    cache
}

fn cache(backend: &str) -> (Backend, Cache) {
    let backend = Backend::named(backend);
    let cache = open(&backend);
    (backend, cache)
}

async fn page(cache: &Cache, content: &'static str) -> String {
    let page = cache
        .page("key", async { Ok(Bytes::from_static(content.as_bytes())) })
        .await;
    String::from_utf8(page.expect("loads").body.to_vec()).expect("text")
}

#[rstest]
#[tokio::test]
async fn a_page_is_cached_until_it_is_invalidated(#[values("embedded", "servers")] backend: &str) {
    let (_backend, cache) = cache(backend);
    eventually("the cache is up", || async { cache.ping().await.ok() }).await;
    assert_eq!(page(&cache, "old").await, "old");
    assert_eq!(page(&cache, "new").await, "old");
    cache.invalidate_pages().await;
    assert_eq!(page(&cache, "new").await, "new");
}

/// A shop under load changes what is available hundreds of times a second, and pages are read as often.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_hits_while_many_changes_invalidate_them_together(#[values("embedded", "servers")] backend: &str) {
    let (_backend, cache) = cache(backend);
    eventually("the cache is up", || async { cache.ping().await.ok() }).await;
    let (loads, started) = (AtomicUsize::new(0), Instant::now());
    for _ in 0..2_000 {
        cache.invalidate_pages_soon();
        tokio::task::yield_now().await;
        let load = cache.page("key", async {
            loads.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from_static(b"page"))
        });
        load.await.expect("loads");
    }
    // Four times a second, and twice a second because a page has become old.
    let most = 5 + started.elapsed().as_millis() / 160;
    let loads = u128::try_from(loads.into_inner()).expect("few");
    assert!(loads <= most, "{loads} loads, not {most}");

    assert_eq!(page(&cache, "old").await, "page");
    cache.invalidate_pages_soon();
    eventually("the last change is seen", || async {
        (page(&cache, "new").await == "new").then_some(())
    })
    .await;
}

/// A settlement by another process is seen within a second, also by readers of a page that was slow to load.
#[tokio::test]
async fn a_page_that_was_slow_to_load_is_not_cached_for_longer() {
    let (_backend, cache) = cache("embedded");
    let slow = cache.page("key", async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        Ok(Bytes::from_static(b"old"))
    });
    assert_eq!(slow.await.expect("loads").body, "old");
    assert!(cache.local_page("key").await.is_none());
    assert_eq!(page(&cache, "new").await, "new");
}

#[rstest]
#[tokio::test]
async fn a_reader_that_is_still_loading_cannot_store_the_old_page(#[values("embedded", "servers")] backend: &str) {
    let (_backend, cache) = cache(backend);
    eventually("the cache is up", || async { cache.ping().await.ok() }).await;
    let read = cache.page("key", async {
        // The page was read from the database; now it changes.
        cache.invalidate_pages().await;
        Ok(Bytes::from_static(b"old"))
    });
    assert_eq!(read.await.expect("loads").body, "old");
    assert_eq!(page(&cache, "new").await, "new");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_readers_load_a_page_once(#[values("embedded", "servers")] backend: &str) {
    let (_backend, cache) = cache(backend);
    let loads = AtomicUsize::new(0);
    let load = || {
        cache.page("key", async {
            loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(Bytes::from_static(b"page"))
        })
    };
    futures_util::future::join_all((0..50).map(|_| load())).await;
    assert_eq!(loads.into_inner(), 1);
}

#[rstest]
#[tokio::test]
async fn a_failed_load_is_answered_and_not_cached(#[values("embedded", "servers")] backend: &str) {
    let (_backend, cache) = cache(backend);
    let failed = cache
        .page("key", async { Err(Error::Unavailable("away".to_owned())) })
        .await;
    assert!(matches!(failed, Err(Error::Unavailable(_))));
    assert_eq!(page(&cache, "page").await, "page");
}

#[tokio::test]
async fn another_process_sees_the_page_and_the_change() {
    let backend = Backend::servers();
    let (one, other) = (open(&backend), open(&backend));
    for cache in [&one, &other] {
        eventually("the cache is up", || async { cache.ping().await.ok() }).await;
    }

    assert_eq!(page(&one, "old").await, "old");
    eventually("the other one finds the page in Redis", || async {
        let found = other
            .page("key", async { Err(Error::Internal("must not be loaded".to_owned())) })
            .await;
        found.ok().filter(|page| page.body == "old")
    })
    .await;

    one.invalidate_pages().await;
    eventually("the other one sees the change", || async {
        (page(&other, "new").await == "new").then_some(())
    })
    .await;

    let id = Uuid::now_v7();
    let order = SettledOrder {
        user_id: 42,
        body: Bytes::from_static(b"{}"),
    };
    one.put_settled_order(&one.database_identity(), id, order.clone()).await;
    eventually("the other one finds the order", || async {
        other.settled_order(id).await.filter(|found| *found == order)
    })
    .await;
}

#[tokio::test]
async fn without_redis_the_answers_are_the_same() {
    let redis = Redis::start();
    let mut backend = Backend::servers();
    backend.cache_url = redis.url();
    backend.stock(&[(100, 10)]).await;
    redis.kill();
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();

    assert_eq!(client.get("/products").await.body["items"][0]["stock"], 10);

    let id = client.order(&[(1, 3)]).await;
    client.pay(&id).await;
    assert_eq!(client.settled(&id).await["status"], "PAID");

    let ready = client.get("/readyz").await;
    assert_eq!((ready.status, &ready.body["cache"]), (200, &"down".into()));
    eventually("the page shows the new stock", || async {
        (client.get("/products").await.body["items"][0]["stock"] == 7).then_some(())
    })
    .await;

    redis.start_again();
    eventually("the cache is back by itself", || async {
        (client.get("/readyz").await.body["cache"] == "up").then_some(())
    })
    .await;

    redis.pause();
    assert_eq!(client.get("/products").await.status, 200);
    redis.resume();
}

/// What was read from one database is not stored as if it were another's, however slow the reader is.
#[rstest]
#[tokio::test]
async fn nothing_is_found_that_was_cached_of_another_database(#[values("embedded", "servers")] backend: &str) {
    let (backend, one) = cache(backend);
    let other = open(&backend);
    for cache in [&one, &other] {
        eventually("the cache is up", || async { cache.ping().await.ok() }).await;
    }
    let id = Uuid::now_v7();
    let order = SettledOrder {
        user_id: 42,
        body: Bytes::from_static(b"{}"),
    };
    let current = one.database_identity();
    one.put_settled_order(&current, id, order.clone()).await;
    assert_eq!(page(&one, "old").await, "old");
    assert_eq!(one.settled_order(id).await.as_ref(), Some(&order));

    for cache in [&one, &other] {
        assert!(cache.set_database_identity(identity("two")) && !cache.set_database_identity(identity("two")));
        assert_eq!(cache.settled_order(id).await, None);
        assert_eq!(page(cache, "new").await, "new");
    }
    one.put_settled_order(&current, id, order).await;
    assert_eq!(one.settled_order(id).await, None);
}
