//! A Redis that is shared with others: with another shop, with whoever stores anything there, and under rules of access.

use std::time::Duration;

use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::{
    carts,
    servers::{Postgres, Redis},
    support::{Answer, Backend, Client, Shop, eventually, run_to_end},
};

/// An order that is settled, and in every cache.
async fn cached_order(client: &Client) -> String {
    let id = client.order(&[(1, 1)]).await;
    client.pay(&id).await;
    client.settled(&id).await;
    assert_eq!(client.get(&format!("/orders/{id}")).await.status, 200);
    id
}

/// The names of the products on the first page.
async fn names(client: &Client) -> Value {
    let page = client.get("/products").await;
    assert_eq!(page.status, 200, "{page:?}");
    let items = page.body["items"].as_array().expect("a list");
    items.iter().map(|product| product["name"].clone()).collect()
}

async fn add_product(client: &Client, name: &str) {
    let product = json!({ "name": name, "price": 100, "stock": 100 });
    assert_eq!(client.post("/products", &product).await.status, 201);
}

/// The second database is a copy of the first, as for trying something out.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn two_shops_on_one_redis_with_one_prefix_do_not_see_each_other(#[values("other", "copy")] second: &str) {
    let redis = Redis::start();
    let postgres = Postgres::start();
    let mut one = Backend::servers();
    one.cache_url = redis.url();
    one.database_url = postgres.create_database();
    one.app().await.close().await;
    let mut two = Backend::servers();
    two.cache_url = redis.url();
    two.prefix.clone_from(&one.prefix);
    if second == "copy" {
        let (_, first) = one.database_url.rsplit_once('/').expect("a URL");
        let copy = format!("CREATE DATABASE copy TEMPLATE {first}");
        postgres.psql(&postgres.maintenance_url(), &copy);
        two.database_url = one.database_url.replace(first, "copy");
    }
    // Queues of their own: only the cache is shared.
    let no_queue = [("SHOP_QUEUE_URL", "memory:")];
    two.app().await;
    let shops = [&one, &two].map(|backend| Shop::start(backend, &["serve"], &no_queue));
    let clients = shops.each_ref().map(Shop::client);

    for (client, name) in clients.iter().zip(["Mug", "Lamp"]) {
        add_product(client, name).await;
    }
    for _ in 0..3 {
        for (client, name) in clients.iter().zip(["Mug", "Lamp"]) {
            assert_eq!(names(client).await, json!([name]));
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    let id = cached_order(&clients[0]).await;
    assert_eq!(clients[1].get(&format!("/orders/{id}")).await.status, 404);

    let cart = carts::cart_of(&clients[0], &[(1, 1)]).await;
    carts::find(&clients[1], &cart).await.problem(404, "not-found");
    assert_eq!(carts::find(&clients[0], &cart).await.status, 200);
}

/// Neither the process nor Redis is restarted.
#[rstest]
#[case::embedded_made_anew("embedded", "made anew")]
#[case::made_anew("servers", "made anew")]
#[case::emptied("servers", "emptied")]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_cached_of_a_database_that_is_gone_is_not_shown(#[case] backend: &str, #[case] how: &str) {
    let backend = Backend::named(backend);
    let app = backend.app().await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    add_product(&client, "Mug").await;
    let id = cached_order(&client).await;
    assert_eq!(names(&client).await, json!(["Mug"]));
    let cart = carts::cart_of(&client, &[(1, 1)]).await;

    if how == "made anew" {
        let fresh = run_to_end(&backend, &["migrate", "fresh", "--yes"], &[]);
        assert!(fresh.status.success(), "{}", String::from_utf8_lossy(&fresh.stderr));
    } else {
        // The first step of restoring the data of the orders alone.
        let empty = "TRUNCATE orders CASCADE";
        app.db.write().execute_unprepared(empty).await.expect("emptied");
    }

    eventually("the order is gone", || async {
        let found = client.get(&format!("/orders/{id}")).await;
        assert!(matches!(found.status, 200 | 404 | 503), "{found:?}");
        (found.status == 404).then_some(())
    })
    .await;
    if how == "made anew" {
        eventually("the products are gone", || async {
            let page = client.get("/products").await;
            (page.body["items"] == json!([])).then_some(())
        })
        .await;
        carts::find(&client, &cart).await.problem(404, "not-found");
    }
}

/// Redis is trusted with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_stored_in_the_place_of_an_answer_is_not_served() {
    let redis = Redis::start();
    let mut backend = Backend::servers();
    backend.cache_url = redis.url();
    backend.stock(&[(100, 1_000)]).await;
    let id = {
        let shop = Shop::serve(&backend);
        let _workers = Shop::workers(&backend, 1);
        let client = shop.client();
        let id = cached_order(&client).await;
        names(&client).await;
        eventually("page and order are in Redis", || async {
            (redis.cli(&["KEYS", "*"]).lines().count() == 3).then_some(())
        })
        .await;
        id
    };
    let keys = redis.cli(&["KEYS", "*"]);
    let keys: Vec<&str> = keys.lines().collect();
    assert!(
        keys.iter().all(|key| key.starts_with(&format!("{}:", backend.prefix))),
        "{keys:?}"
    );

    for number in 0..GARBAGE {
        for (index, key) in keys.iter().enumerate() {
            let other = keys[(index + 1) % keys.len()];
            redis.cli(&garbage(key, other)[number]);
        }
        let garbage = &garbage("KEY", "OTHER")[number];

        // A new process has nothing in its own cache.
        let shop = Shop::serve(&backend);
        let client = shop.client();
        for _ in 0..2 {
            assert_eq!(names(&client).await, json!(["product 1"]), "{garbage:?}");
            let order = client.get(&format!("/orders/{id}")).await;
            assert_eq!(
                (order.status, &order.body["status"]),
                (200, &json!("PAID")),
                "{garbage:?}"
            );
            assert_eq!(order.body["order_id"], id, "{garbage:?}");
        }
        let restock = json!({ "delta": 1, "reason": "delivery" });
        assert_eq!(client.post("/products/1/stock", &restock).await.status, 200);
        eventually("the page is cached again and shows the change", || async {
            let stock = client.get("/products/1").await.body["stock"].clone();
            (client.get("/products").await.body["items"][0]["stock"] == stock).then_some(())
        })
        .await;
    }
}

const GARBAGE: usize = 7;

/// Commands that store something else under `key`; what is stored under `other`, for one.
fn garbage<'a>(key: &'a str, other: &'a str) -> [Vec<&'a str>; GARBAGE] {
    let list = "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'a')";
    [
        vec!["SETRANGE", key, "30", "junk"],
        vec!["APPEND", key, "junk"],
        vec!["COPY", other, key, "REPLACE"],
        vec!["SET", key, ""],
        vec!["SET", key, "junk"],
        vec!["SET", key, "{\"order_id\":\"7\",\"status\":\"PAID\",\"items\":[]}"],
        vec!["EVAL", list, "1", key],
    ]
}

/// As an operator gives it to one of several users of a Redis: these commands, and the keys with its prefix.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_redis_who_may_use_the_keys_of_the_prefix_alone_is_enough() {
    let redis = Redis::start();
    let mut backend = Backend::servers();
    backend.stock(&[(100, 1_000)]).await;
    let keys = format!("~{}:*", backend.prefix);
    let user = [
        "ACL",
        "SETUSER",
        "clerk",
        "on",
        ">secret",
        &keys,
        "resetchannels",
        "-@all",
    ];
    let answers = ["+get", "+set", "+mget", "+ping", "+info", "+client|id"];
    redis.cli(&[&user[..], &answers].concat());
    backend.cache_url = format!("redis://clerk:secret@127.0.0.1:{}", redis.port());

    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    eventually("the cache is up", || async {
        (client.get("/readyz").await.body["cache"] == "up").then_some(())
    })
    .await;
    let id = cached_order(&client).await;
    names(&client).await;
    eventually("page and order are in Redis", || async {
        (redis.cli(&["KEYS", "*"]).lines().count() == 3).then_some(())
    })
    .await;
    let other = Shop::serve(&backend);
    let found = Answer::of(other.client().request(reqwest::Method::GET, &format!("/orders/{id}"))).await;
    assert_eq!(found.status, 200);
    assert_eq!(redis.cli(&["ACL", "LOG"]), "");

    let no_cart = Answer::of(client.request(reqwest::Method::POST, "/carts")).await;
    no_cart.problem(503, "carts-unavailable");
    redis.cli(&["ACL", "LOG", "RESET"]);
    let carts = [
        "+eval", "+del", "+hdel", "+hget", "+hgetall", "+hkeys", "+hset", "+pexpire", "+time", "+type",
    ];
    redis.cli(&[&["ACL", "SETUSER", "clerk"], &carts[..]].concat());
    let cart = carts::cart_of(&client, &[(1, 2), (1, 0), (1, 1)]).await;
    assert_eq!(carts::check_out(&client, &cart, 7).await.status, 201);
    assert_eq!(redis.cli(&["ACL", "LOG"]), "");
}
