//! Hostile clients: bytes that trickle in, too many bytes, unusual bytes. They get a proper answer or a closed connection,
//! memory stays bounded, and other clients are served meanwhile.

use std::{fmt::Write as _, time::Duration};

use rstest::rstest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::support::{Backend, MAX_WAIT, Shop};

fn address(shop: &Shop) -> String {
    shop.wait_for("serving")
}

/// Sends `bytes`, and reads whatever comes until the other side closes.
async fn exchange(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    // The server may close the connection before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(MAX_WAIT, stream.read_to_end(&mut answer))
        .await
        .expect("answered or closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Resident memory of a process, in MiB.
fn resident(shop: &Shop) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", shop.pid())).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_bodies_that_trickle_in_time_out() {
    let shop = Shop::serve(&Backend::embedded());
    let address = address(&shop);
    let trickle = |head: &'static str, drop: &'static [u8]| {
        let address = address.clone();
        async move {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            stream.write_all(head.as_bytes()).await.expect("sent");
            let (mut reading, mut writing) = stream.into_split();
            let started = Instant::now();
            let sending = tokio::spawn(async move {
                while writing.write_all(drop).await.is_ok() {
                    sleep(Duration::from_millis(200)).await;
                }
            });
            let mut answer = Vec::new();
            let _ = timeout(MAX_WAIT, reading.read_to_end(&mut answer))
                .await
                .expect("closed by the server");

            sending.abort();
            (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
        }
    };

    let body = "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
    let (header, stalled, body) = tokio::join!(
        trickle("GET /products HTTP/1.1\r\nX-Slow: ", b"a"),
        trickle("GET /products HTTP/1.1\r\nX-Slow: ", b""),
        trickle(body, b" ")
    );

    eprintln!(
        "timed out: headers after {:?}, half of the headers after {:?}, a body after {:?}",
        header.1, stalled.1, body.1
    );

    for headers in [header, stalled] {
        assert!(!headers.0.contains("200 OK"), "{}", headers.0);
    }
    assert!(
        body.0.starts_with("HTTP/1.1 408") && body.0.contains("request-timeout"),
        "{}",
        body.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_leave_room_for_others() {
    const IDLE: usize = 10_000;

    // The test process holds the other end of each connection.
    let allowed = rlimit::increase_nofile_limit(u64::MAX).expect("answered");
    let idle = IDLE.min(usize::try_from(allowed).expect("fits").saturating_sub(500));
    let shop = Shop::serve(&Backend::embedded());
    let (address, client, before) = (address(&shop), shop.client(), resident(&shop));

    let mut connections = Vec::with_capacity(idle);
    for number in 0..idle {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        if number % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
        }
        connections.push(stream);
        if number % 1_000 == 0 {
            assert_eq!(client.get("/products").await.status, 200);
        }
    }

    assert_eq!(client.get("/products").await.status, 200);
    let grown = resident(&shop).saturating_sub(before);
    eprintln!("{idle} idle connections: {grown} MiB more");
    assert!(grown < 256, "{grown} MiB");
    drop(connections);
}

#[tokio::test]
async fn a_body_of_a_gigabyte_and_headers_of_a_megabyte_are_rejected() {
    let shop = Shop::serve(&Backend::embedded());
    let (address, before) = (address(&shop), resident(&shop));
    let head = |length: &str| {
        format!("POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n\r\n")
    };
    let declared = exchange(&address, head("Content-Length: 1073741824").as_bytes()).await;
    assert!(declared.starts_with("HTTP/1.1 413"), "{declared}");

    // Without a declared length, sent until the server closes the connection.
    let mut stream = TcpStream::connect(&address).await.expect("connects");
    stream
        .write_all(head("Transfer-Encoding: chunked").as_bytes())
        .await
        .expect("sent");

    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let mut sent = 0_usize;
    while sent < 1 << 30 && stream.write_all(chunk.as_bytes()).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "it took {sent} bytes");

    let mut headers = String::from("GET /products HTTP/1.1\r\nHost: x\r\n");
    for number in 0..1_000 {
        let _ = write!(headers, "X-Header-{number}: {}\r\n", "a".repeat(1_000));
    }
    let answer = exchange(&address, headers.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");

    assert!(resident(&shop) < before + 64, "memory stays bounded");
    assert_eq!(shop.client().get("/products").await.status, 200);
}

#[rstest]
#[case::deep(format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000)))]
#[case::deep_in_place(format!("{{\"user_id\":1,\"items\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000)))]
#[case::huge_number(format!("{{\"user_id\":{},\"items\":[{{\"product_id\":1,\"quantity\":1}}]}}", "9".repeat(5_000)))]
#[case::huge_exponent("{\"user_id\":1e999999,\"items\":[{\"product_id\":1,\"quantity\":1}]}".to_owned())]
#[case::nul("{\"user_id\":1,\"items\":[{\"product_id\":1,\"quantity\":1}]}\u{0}".to_owned())]
#[case::surrogate("{\"user_id\":1,\"items\":[],\"x\":\"\\ud800\"}".to_owned())]
#[case::twice("{\"user_id\":1,\"user_id\":-1,\"items\":[{\"product_id\":1,\"quantity\":1}]}".to_owned())]
#[case::byte_order_mark("\u{feff}{}".to_owned())]
#[tokio::test]
async fn unusual_json_is_rejected_with_a_problem_document(#[case] body: String) {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let request = client
        .request(reqwest::Method::POST, "/orders")
        .header("content-type", "application/json");
    crate::support::Answer::of(request.body(body))
        .await
        .problem(400, "invalid-request");
    assert_eq!(client.get("/orders").await.body["items"], json!([]));
}

#[rstest]
#[tokio::test]
async fn unusual_names_are_stored_unchanged_or_rejected(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.app().await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    for name in [
        "\u{202e}gnirts",
        "🏴‍☠️",
        "e\u{301}",
        "'; DROP TABLE products; --",
        "%_\\",
        "<script>",
        "\u{fffd}",
    ] {
        let made = client
            .post("/products", &json!({ "name": name, "price": 1, "stock": 1 }))
            .await;
        assert_eq!((made.status, &made.body["name"]), (201, &json!(name)));
        let path = made.header("location").expect("where it is");
        assert_eq!(client.get(path).await.body["name"], name);
    }

    for name in ["\u{0}", "a\u{0}", "\n", "\u{7f}", "\u{85}", "   "] {
        let refused = client
            .post("/products", &json!({ "name": name, "price": 1, "stock": 1 }))
            .await;
        assert_eq!(refused.problem(400, "invalid-request"), ["/name"], "{name:?}");
    }

    let found = client.get("/products?q=%25_%5C").await;
    assert_eq!(found.body["items"].as_array().map(Vec::len), Some(1), "{found:?}");
    for query in [
        "q=%00",
        "q=%ff%fe",
        "cursor=%00",
        "limit=1e1",
        "limit=%2b5",
        "limit=99999999999999999999",
    ] {
        let answer = client.get(&format!("/products?{query}")).await;
        assert!(matches!(answer.status, 200 | 400), "{query}: {answer:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_http_get_an_error_or_a_closed_connection() {
    let shop = Shop::serve(&Backend::embedded());
    let address = address(&shop);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /products HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"\r\n\r\n\r\nHELO\r\n\r\n",
    ] {
        let answer = exchange(&address, bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer}");
    }
    let healthy: Value = shop.client().get("/healthz").await.body;
    assert_eq!(healthy["ready"], true);
}
