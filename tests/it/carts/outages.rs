//! Carts while Redis is away, comes back empty, or holds something else than carts.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};
use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use shop::{
    cache::{Cache, carts::Carts},
    domain::{
        OrderId,
        carts::{CartId, CartKey},
        orders::Line,
    },
    entities::Timestamp,
};
use uuid::Uuid;

use super::{
    cart_of, check_out, checkout_request, create_request, find, lines, new_cart, put, put_request, remove,
    remove_request,
};
use crate::{
    servers::{Postgres, Redis},
    support::{Answer, Backend, Client, Shop, eventually, identity},
};

/// PostgreSQL, RabbitMQ, and a Redis of its own.
async fn with_redis(redis: &Redis) -> (Backend, Shop) {
    let mut backend = Backend::servers();
    backend.cache_url = redis.url();
    backend.stock(&[(100, 10), (250, 3)]).await;
    let shop = Shop::serve(&backend);
    (backend, shop)
}

async fn cache_is(client: &Client, state: &str) {
    eventually(&format!("the cache is {state}"), || async {
        (client.get("/readyz").await.body["cache"] == state).then_some(())
    })
    .await;
}

/// Every request that needs a cart says that there are none now.
async fn assert_no_carts(client: &Client, cart: &str) {
    for request in [
        create_request(client),
        client.request(Method::GET, cart),
        put_request(client, cart, 1, 1),
        put_request(client, cart, 999, 1),
        put_request(client, cart, 2, 0),
        remove_request(client, cart, 2),
        checkout_request(client, cart, 7),
    ] {
        let answer = Answer::of(request).await;
        answer.problem(503, "carts-unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
}

/// What is not a cart is as ever.
async fn assert_all_else_works(client: &Client) {
    assert_eq!(client.get("/products").await.status, 200);
    let order = client.order(&[(1, 1)]).await;
    assert_eq!(client.get(&format!("/orders/{order}")).await.status, 200);
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn while_redis_is_away_carts_are_unavailable_and_all_else_works() {
    let redis = Redis::start();
    let (_backend, shop) = with_redis(&redis).await;
    let client = shop.client();
    cache_is(&client, "up").await;
    let cart = cart_of(&client, &[(1, 2)]).await;

    redis.pause();
    assert_no_carts(&client, &cart).await;
    assert_all_else_works(&client).await;
    redis.resume();
    cache_is(&client, "up").await;
    let found = find(&client, &cart).await;
    assert_eq!((found.status, lines(&found)), (200, vec![(1, 2)]), "{found:?}");

    redis.kill();
    assert_no_carts(&client, &cart).await;
    assert_all_else_works(&client).await;
    redis.start_again();
    cache_is(&client, "up").await;
    find(&client, &cart).await.problem(404, "not-found");
    let another = new_cart(&client).await;
    assert_eq!(put(&client, &another, 1, 1).await.status, 200);
}

#[tokio::test]
async fn what_is_not_a_cart_in_redis_is_no_cart() {
    let redis = Redis::start();
    let (backend, shop) = with_redis(&redis).await;
    let client = shop.client();
    cache_is(&client, "up").await;

    for garbage in [
        &["SET", "KEY", "garbage"][..],
        &["RPUSH", "KEY", "garbage"],
        &["HSET", "KEY", "field", "garbage"],
        &["HSET", "KEY", "owner", "\u{1}\u{fffd}"],
        &["HSET", "KEY", "owner", "", "1", "garbage"],
        &["HSET", "KEY", "1", "1 1000000000"],
        &["HSET", "KEY", "1", "1 -5"],
        &["HSET", "KEY", "9223372036854775808", "1 1"],
    ] {
        let cart = cart_of(&client, &[(1, 2)]).await;
        let key = key_of(&redis, &backend, &cart);
        if garbage[0] != "HSET" {
            redis.cli(&["DEL", &key]);
        }
        let command = garbage.iter().map(|word| if *word == "KEY" { &*key } else { word });
        redis.cli(&command.collect::<Vec<&str>>());

        for answer in [
            find(&client, &cart).await,
            put(&client, &cart, 2, 1).await,
            remove(&client, &cart, 2).await,
            check_out(&client, &cart, 7).await,
        ] {
            answer.problem(404, "not-found");
        }
        redis.cli(&["DEL", &key]);
    }

    // What belongs to no line, and numbers that are none.
    let cart = cart_of(&client, &[(1, 2)]).await;
    let key = key_of(&redis, &backend, &cart);
    let fields = [
        "expires_at",
        "soon",
        "next_line",
        "many",
        "attempts",
        "x",
        "frozen_until",
        "never",
    ];
    redis.cli(&[&["HSET", key.as_str()][..], &fields].concat());
    find(&client, &cart).await.problem(404, "not-found");
    assert_eq!(remove(&client, &cart, 2).await.status, 200, "a change mends it");
    assert_eq!(put(&client, &cart, 2, 1).await.status, 200);

    // An order of somebody else's is not given away.
    let order = client.order(&[(2, 3)]).await;
    redis.cli(&["HSET", &key, "order", &order]);
    let answer = check_out(&client, &cart, 8).await;
    assert_eq!((answer.status, &answer.body["user_id"]), (201, &json!(8)));
    assert_ne!(answer.body["order_id"], order.as_str());
}

/// As at every upgrade of PostgreSQL. Answers that were cached before are not used any more.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn carts_outlive_a_restart_of_the_database(#[values("Redis", "memory")] stored_in: &str) {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    if stored_in == "memory" {
        backend.cache_url = "memory:".to_owned();
    }
    backend.stock(&[(100, 10), (250, 3)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let cart = cart_of(&client, &[(1, 2), (2, 1)]).await;

    postgres.stop();
    postgres.start_again();

    let noticed = "the database was restarted, restored or made anew; what was cached of it is not used any more";
    shop.wait_for(noticed);
    assert_eq!(lines(&find(&client, &cart).await), [(1, 2), (2, 1)]);
    assert_eq!(check_out(&client, &cart, 7).await.status, 201);
}

/// The same operations in any sequence have the same outcome, wherever carts are stored.
#[tokio::test]
async fn carts_in_redis_and_in_memory_do_the_same() {
    const SEED: u64 = 18;
    let backend = Backend::servers();
    let carts = |url: &str| {
        let cache = Cache::new(url, &backend.prefix, Duration::from_secs(5)).expect("a known URL");
        cache.set_database_identity(identity("one"));
        (Carts::new(&cache, Duration::from_secs(60)), cache)
    };
    let ((memory, _), (redis, cache)) = (carts("memory:"), carts(&backend.cache_url));
    eventually("the cache is up", || async { cache.ping().await.ok() }).await;

    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut compared = 0;
    for _ in 0..40 {
        let key = CartId::random().expect("random numbers").key();
        let order_id = Uuid::now_v7();
        let mut history = Vec::new();
        for _ in 0..30 {
            let step = (
                random.random_range(0..20),
                random.random_range(1..=3),
                random.random_range(0..=2),
            );
            let mut outcomes = Vec::new();
            for carts in [&memory, &redis] {
                outcomes.push(run(carts, key, order_id, step).await);
            }
            if outcomes[1].contains("CartsUnavailable") {
                // It may or may not have been done, so this cart says nothing any more.
                break;
            }
            compared += 1;
            history.push((step, outcomes.clone()));
            assert_eq!(outcomes[0], outcomes[1], "{history:?}");
        }
    }
    assert!(compared > 500, "{compared}");
}

/// One operation by a user, or by anybody for user 3, as its outcome without the time.
async fn run(carts: &Carts, key: CartKey, order_id: OrderId, (operation, user, quantity): (u32, i64, i64)) -> String {
    let owner = Some(user).filter(|user| *user < 3);
    let line = Line {
        product_id: 1 + i64::from(operation),
        quantity,
    };

    let mut request = carts.request(key, owner, Timestamp::now());
    let outcome = match operation {
        0 => request.create().await,
        1 => request.find().await,
        2 => request.begin_checkout(user).await,
        3 => request.release_checkout().await,
        4 if quantity == 0 => request.finish_checkout(order_id).await,
        _ => request.put(line).await,
    };
    match outcome {
        Ok(cart) => format!("{:?} {:?} {:?}", cart.owner, cart.lines, cart.order_id),
        Err(error) => format!("{error:?}"),
    }
}

/// The key of a cart in Redis.
fn key_of(redis: &Redis, backend: &Backend, cart: &str) -> String {
    let id = CartId::parse(&cart["/carts/".len()..]).expect("an id");
    let keys = redis.cli(&["KEYS", &format!("*:{}", id.key())]);
    let key = keys.trim();
    assert!(key.starts_with(&format!("{}:{{", backend.prefix)), "{keys}");
    key.to_owned()
}
