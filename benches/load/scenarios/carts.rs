//! Carts, and what becomes of their requests while Redis is away.

use std::time::Duration;

use http_body_util::Full;
use hyper::{Request, body::Bytes};
use serde_json::Value;

use super::setup;
use crate::{
    client::{Connection, Outgoing, get, load, post},
    report::Table,
    seconds,
    servers::Redis,
    shop::Process,
};

const CONNECTIONS: u64 = 8;

/// A line put into a cart while Redis is up, while it hangs, and after it was killed; and a page of products at the same
/// moments. The first requests after the fault are among those that are measured.
pub async fn carts(table: &mut Table) {
    let redis = Redis::start();
    let mut backend = setup::backend();
    backend.cache_url = redis.url();
    let serve = Process::serve(&backend);
    let mut connection = Connection::open(&serve.address).await;
    let (status, cart) = connection.send(post("/carts", String::new())).await;
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&cart));
    let cart: Value = serde_json::from_slice(&cart).expect("JSON");
    let line = format!("/carts/{}/items/1", cart["cart_id"].as_str().expect("an id"));

    add(table, "Redis is up", &serve, &line, 200).await;
    redis.pause();
    add(table, "Redis hangs", &serve, &line, 503).await;
    redis.resume();
    while connection.send(put(&line)).await.0 == 503 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    redis.kill();
    add(table, "Redis is gone", &serve, &line, 503).await;
}

async fn add(table: &mut Table, state: &str, serve: &Process, line: &str, status: u16) {
    let time = Duration::from_secs(seconds());
    let path = line.to_owned();
    let (changed, read) = tokio::join!(
        load(&serve.address, CONNECTIONS, time, status, move |_| put(&path)),
        load(&serve.address, CONNECTIONS, time, 200, |_| get("/products")),
    );
    for (request, status, round) in [
        ("`PUT` of a line of a cart", status, changed),
        ("`GET /products`", 200, read),
    ] {
        table.latencies(&format!("{request} while {state}: {status}"), &round);
    }
}

fn put(path: &str) -> Outgoing {
    let request = Request::put(path)
        .header("host", "shop")
        .header("content-type", "application/json");
    let body = Full::new(Bytes::from_static(b"{\"quantity\":2}"));
    request.body(body).expect("a request")
}
