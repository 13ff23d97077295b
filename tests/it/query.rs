//! Query parameters: what is not understood is refused, and however a query is spelled, it is one page.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Shop, eventually};

const ORDER: &str = "/orders/019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11";

async fn shop_with_products() -> (Backend, Shop) {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10), (200, 10), (300, 10)]).await;
    let shop = Shop::serve(&backend);
    (backend, shop)
}

#[tokio::test]
async fn parameters_that_are_unknown_or_given_twice_are_all_named() {
    let (_backend, shop) = shop_with_products().await;
    let client = shop.client();
    for (method, path, names) in [
        (Method::GET, "/products?utm_source=x", &["utm_source"][..]),
        (
            Method::GET,
            "/products?limit=2&utm_source=x&Limit=3",
            &["Limit", "utm_source"],
        ),
        (Method::GET, "/orders?userid=2", &["userid"]),
        (Method::GET, "/products?limit=1&limit=2", &["limit"]),
        (Method::GET, "/products?limit=1&l%69mit=1", &["limit"]),
        (
            Method::GET,
            "/orders?status=PAID&status=PAID&x&y=1&limit=0",
            &["limit", "status", "x", "y"],
        ),
        (Method::GET, "/products?a/b=1&~=2&=3", &["", "a~1b", "~0"]),
        (Method::HEAD, "/products?x=1", &[]),
        (Method::GET, "/products/1?limit=1", &["limit"]),
        (Method::GET, "/orders/{id}?wait=3", &["wait"]),
        (Method::GET, "/orders/{id}/events?x=1", &["x"]),
        (Method::POST, "/orders?user_id=2", &["user_id"]),
        (Method::POST, "/orders/{id}/pay?amount=1", &["amount"]),
        (Method::POST, "/products?x=1&x=2", &["x"]),
        (Method::PATCH, "/products/1?price=1", &["price"]),
        (Method::POST, "/products/1/stock?delta=1", &["delta"]),
    ] {
        let path = path.replace("/orders/{id}", ORDER);
        let answer = Answer::of(client.request(method.clone(), &path).json(&json!({}))).await;

        assert_eq!(answer.status, 400, "{answer:?}");
        if method != Method::HEAD {
            let mut found = answer.problem(400, "invalid-request");
            found.sort();
            let expected: Vec<String> = names.iter().map(|name| format!("/query/{name}")).collect();
            assert_eq!(found, expected, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn what_is_not_an_operation_of_the_shop_may_be_asked_with_any_query() {
    let (_backend, shop) = shop_with_products().await;
    let client = shop.client();
    for path in [
        "/?x",
        "/docs?x=1",
        "/openapi.json?v=2&v=3",
        "/healthz?probe=1",
        "/readyz?x",
    ] {
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
    assert_eq!(shop.management().get("/metrics?x=1").await.status, 200);

    client.get("/nowhere?x=1").await.problem(404, "not-found");
    let wrong = Answer::of(client.request(Method::PUT, "/products?x=1")).await;
    wrong.problem(405, "method-not-allowed");
    for nothing in ["/products?", "/products?&&", "/orders?&"] {
        assert_eq!(client.get(nothing).await.status, 200, "{nothing}");
    }
}

/// How many pages were in no cache, as the metrics count them.
async fn missed(shop: &Shop) -> u64 {
    let text = shop.management().get("/metrics").await.body;
    let text = text.as_str().expect("text");
    let name = "shop_cache_misses_total{cache=\"products\"} ";
    let count = text.lines().find_map(|line| line.strip_prefix(name));
    count.map_or(0, |count| count.parse().expect("a number"))
}

#[tokio::test]
async fn however_a_query_is_spelled_it_is_one_page() {
    let (_backend, shop) = shop_with_products().await;
    let client = shop.client();

    // A page leaves the cache half a second after it was loaded, so the spellings are asked for again until all of them
    // were answered in time.
    for spellings in [
        &[
            "/products",
            "/products?limit=50",
            "/products?&limit=%350&",
            "/products?q=&limit=50",
        ][..],
        &[
            "/products?limit=2&cursor=1",
            "/products?cursor=1&limit=2",
            "/products?cursor=01&l%69mit=2",
        ],
        &[
            "/products?q=product+1",
            "/products?q=product%201",
            "/products?limit=50&q=%70roduct+1",
        ],
    ] {
        eventually("one page answers them all", || async {
            let before = missed(&shop).await;
            let mut pages: Vec<Value> = Vec::new();
            for path in spellings {
                let answer = client.get(path).await;
                assert_eq!(answer.status, 200, "{path}");
                pages.push(answer.body);
            }
            assert!(pages.iter().all(|page| *page == pages[0]), "{pages:?}");
            (missed(&shop).await - before <= 1).then_some(())
        })
        .await;
    }
    assert!(missed(&shop).await >= 3, "the metric has another name");
}
