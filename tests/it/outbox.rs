//! The outbox: an event is stored with its fact or not at all, and is published at least once, under one id.

use std::collections::BTreeMap;

use lapin::options::ExchangeDeleteOptions;
use rstest::rstest;
use serde_json::{Value, json};
use shop::{
    app::App,
    domain::{Error, event::Event, outbox},
    entities::Timestamp,
    tasks::relay::relay,
};
use uuid::Uuid;

use crate::{
    servers::RabbitMq,
    support::{Backend, EventListener, Shop, channel, eventually},
};

fn events(count: usize) -> Vec<Event> {
    let event = |number: usize| {
        let order = Uuid::now_v7();
        Event {
            id: format!("{order}/settled"),
            kind: "order.failed".into(),
            subject: order.to_string(),
            time: Timestamp(1_767_225_600_123_456),
            data: json!({ "order_id": order, "number": number, "text": "ä\u{0001}\"\\" }),
        }
    };
    (0..count).map(event).collect()
}

async fn store(app: &App, events: &[Event], commit: bool) -> Result<(), Error> {
    let stored = app.db.transaction(|txn| async move {
        outbox::store(&txn, Timestamp::now(), events).await?;
        if commit {
            Ok(())
        } else {
            Err(Error::Internal("rolled back".to_owned()))
        }
    });
    stored.await
}

async fn depth(app: &App) -> i64 {
    outbox::len(app.db.read()).await.expect("counted")
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_stored_with_its_fact_and_gone_once_it_is_published(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.app().await;
    let (kept, lost) = (events(3), events(1));
    let mut listener = app.queue.listen().await.expect("listens");

    store(&app, &lost, false).await.expect_err("rolled back");
    assert_eq!((depth(&app).await, relay(&app).await.expect("relayed")), (0, 0));

    store(&app, &kept, true).await.expect("stored");
    assert_eq!(relay(&app).await.expect("relayed"), 3);
    assert_eq!(depth(&app).await, 0);
    let mut received = Vec::new();
    while received.len() < 3 {
        received.extend(listener.next().await.expect("received"));
    }
    let subjects: Vec<String> = received.iter().map(Uuid::to_string).collect();
    assert_eq!(
        subjects,
        kept.iter().map(|event| event.subject.clone()).collect::<Vec<_>>()
    );
}

#[rstest]
#[tokio::test]
async fn what_one_process_has_claimed_another_leaves_alone_until_it_is_due_again(
    #[values("embedded", "servers")] backend: &str,
) {
    let app = Backend::named(backend).app().await;
    let stored = events(3);
    store(&app, &stored, true).await.expect("stored");
    let now = Timestamp::now();
    let claim = async |at: Timestamp, limit| outbox::claim(app.db.write(), at, limit).await.expect("claimed");

    let first = claim(now, 2).await;
    let second = claim(now, 2).await;
    let claimed: Vec<&Event> = first.iter().chain(&second).map(|stored| &stored.event).collect();
    assert_eq!(
        claimed,
        stored.iter().collect::<Vec<_>>(),
        "oldest first, unchanged, each once"
    );

    outbox::release(app.db.write(), now, vec![first[1].id])
        .await
        .expect("released");
    assert_eq!(claim(now, 2).await, first[1..]);
    let later = Timestamp(now.0 + 60_000_000);
    assert_eq!(claim(later, 5).await.len(), 3, "whoever claimed them has died");
}

/// The relay dies after the events are published and before they are deleted.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_published_twice_is_the_same_event() {
    let backend = Backend::servers();
    let app = backend.app().await;
    let stored = events(4);
    EventListener::declare(&backend).await;
    store(&app, &stored, true).await.expect("stored");

    let dies = Shop::start(&backend, &["work"], &[("FAILPOINT", "relayed:1")]);
    dies.wait_for_end();
    assert_eq!(depth(&app).await, 4);
    let _work = Shop::work(&backend);
    eventually("the outbox is empty", || async {
        (depth(&app).await == 0).then_some(())
    })
    .await;

    let mut published: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in EventListener::on(&backend).await.all().await {
        let id = event["id"].as_str().expect("an id").to_owned();
        published.entry(id).or_default().push(event);
    }
    assert_eq!(published.len(), 4);
    for (event, copies) in stored.iter().zip(published.values()) {
        assert_eq!((copies.len(), &copies[0]), (2, &copies[1]));
        assert_eq!(
            (copies[0]["id"].as_str(), &copies[0]["data"]),
            (Some(&*event.id), &event.data)
        );
    }
}

/// The broker is there, and does not take them: their exchange is gone.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_could_not_be_published_stay_due() {
    let backend = Backend::servers();
    let app = backend.app().await;
    app.queue.ping().await.expect("the broker is there");
    let (_connection, channel) = channel(&backend.queue_url).await;
    let exchange = format!("{}.events", backend.prefix);
    let deleted = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
    deleted.await.expect("deleted");

    store(&app, &events(3), true).await.expect("stored");
    relay(&app).await.expect_err("they were published to nowhere");
    assert_eq!(depth(&app).await, 3);
    let is_due = outbox::is_due(app.db.read(), Timestamp::now()).await;
    assert!(is_due.expect("answered"), "they are not put off");

    // The next connection declares the exchange.
    eventually("they are published", || async {
        matches!(relay(&app).await, Ok(3)).then_some(())
    })
    .await;
    assert_eq!(depth(&app).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_while_the_broker_is_away() {
    let rabbitmq = RabbitMq::start();
    let mut backend = Backend::servers();
    backend.queue_url = rabbitmq.url();
    let app = backend.app().await;
    EventListener::declare(&backend).await;
    rabbitmq.stop();

    store(&app, &events(700), true).await.expect("stored");
    relay(&app).await.expect_err("nobody takes them");
    let _works = [Shop::work(&backend), Shop::work(&backend)];
    assert_eq!(depth(&app).await, 700);

    rabbitmq.start_again();
    eventually("the outbox is empty", || async {
        (depth(&app).await == 0).then_some(())
    })
    .await;
    let published = EventListener::on(&backend).await.all().await;
    let ids: std::collections::BTreeSet<&str> = published.iter().filter_map(|event| event["id"].as_str()).collect();
    assert_eq!(ids.len(), 700);
}

/// A newer version, or a hand, has stored events that this version does not know, and some that no queue carries.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_is_published_and_one_that_cannot_be_holds_up_no_other(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.app().await;
    let mut listener = app.queue.listen().await.expect("listens");
    let mut stored = events(4);
    stored[0].kind = "x".repeat(256).into();
    stored[1].id = "x".repeat(256);
    stored[2].kind = "order.gift_wrapped".into();
    stored[2].data = json!([null]);
    store(&app, &stored, true).await.expect("stored");

    let _shop = if backend.is_embedded() {
        assert_eq!(relay(&app).await.expect("relayed"), 2);
        None
    } else {
        Some(Shop::work(&backend))
    };
    let mut received = Vec::new();
    while received.len() < 2 {
        received.extend(listener.next().await.expect("received"));
    }
    let subjects: Vec<String> = received.iter().map(Uuid::to_string).collect();
    let expected: Vec<String> = stored[2..].iter().map(|event| event.subject.clone()).collect();
    assert_eq!(subjects, expected);
    eventually("what was published is deleted", || async {
        (depth(&app).await == 2).then_some(())
    })
    .await;
}
