//! Load from a closed loop of keep-alive connections: each sends its next request when the one before is answered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use crate::report::Round;

pub type Outgoing = Request<Full<Bytes>>;

/// One keep-alive connection.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    pub async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server is up");
        stream.set_nodelay(true).expect("a TCP stream");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self { sender }
    }

    pub async fn send(&mut self, request: Outgoing) -> (u16, Bytes) {
        self.sender.ready().await.expect("the connection stays open");
        let response: Response<_> = self.sender.send_request(request).await.expect("an answer");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("all of it").to_bytes();
        (status, body)
    }
}

pub fn get(path: &str) -> Outgoing {
    let request = Request::get(path).header("host", "shop");
    request.body(Full::default()).expect("a request")
}

pub fn post(path: &str, body: String) -> Outgoing {
    let request = Request::post(path)
        .header("host", "shop")
        .header("content-type", "application/json");
    request.body(Full::new(body.into())).expect("a request")
}

/// Sends requests on `connections` connections for `time`, and expects `status` as the answer to each. `next` makes the
/// request from its number.
pub async fn load<F>(address: &str, connections: u64, time: Duration, status: u16, next: F) -> Round
where
    F: Fn(u64) -> Outgoing + Send + Sync + 'static,
{
    let next = Arc::new(next);
    let mut clients = JoinSet::new();
    let started = Instant::now();

    for client in 0..connections {
        let (address, next) = (address.to_owned(), Arc::clone(&next));
        clients.spawn(async move {
            let mut connection = Connection::open(&address).await;
            let mut latencies = Vec::new();
            let mut number = client;
            while started.elapsed() < time {
                let sent = Instant::now();
                let (answered, body) = connection.send(next(number)).await;
                assert_eq!(answered, status, "{}", String::from_utf8_lossy(&body));
                latencies.push(sent.elapsed());
                number += connections;
            }
            latencies
        });
    }

    Round::of(clients.join_all().await.concat(), started.elapsed())
}
