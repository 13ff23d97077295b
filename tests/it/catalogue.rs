//! The catalogue: an administrator changes it, and customers of every replica see the change within a second.

use std::time::Duration;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Answer, Backend, Client, Shop, eventually, ledger_report};

async fn patch(client: &Client, path: &str, body: &Value) -> Answer {
    Answer::of(client.request(Method::PATCH, path).json(body)).await
}

#[rstest]
#[tokio::test]
async fn a_product_is_created_changed_and_restocked_and_the_ledger_balances(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.app().await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    let made = client
        .post("/products", &json!({ "name": "Mug ☕", "price": 500, "stock": 5 }))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = made.header("location").expect("where it is").to_owned();
    assert_eq!(client.get(&path).await.body, made.body);

    let order = client.order(&[(1, 2)]).await;
    let changed = patch(&client, &path, &json!({ "price": 700 })).await;
    assert_eq!(
        (changed.status, &changed.body["name"], &changed.body["price"]),
        (200, &json!("Mug ☕"), &json!(700))
    );

    let renamed = patch(&client, &path, &json!({ "name": "Cup" })).await;
    assert_eq!(
        (&renamed.body["name"], &renamed.body["price"]),
        (&json!("Cup"), &json!(700))
    );
    assert_eq!(patch(&client, &path, &json!({})).await.body, renamed.body);

    assert_eq!(
        client.get(&format!("/orders/{order}")).await.body["total_price"],
        1_000,
        "the order keeps its price"
    );

    let stock = format!("{path}/stock");
    let change = |delta: i64| json!({ "delta": delta, "reason": "counted" });
    assert_eq!(client.post(&stock, &change(7)).await.body["stock"], 12);
    assert_eq!(client.post(&stock, &change(-12)).await.body["stock"], 0);
    client
        .post(&stock, &change(-1))
        .await
        .problem(409, "stock-out-of-range");
    client.post(&stock, &change(1_000_000_000_000)).await;
    client.post(&stock, &change(1)).await.problem(409, "stock-out-of-range");

    assert!(ledger_report(&app).await.is_clean());

    for (method, path, body) in [
        (Method::PATCH, "/products/999", json!({ "price": 1 })),
        (Method::POST, "/products/999/stock", change(1)),
    ] {
        Answer::of(client.request(method, path).json(&body))
            .await
            .problem(404, "not-found");
    }
}

#[rstest]
#[case(json!({ "name": "", "price": 1, "stock": 1 }), &["/name"])]
#[case(json!({ "name": " \u{a0}", "price": 1, "stock": 1 }), &["/name"])]
#[case(json!({ "name": "a\u{0}b", "price": 1, "stock": 1 }), &["/name"])]
#[case(json!({ "name": "x".repeat(201), "price": -1, "stock": -1 }), &["/name", "/price", "/stock"])]
#[case(json!({ "name": "Mug", "price": 1.5, "stock": "1" }), &["/price", "/stock"])]
#[case(json!({ "name": "Mug", "price": 1, "stock": 1, "id": 7 }), &["/id"])]
#[tokio::test]
async fn an_invalid_product_is_rejected_with_every_error(#[case] body: Value, #[case] pointers: &[&str]) {
    let backend = Backend::embedded();
    let shop = Shop::serve(&backend);
    let mut errors = shop
        .client()
        .post("/products", &body)
        .await
        .problem(400, "invalid-request");
    errors.sort_unstable();
    errors.dedup();
    assert_eq!(errors, pointers);
    assert_eq!(shop.client().get("/products").await.body["items"], json!([]));
}

/// Two replicas, both read all the time, so that some reader is always loading a page.
#[rstest]
#[case::with_redis(true)]
#[case::without_redis(false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_on_every_replica_and_never_reverts(#[case] redis: bool) {
    let mut backend = Backend::servers();
    if !redis {
        backend.cache_url = "memory:".to_owned();
    }

    backend.stock(&[(100, 1_000)]).await;
    let shops = [Shop::serve(&backend), Shop::serve(&backend)];
    let _workers = Shop::workers(&backend, 1);
    let clients = [shops[0].client(), shops[1].client()];

    let readers: Vec<_> = clients
        .iter()
        .map(|client| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut newest = 0;
                loop {
                    let page = client.get("/products").await;
                    let price = page.body["items"][0]["price"].as_i64().expect("a price");
                    assert!(price >= newest, "the price went back from {newest} to {price}");
                    newest = price;
                    if price == 999_999 {
                        return;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();

    for (turn, price) in (101..=110).chain([999_999]).enumerate() {
        let changed = patch(&clients[turn % 2], "/products/1", &json!({ "price": price })).await;
        assert_eq!(changed.body["price"], price);
        for client in &clients {
            eventually("the change is seen", || async {
                (client.get("/products").await.body["items"][0]["price"] == price).then_some(())
            })
            .await;
        }
    }

    for reader in readers {
        reader.await.expect("no reader saw an older price");
    }

    // A settlement, by another process, is a change too.
    let id = clients[0].order(&[(1, 3)]).await;
    clients[0].pay(&id).await;
    clients[0].settled(&id).await;
    for client in &clients {
        eventually("the new stock is seen", || async {
            (client.get("/products").await.body["items"][0]["stock"] == 997).then_some(())
        })
        .await;
    }
}

#[rstest]
#[tokio::test]
async fn orders_are_listed_newest_first_page_by_page(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 4)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();

    let mut made = Vec::new();
    for number in 0..7 {
        let id = client.order(&[(1, 2)]).await;
        if number < 3 {
            client.pay(&id).await;
            client.settled(&id).await;
        }
        made.push(id);
    }

    let list = |query: String| {
        let client = client.clone();
        async move {
            let page = client.get(&format!("/orders?{query}")).await;
            assert_eq!(page.status, 200, "{page:?}");
            let items = page.body["items"].as_array().expect("a list").clone();
            let ids: Vec<String> = items
                .iter()
                .map(|order| order["order_id"].as_str().expect("an id").to_owned())
                .collect();
            (ids, page.body["next_cursor"].as_str().map(str::to_owned), items)
        }
    };

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (ids, next, _) = list(format!("limit=3&user_id=7{cursor}")).await;
        seen.extend(ids);
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
    }
    let newest_first: Vec<String> = made.iter().rev().cloned().collect();
    assert_eq!(seen, newest_first);

    for (status, count) in [("PENDING", 4), ("PAID", 2), ("FAILED", 1)] {
        let (ids, _, items) = list(format!("status={status}")).await;
        assert_eq!(ids.len(), count);
        assert!(
            items
                .iter()
                .all(|order| order["status"] == status && order["items"][0]["quantity"] == 2)
        );
    }

    assert_eq!(list("user_id=8".to_owned()).await.0, [] as [String; 0]);

    for bad in [
        "limit=0",
        "limit=201",
        "limit=x",
        "status=DONE",
        "cursor=x",
        "user_id=0",
        "user_id=x",
    ] {
        client
            .get(&format!("/orders?{bad}"))
            .await
            .problem(400, "invalid-request");
    }
}

#[tokio::test]
async fn a_page_is_compressed_for_clients_that_accept_gzip() {
    let backend = Backend::embedded();
    backend.stock(&[(1, 1); 40]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let plain = client.get("/products").await;

    let get = |accepted: &'static str, known: Option<String>| {
        let mut request = client
            .request(Method::GET, "/products")
            .header("Accept-Encoding", accepted);
        if let Some(known) = known {
            request = request.header("If-None-Match", known);
        }
        async move { request.send().await.expect("answers") }
    };

    let compressed = get("br, GZip;q=0.5", None).await;
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
    assert_eq!(compressed.headers()["vary"], "accept-encoding");
    let etag = compressed.headers()["etag"].to_str().expect("ASCII").to_owned();
    assert_ne!(Some(etag.as_str()), plain.header("etag"));
    assert_eq!(get("gzip", Some(etag)).await.status(), 304);

    let body = compressed.bytes().await.expect("whole");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*body), &mut text).expect("gzip");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), plain.body);
    assert!(body.len() * 2 < text.len());

    for refused in ["identity", "gzip;q=0", ""] {
        assert!(
            !get(refused, None).await.headers().contains_key("content-encoding"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn pages_follow_one_another_without_gaps_and_answer_304_to_a_known_etag() {
    let backend = Backend::embedded();
    backend.stock(&[(1, 1); 7]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    let mut ids = Vec::new();
    let mut path = "/products?limit=3".to_owned();
    loop {
        let page = client.get(&path).await;
        ids.extend(
            page.body["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|item| item["id"].as_i64()),
        );

        match page.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("/products?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(ids, (1..=7).map(Some).collect::<Vec<_>>());
    assert_eq!(client.get("/products?q=PRODUCT%207").await.body["items"][0]["id"], 7);
    assert_eq!(client.get("/products?q=%25").await.body["items"], json!([]));

    let page = client.get("/products").await;
    let etag = page.header("etag").expect("an ETag").to_owned();
    let known = client.request(Method::GET, "/products").header("if-none-match", &etag);
    let unchanged = Answer::of(known).await;
    assert_eq!((unchanged.status, unchanged.body), (304, Value::String(String::new())));

    let id = client.order(&[(1, 1)]).await;
    client.pay(&id).await;
    client.settled(&id).await;
    eventually("the ETag changes with the stock", || async {
        let known = client.request(Method::GET, "/products").header("if-none-match", &etag);
        (Answer::of(known).await.status == 200).then_some(())
    })
    .await;
}
