//! Heads of requests that are not understood are refused and not guessed.

use serde_json::json;

use super::{closing, request, shop_with_stock};

const POST: &str = "POST /orders HTTP/1.1\r\nContent-Type: application/json\r\nConnection: close\r\n";
const GET: &str = "GET /products HTTP/1.1\r\nConnection: close\r\n";
const OLD: &str = "GET /products HTTP/1.0\r\n";
const CHUNKS: &str = "\r\n2\r\n{}\r\n0\r\n\r\n";
const BODY: &str = "\r\n{}";

/// The beginning and the headers of a request, the rest of it, and the status and a part of the answer.
const HEADS: [(&str, &str, &str, u16, &str); 33] = [
    (GET, "Host: Shop.Example:8080\r\n", "\r\n", 200, ""),
    (GET, "Host: [::1]:8080\r\n", "\r\n", 200, ""),
    (OLD, "", "\r\n", 200, ""),
    (GET, "", "\r\n", 400, "/header/Host"),
    (GET, "Host: a\r\nHost: a\r\n", "\r\n", 400, "/header/Host"),
    (OLD, "Host: a\r\nHost: b\r\n", "\r\n", 400, "/header/Host"),
    (GET, "Host:\r\n", "\r\n", 400, "/header/Host"),
    (GET, "Host: a b\r\n", "\r\n", 400, "/header/Host"),
    (OLD, "Host: a b\r\n", "\r\n", 400, "/header/Host"),
    (GET, "Host: a, b\r\n", "\r\n", 400, "/header/Host"),
    (GET, "Host: user@a\r\n", "\r\n", 400, "/header/Host"),
    (GET, "Host: a/b\r\n", "\r\n", 400, "/header/Host"),
    (GET, "Host: a:b\r\n", "\r\n", 400, "/header/Host"),
    (
        "GET http://shop.example/products HTTP/1.1\r\nConnection: close\r\n",
        "Host: x\r\n",
        "\r\n",
        200,
        "",
    ),
    (
        "GET http://u@shop/products HTTP/1.1\r\nConnection: close\r\n",
        "Host: shop\r\n",
        "\r\n",
        400,
        "",
    ),
    (POST, "Host: x\r\ntransfer-encoding: CHUNKED\r\n", CHUNKS, 400, "/items"),
    (
        POST,
        "Host: x\r\nTransfer-Encoding: gzip, chunked\r\n",
        CHUNKS,
        501,
        "not-implemented",
    ),
    (
        POST,
        "Host: x\r\nTransfer-Encoding: GZIP, Chunked\r\n",
        CHUNKS,
        501,
        "not-implemented",
    ),
    (
        POST,
        "Host: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        CHUNKS,
        501,
        "",
    ),
    (
        POST,
        "Host: x\r\nTransfer-Encoding: identity, chunked\r\n",
        CHUNKS,
        501,
        "",
    ),
    (
        GET,
        "Host: x\r\nTransfer-Encoding: \u{fc}\r\nTransfer-Encoding: chunked\r\n",
        CHUNKS,
        501,
        "",
    ),
    (
        POST,
        "Host: x\r\nTransfer-Encoding: chunked, chunked\r\n",
        CHUNKS,
        400,
        "Transfer-Encoding",
    ),
    (POST, "Host: x\r\nTransfer-Encoding: gzip\r\n", CHUNKS, 400, ""),
    (
        POST,
        "Host: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        CHUNKS,
        400,
        "Content-Length",
    ),
    (
        POST,
        "Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\n",
        CHUNKS,
        400,
        "Content-Length",
    ),
    (
        GET,
        "Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        CHUNKS,
        400,
        "Content-Length",
    ),
    (
        POST,
        "Host: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n",
        BODY,
        415,
        "",
    ),
    (
        POST,
        "Host: x\r\nContent-Encoding: GZip\r\nContent-Length: 2\r\n",
        BODY,
        415,
        "unsupported-media-type",
    ),
    (
        POST,
        "Host: x\r\nContent-Encoding: identity\r\nContent-Encoding: br\r\nContent-Length: 2\r\n",
        BODY,
        415,
        "",
    ),
    (
        POST,
        "Host: x\r\nContent-Encoding: Identity\r\nContent-Length: 2\r\n",
        BODY,
        400,
        "/items",
    ),
    (
        POST,
        "Host: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n",
        BODY,
        400,
        "/items",
    ),
    (
        POST,
        "Host: x\r\nExpect: 200-ok\r\nContent-Length: 2\r\n",
        BODY,
        417,
        "expectation-failed",
    ),
    (
        POST,
        "Host: x\r\nExpect: 100-continue, x=y\r\nContent-Length: 2\r\n",
        BODY,
        417,
        "",
    ),
];

#[tokio::test]
async fn a_head_that_is_not_understood_is_refused_and_not_guessed() {
    let (_backend, _shop, address) = shop_with_stock(&[]).await;
    for (line, headers, rest, status, says) in HEADS {
        let sent = format!("{line}{headers}{rest}");
        let answers = closing(&address, sent.as_bytes()).await;

        let last = answers.last().expect("an answer");
        assert_eq!(last.status, status, "{sent}: {answers:?}");
        assert!(last.body.contains(says), "{sent}: {answers:?}");
        // The one answer, and the one that lets a client go on that has asked.
        let mut others = answers.iter().rev().skip(1);
        assert!(others.all(|interim| interim.status == 100), "{sent}: {answers:?}");
        if status == 415 && headers.contains("Content-Encoding") {
            assert_eq!(last.header("accept-encoding"), Some("identity"));
        }
    }
}

/// What stands behind such a request may have been meant for somebody else.
#[tokio::test]
async fn nothing_behind_a_request_with_two_lengths_is_served() {
    let (_backend, shop, address) = shop_with_stock(&[]).await;
    let order = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] }).to_string();
    let smuggled = request("POST", "/orders", "", &order);
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let first =
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nPOST /orders HTTP/1.1\r\nHost: x\r\n{lengths}\r\n");
        let answers = closing(&address, format!("{first}0\r\n\r\n{smuggled}").as_bytes()).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200, 400], "{answers:?}");
    }
    assert_eq!(shop.client().get("/orders").await.body["items"], json!([]));
}

#[tokio::test]
async fn the_instance_of_a_problem_is_a_uri_reference() {
    let (_backend, _shop, address) = shop_with_stock(&[]).await;
    for (path, instance) in [
        ("/a|b{c}\"", "/a%7Cb%7Bc%7D%22"),
        ("/\u{e9}", "/%C3%A9"),
        ("/a%zz%4", "/a%25zz%254"),
        ("//evil.example/x", "/%2Fevil.example/x"),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answers = closing(&address, head.as_bytes()).await;
        assert_eq!(
            (answers[0].status, &answers[0].json()["instance"]),
            (404, &json!(instance))
        );
    }
}

/// Of a client that asks first, the body is never sent; one that sends nothing is told the same.
#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent() {
    let (_backend, _shop, address) = shop_with_stock(&[]).await;
    for expect in ["Expect: 100-continue\r\n", ""] {
        let head = format!(
            "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{expect}Content-Length: 70000\r\n\r\n"
        );
        let answers = closing(&address, head.as_bytes()).await;
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].status, 413, "{answers:?}");
        assert!(
            answers[0].json()["type"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("payload-too-large"))
        );
    }
}
