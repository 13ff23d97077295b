//! Who closes which side of a connection, and where one request ends and the next begins.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{closing, half_closed, request, shop_with_stock};
use crate::support::{Answer, Client, MAX_WAIT, eventually};

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

/// Whether a request can wait for the order: whether there is a place.
async fn finds_a_place(client: &Client, order: &str) -> Option<()> {
    let wait = client.request(Method::GET, &format!("/orders/{order}"));
    let answer = Answer::of(wait.header("Prefer", "wait=1")).await;
    answer.header("preference-applied").map(|_| ())
}

/// Closing one side and closing both look the same until something is sent.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_the_client_is_gone_and_not_when_it_has_closed_its_sending_side() {
    let (_backend, shop, address) = shop_with_stock(&[("SHOP_MAX_WAITING", "3")]).await;
    let client = shop.client();
    let order = client.order(&[(1, 1)]).await;
    let wait = |seconds: u64, headers: &str| {
        let headers = format!("Prefer: wait={seconds}\r\n{headers}");
        request("GET", &format!("/orders/{order}"), &headers, "")
    };

    let (staying, half, gone) = (wait(30, "Connection: close\r\n"), wait(25, ""), wait(30, ""));
    let stays = tokio::spawn({
        let address = address.clone();
        async move { closing(&address, staying.as_bytes()).await }
    });
    let half = tokio::spawn({
        let address = address.clone();
        async move { half_closed(&address, &half).await }
    });
    let mut stream = TcpStream::connect(&address).await.expect("connects");
    stream.write_all(gone.as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(finds_a_place(&client, &order).await, None, "all places are taken");

    drop(stream);
    eventually("the place is free", || finds_a_place(&client, &order)).await;
    let is_freed_early = !stays.is_finished() && !half.is_finished();
    assert!(is_freed_early, "it was freed by nothing but the end of a wait");

    // Who closed its sending side has waited to the end, perhaps with a word in between.
    let half = half.await.expect("answered");
    let last = half.last().expect("an answer");
    let applied = last.header("preference-applied");
    assert_eq!((last.status, applied), (200, Some("wait=25")), "{half:?}");
    let mut interim = half.iter().rev().skip(1);
    assert!(interim.all(|interim| interim.status == 100), "{half:?}");
    assert_eq!(stays.await.expect("answered")[0].status, 200);
}

/// It would go on for five minutes.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_ends_when_the_client_is_gone() {
    let (_backend, shop, address) = shop_with_stock(&[("SHOP_MAX_WAITING", "1")]).await;
    let client = shop.client();
    let order = client.order(&[(1, 1)]).await;
    let follow = request("GET", &format!("/orders/{order}/events"), "", "");

    let mut stream = TcpStream::connect(&address).await.expect("connects");
    stream.write_all(follow.as_bytes()).await.expect("sent");
    let mut received = String::new();
    while !received.contains("\n\n") {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).await.expect("an event");
        received.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert_eq!(finds_a_place(&client, &order).await, None);

    drop(stream);
    eventually("the place is free", || finds_a_place(&client, &order)).await;
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
