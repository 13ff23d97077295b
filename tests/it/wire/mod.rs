//! HTTP/1.1 as bytes, as no client library sends them.

mod connections;
mod heads;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Backend, MAX_WAIT, Shop};

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
