//! HTTP/1.1 as bytes: who closes which side of a connection, where one request ends and the next begins, and heads that
//! no client library sends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Backend, MAX_WAIT, Shop, eventually};

/// One answer, as it came.
#[derive(Debug)]
struct Raw {
    status: u16,
    head: String,
    body: String,
}

impl Raw {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut named = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The answers among these bytes, each with a length or up to the end.
fn answers(mut bytes: &[u8]) -> Vec<Raw> {
    let mut answers = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut answer = Raw {
            status: status.unwrap_or_else(|| panic!("no status: {head}")),
            head,
            body: String::new(),
        };

        let length = answer
            .header("content-length")
            .map(|length| length.parse().expect("a length"));
        let rest = if answer.status < 200 { 0 } else { bytes.len() };
        let (body, after) = bytes.split_at(length.unwrap_or(rest));
        answer.body = String::from_utf8_lossy(body).into_owned();
        bytes = after;
        answers.push(answer);
    }
    answers
}

/// Sends `bytes`, closes the sending side, and reads until the server closes the other one.
async fn half_closed(address: &str, bytes: &str) -> Vec<Raw> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(bytes.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("closed");
    let mut received = Vec::new();
    let read = timeout(MAX_WAIT, stream.read_to_end(&mut received)).await;
    read.expect("the server closes").expect("read");
    answers(&received)
}

/// Sends one request that asks for the connection to be closed after it.
async fn closing(address: &str, head: &[u8]) -> Vec<Raw> {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(head).await.expect("sent");
    let mut received = Vec::new();
    let read = timeout(MAX_WAIT, stream.read_to_end(&mut received)).await;
    let _ = read.expect("the server closes");
    answers(&received)
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let kind = "Content-Type: application/json\r\n";
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{kind}{headers}Content-Length: {length}\r\n\r\n{body}")
}

async fn shop_with_stock(environment: &[(&str, &str)]) -> (Backend, Shop, String) {
    let backend = Backend::embedded();
    backend.stock(&[(100, 1_000)]).await;
    let shop = Shop::start(&backend, &["serve"], environment);
    let address = shop.wait_for("serving");
    (backend, shop, address)
}

/// RFC 9112, section 9.6: a client that sends nothing more may still read.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_sending_side_gets_its_answer() {
    let (_backend, shop, address) = shop_with_stock(&[]).await;
    let order = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] }).to_string();

    let get = request("GET", "/products", "", "");
    let create = request("POST", "/orders", "", &order);
    let chunked = format!(
        "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: Chunked\r\n\r\n\
         {:x}\r\n{order}\r\n0\r\n\r\n",
        order.len()
    );
    for (sent, statuses) in [
        (get.clone(), &[200][..]),
        (create.clone(), &[201]),
        (chunked.clone(), &[201]),
        (format!("{create}{chunked}{get}"), &[201, 201, 200]),
        (get.replace("1.1", "1.0"), &[200]),
    ] {
        let found = half_closed(&address, &sent).await;
        let found: Vec<u16> = found.iter().map(|answer| answer.status).collect();
        assert_eq!(found, statuses, "{sent}");
    }

    let client = shop.client();
    let (first, second) = (client.order(&[(1, 1)]).await, client.order(&[(1, 1)]).await);
    let pay = request("POST", &format!("/orders/{first}/pay"), "Prefer: wait=20\r\n", "");
    let paid = half_closed(&address, &pay).await;
    assert_eq!((paid[0].status, &paid[0].json()["status"]), (200, &json!("PAID")));

    let follow = request("GET", &format!("/orders/{second}/events"), "", "");
    let following = tokio::spawn(async move { half_closed(&address, &follow).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.pay(&second).await;
    let events = following.await.expect("followed");
    let settled = events[0].body.matches("\"PAID\"").count();
    assert!(settled > 0, "the stream ended before the order was settled: {events:?}");

    // A body that never comes is no request.
    let address = shop.wait_for("serving");
    let cut = half_closed(&address, &create[..create.len() - 1]).await;
    assert!(cut.iter().all(|answer| answer.status == 400), "{cut:?}");
}

/// Closing one side and closing both look the same until something is sent.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_the_client_is_gone_and_not_when_it_has_closed_its_sending_side() {
    let (_backend, shop, address) = shop_with_stock(&[("SHOP_MAX_WAITING", "4")]).await;
    let client = shop.client();
    let order = client.order(&[(1, 1)]).await;
    let wait = |seconds: u64| {
        request(
            "GET",
            &format!("/orders/{order}"),
            &format!("Prefer: wait={seconds}\r\n"),
            "",
        )
    };

    // Four clients wait. Two are gone after a moment, one of them follows events, which would go on for minutes.
    let (staying, half) = (wait(30), wait(10));
    let stays = tokio::spawn({
        let address = address.clone();
        async move {
            closing(
                &address,
                staying
                    .replace("Content-Length", "Connection: close\r\nContent-Length")
                    .as_bytes(),
            )
            .await
        }
    });
    let half = tokio::spawn({
        let address = address.clone();
        async move { half_closed(&address, &half).await }
    });
    let follow = request("GET", &format!("/orders/{order}/events"), "", "");
    for sent in [wait(30), follow] {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let waits = || async {
        let wait = client.request(reqwest::Method::GET, &format!("/orders/{order}"));
        let answer = crate::support::Answer::of(wait.header("Prefer", "wait=1")).await;
        answer.header("preference-applied").map(|_| ())
    };
    assert_eq!(waits().await, None, "all places are taken");
    eventually("the place of a client that is gone is free", waits).await;
    assert!(!stays.is_finished(), "it was freed by nothing but the end of a wait");

    // Who closed its sending side has waited to the end, perhaps with a word in between.
    let half = half.await.expect("answered");
    let last = half.last().expect("an answer");
    assert_eq!(
        (last.status, last.header("preference-applied")),
        (200, Some("wait=10")),
        "{half:?}"
    );
    assert!(
        half.iter().rev().skip(1).all(|interim| interim.status == 100),
        "{half:?}"
    );
    assert_eq!(stays.await.expect("answered")[0].status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_next_request_behind_a_whole_one_times_out_and_an_idle_connection_does_not() {
    let (_backend, _shop, address) = shop_with_stock(&[]).await;
    let one = request("POST", "/orders", "", "{}");
    let get = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut idle = TcpStream::connect(&address).await.expect("connects");
    idle.write_all(one.as_bytes()).await.expect("sent");

    let parts = [
        format!("{one}G"),
        format!("{get}GET /products HTTP/1.1\r\nHost: x\r\n"),
        format!("{get}{one}GET /products HTTP/1.1\r\nHost: x"),
    ];
    let answered = parts.map(|sent| {
        let address = address.clone();
        tokio::spawn(async move { closing(&address, sent.as_bytes()).await.len() })
    });
    let mut counts = Vec::new();
    for answered in answered {
        counts.push(answered.await.expect("closed by the server"));
    }
    assert_eq!(counts, [1, 1, 2]);

    idle.write_all(get.as_bytes()).await.expect("it is still open");
    let mut received = vec![0; 4096];
    let mut text = String::new();
    while !text.contains("ready") {
        let length = timeout(MAX_WAIT, idle.read(&mut received))
            .await
            .expect("answered")
            .expect("open");
        assert_ne!(length, 0, "closed: {text}");
        text.push_str(&String::from_utf8_lossy(&received[..length]));
    }
}

const POST: &str = "POST /orders HTTP/1.1\r\nContent-Type: application/json\r\nConnection: close\r\n";
const GET: &str = "GET /products HTTP/1.1\r\nConnection: close\r\n";
const OLD: &str = "GET /products HTTP/1.0\r\n";
const CHUNKS: &str = "\r\n2\r\n{}\r\n0\r\n\r\n";
const BODY: &str = "\r\n{}";

/// The beginning and the headers of a request, the rest of it, and the status and a part of the answer.
const HEADS: [(&str, &str, &str, u16, &str); 32] = [
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
        if status == 415 {
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
