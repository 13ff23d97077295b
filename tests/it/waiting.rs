//! Waiting for an order instead of polling: `Prefer: wait` and server-sent events.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, future::join_all};
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shop::{domain::event, entities::Timestamp};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    servers::{Postgres, RabbitMq},
    support::{Answer, Backend, Client, Shop, eventually, ledger_report},
};

async fn wait(client: &Client, method: Method, path: &str, seconds: u64) -> Answer {
    let request = client.request(method, path).header("Prefer", format!("wait={seconds}"));
    Answer::of(request).await
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_is_answered_on_any_replica_when_the_order_is_settled(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 1_000)]).await;
    let count = if backend.is_embedded() { 1 } else { 2 };
    let shops: Vec<Shop> = (0..count).map(|_| Shop::serve(&backend)).collect();
    let _workers = Shop::workers(&backend, 1);
    let clients: Vec<Client> = shops.iter().map(Shop::client).collect();
    let client = clients[0].clone();
    let orders = join_all((0..100).map(|_| client.order(&[(1, 1)]))).await;

    let waiting: Vec<_> = orders
        .iter()
        .enumerate()
        .map(|(number, id)| {
            let (client, path) = (clients[number % count].clone(), format!("/orders/{id}"));
            tokio::spawn(async move {
                let answer = wait(&client, Method::GET, &path, 20).await;
                (answer, OffsetDateTime::now_utc())
            })
        })
        .collect();
    // All requests wait before the first order is paid.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let paid = join_all(orders.iter().map(|id| client.pay(id))).await;
    assert!(paid.iter().all(|answer| answer.status == 202));

    let mut longest = Duration::ZERO;
    for waiting in waiting {
        let (answer, when) = waiting.await.expect("answered");
        assert_eq!((answer.status, &answer.body["status"]), (200, &"PAID".into()));
        assert_eq!(answer.header("preference-applied"), Some("wait=20"));
        let settled_at = answer.body["settled_at"].as_str().expect("it is settled");
        let settled_at = OffsetDateTime::parse(settled_at, &Rfc3339).expect("RFC 3339");
        longest = longest.max((when - settled_at).unsigned_abs());
    }
    eprintln!("100 waiting clients were answered {longest:?} after their order was settled, at most");
    let report = ledger_report(&app).await;
    assert!(report.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn paying_and_waiting_answers_with_the_outcome(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 3)]).await;
    let shop = Shop::serve(&backend);
    let workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let pay = |id: String| {
        let client = client.clone();
        async move { wait(&client, Method::POST, &format!("/orders/{id}/pay"), 20).await }
    };

    let paid = pay(client.order(&[(1, 2)]).await).await;
    assert_eq!((paid.status, &paid.body["status"]), (200, &"PAID".into()));
    assert_eq!(paid.header("preference-applied"), Some("wait=20"));

    let short = client.order(&[(1, 2)]).await;
    let failed = pay(short.clone()).await;
    failed.problem(409, "order-failed");
    let lines = json!([{ "product_id": 1, "requested": 2, "available": 1 }]);
    let failure = json!({ "reason": "insufficient_stock", "lines": lines });
    assert_eq!(failed.body["failure"], failure, "{failed:?}");

    // Whoever pays it later learns the same, with and without waiting, by a good and by a bad card.
    let path = format!("/orders/{short}/pay");
    let declined = json!({ "payment_method": "pm_card_declined" });
    for again in [
        wait(&client, Method::POST, &path, 20).await,
        client.post(&path, &json!({})).await,
        client.post(&path, &declined).await,
    ] {
        again.problem(409, "order-failed");
        assert_eq!(again.body["failure"], failure, "{again:?}");
    }

    // Without a worker the order is answered as it is after the wait.
    if !backend.is_embedded() {
        drop(workers);
        let id = client.order(&[(1, 1)]).await;
        let waited = wait(&client, Method::POST, &format!("/orders/{id}/pay"), 1).await;
        assert_eq!((waited.status, &waited.body["status"]), (202, &"PENDING".into()));
        assert_eq!(waited.header("preference-applied"), Some("wait=1"));
    }

    // An order that is not paid, and one that does not exist.
    let unpaid = client.order(&[(1, 1)]).await;
    assert_eq!(
        wait(&client, Method::GET, &format!("/orders/{unpaid}"), 1).await.body["status"],
        "PENDING"
    );
    let unknown = "/orders/01900000-0000-7000-8000-000000000000";
    wait(&client, Method::GET, unknown, 20).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_works_without_events() {
    let rabbitmq = RabbitMq::start();
    let mut backend = Backend::servers();
    let other_broker = backend.queue_url.clone();
    backend.queue_url = rabbitmq.url();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    // A worker on another broker settles the orders whose settle requests its own sweeper publishes.
    rabbitmq.stop();
    backend.queue_url = other_broker;
    let _worker = Shop::work(&backend);
    let id = client.order(&[(1, 1)]).await;
    let answer = wait(&client, Method::POST, &format!("/orders/{id}/pay"), 30).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &"PAID".into()));
}

/// One event of a stream, as a browser hands it to a page.
#[derive(Debug)]
struct Sent {
    id: String,
    kind: String,
    data: Value,
}

async fn request_events(client: &Client, id: &str, last_event_id: Option<&str>) -> reqwest::Response {
    let mut request = client.request(Method::GET, &format!("/orders/{id}/events"));
    if let Some(last) = last_event_id {
        request = request.header("Last-Event-ID", last);
    }
    request.send().await.expect("answers")
}

/// The first event of a stream, and what follows.
async fn first_event(response: reqwest::Response) -> (Sent, impl Stream<Item = reqwest::Result<Bytes>>) {
    assert_eq!(response.status(), 200);
    let mut stream = Box::pin(response.bytes_stream());
    let mut text = String::new();
    while !text.ends_with("}\n\n") {
        let chunk = stream.next().await.expect("more").expect("whole");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }

    assert!(text.starts_with("retry: "), "{text}");
    (event(text.split("\n\n").nth(1).expect("an event")), stream)
}

/// All events until a stream ends.
async fn events(mut stream: impl Stream<Item = reqwest::Result<Bytes>> + Unpin) -> Vec<Sent> {
    let mut text = String::new();
    while let Some(chunk) = stream.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.expect("whole")));
    }

    let blocks = text.split("\n\n").filter(|block| block.contains("data: "));
    blocks.map(event).collect()
}

/// The events of an order's stream, until the stream ends.
async fn follow(client: &Client, id: &str, last_event_id: Option<&str>) -> Vec<Sent> {
    let response = request_events(client, id, last_event_id).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    events(response.bytes_stream()).await
}

fn event(block: &str) -> Sent {
    let field = |name: &str| {
        let value = block.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_else(|| panic!("no {name}in {block}")).to_owned()
    };
    Sent {
        id: field("id: "),
        kind: field("event: "),
        data: serde_json::from_str(&field("data: ")).expect("JSON"),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_order_can_be_followed_until_it_is_settled(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 3)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();

    for (quantity, outcome) in [(2, "PAID"), (2, "FAILED")] {
        let id = client.order(&[(1, quantity)]).await;
        let following = tokio::spawn({
            let (client, id) = (client.clone(), id.clone());
            async move { follow(&client, &id, None).await }
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        client.pay(&id).await;

        let events = following.await.expect("followed");
        let statuses: Vec<&str> = events
            .iter()
            .filter_map(|event| event.data["status"].as_str())
            .collect();
        assert_eq!(
            (statuses.first(), statuses.last()),
            (Some(&"PENDING"), Some(&outcome)),
            "{events:?}"
        );
        assert!(statuses[..statuses.len() - 1].iter().all(|status| *status == "PENDING"));
        assert!(events.iter().all(|event| event.kind == "order"), "{events:?}");
        let ids: HashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids.len(), events.len(), "every state has an id of its own: {events:?}");
        assert_eq!(
            events.last().expect("one").data,
            client.get(&format!("/orders/{id}")).await.body
        );
    }
}

/// A browser opens another stream whenever one has ended, and says which event it has; only 204 stops it (WHATWG HTML,
/// section 9.2.3).
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_reconnects_gets_what_it_lacks_and_stops_once_it_has_the_final_state(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 3)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;

    // The first event of a stream that is cut off then.
    let (pending, stream) = first_event(request_events(&client, &id, None).await).await;
    drop(stream);
    assert_eq!(pending.data["status"], "PENDING");

    let following = tokio::spawn({
        let (client, id, last) = (client.clone(), id.clone(), pending.id.clone());
        async move { follow(&client, &id, Some(&last)).await }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    client.pay(&id).await;
    let events = following.await.expect("followed");
    assert!(
        events.iter().all(|event| event.id != pending.id),
        "not again: {events:?}"
    );
    let last = events.last().expect("one");
    assert_eq!(last.data["status"], "PAID");

    // On any replica, and for as long as it asks.
    let others = Shop::serve(&backend);
    for client in [client, others.client()] {
        let nothing = request_events(&client, &id, Some(&last.id)).await;
        assert_eq!(nothing.status(), 204);
        assert_eq!(nothing.text().await.expect("whole"), "");

        for behind in [None, Some(pending.id.as_str()), Some("of another server"), Some("")] {
            let events = follow(&client, &id, behind).await;
            assert_eq!(events.len(), 1, "a settled order is one event: {behind:?} {events:?}");
            assert_eq!(events[0].id, last.id);
        }
    }
}

/// A browser that reconnects during the outage would be answered 503, and would give up for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_an_outage_of_the_database() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let app = backend.stock(&[(100, 3)]).await;
    let shop = Shop::start(&backend, &["serve"], &[("SHOP_LOG", "info,shop=debug")]);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    let (pending, stream) = first_event(request_events(&client, &id, None).await).await;
    assert_eq!(pending.data["status"], "PENDING");

    // An event asks for the row to be read, and there is no database to read it from.
    postgres.stop();
    let settled = event::Event {
        id: format!("{id}/settled"),
        kind: "order.paid".into(),
        subject: id.clone(),
        time: Timestamp::now(),
        data: json!({}),
    };
    app.queue.publish_events(&[settled]).await.expect("published");
    shop.wait_for("could not read an order that is followed; retrying");
    postgres.start_again();

    let _worker = Shop::work(&backend);
    eventually("the payment is accepted", || async {
        (client.pay(&id).await.status == 202).then_some(())
    })
    .await;
    let events = events(Box::pin(stream)).await;
    assert_eq!(events.last().expect("more").data["status"], "PAID", "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_true_ends_no_waiting() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 3)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    let path = format!("/orders/{id}");
    let (pending, stream) = first_event(request_events(&client, &id, None).await).await;
    assert_eq!(pending.data["status"], "PENDING");
    let waiting = tokio::spawn({
        let (client, path) = (client.clone(), path.clone());
        async move { wait(&client, Method::GET, &path, 30).await }
    });

    // Anybody who may publish there can say so. By the time that this one has waited, events are received.
    let early = wait(&client, Method::GET, &path, 1).await;
    assert_eq!(early.body["status"], "PENDING");
    for number in 0..3 {
        let untrue = event::Event {
            id: format!("{id}/untrue/{number}"),
            kind: "order.paid".into(),
            subject: id.clone(),
            time: Timestamp::now(),
            data: json!({}),
        };
        app.queue.publish_events(&[untrue]).await.expect("published");
    }
    let still = wait(&client, Method::GET, &path, 1).await;
    assert_eq!(still.body["status"], "PENDING");

    let _worker = Shop::work(&backend);
    assert_eq!(client.pay(&id).await.status, 202);
    let settled = waiting.await.expect("no panic");
    assert_eq!(settled.body["status"], "PAID", "{settled:?}");
    let events = events(Box::pin(stream)).await;
    assert_eq!(events.last().expect("more").data["status"], "PAID", "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_waiting_limit_are_answered_at_once_and_a_stopping_process_answers_all() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 3)]).await;
    let mut shop = Shop::start(&backend, &["serve"], &[("SHOP_MAX_WAITING", "2")]);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    let path = format!("/orders/{id}");

    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let (client, path) = (client.clone(), path.clone());
            tokio::spawn(async move { wait(&client, Method::GET, &path, 30).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;

    // Both permits are taken, so another request does not wait.
    eventually("both permits are taken", || async {
        let answer = wait(&client, Method::GET, &path, 1).await;
        assert_eq!(answer.status, 200);
        answer.header("preference-applied").is_none().then_some(())
    })
    .await;
    client.get(&format!("{path}/events")).await.problem(503, "overloaded");

    assert!(shop.terminate().success());
    for waiting in waiting {
        assert_eq!(waiting.await.expect("answered").body["status"], "PENDING");
    }
}
