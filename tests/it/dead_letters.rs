//! `shop dead-letters`: list, replay, purge.

use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Backend, Shop, accepted, all_settled, channel, eventually, ledger_report, run_to_end};

fn dead_letters(backend: &Backend, arguments: &[&str]) -> String {
    let output = run_to_end(backend, &[&["dead-letters"], arguments].concat(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The dead letters of `backend`, as `list --json` prints them.
fn listed(backend: &Backend) -> Vec<Value> {
    let json: Value = serde_json::from_str(&dead_letters(backend, &["list", "--json"])).expect("JSON");
    json.as_array().expect("a list").clone()
}

/// Puts messages straight into the dead letters, as the worker does.
async fn dead_letter(backend: &Backend, letters: &[(String, &str)]) {
    let (_connection, channel) = channel(&backend.queue_url).await;
    for (body, reason) in letters {
        let mut headers = FieldTable::default();
        headers.insert("x-shop-reason".into(), AMQPValue::LongString((*reason).into()));
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_timestamp(1_700_000_000);
        let dead = format!("{}.orders.dead", backend.prefix);
        let publish = channel.basic_publish(
            "".into(),
            dead.into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            properties,
        );
        // Until it is confirmed, it may be lost with the connection.
        publish.await.expect("published").await.expect("confirmed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_queue_is_a_success_and_listing_removes_nothing() {
    let backend = Backend::servers();
    for action in [&[][..], &["list"]] {
        assert_eq!(dead_letters(&backend, action), "there are no dead letters");
    }
    assert_eq!(dead_letters(&backend, &["replay"]), "sent 0 again");
    assert_eq!(dead_letters(&backend, &["purge"]), "dropped 0");

    let junk = [
        ("\u{1b}[2Jnot json".to_owned(), "not JSON"),
        ("[]".to_owned(), "no order id"),
    ];
    dead_letter(&backend, &junk).await;
    eventually("both have arrived", || async {
        (listed(&backend).len() == 2).then_some(())
    })
    .await;

    for _ in 0..3 {
        let listed = listed(&backend);
        assert_eq!((listed.len(), &listed[0]["reason"]), (2, &"not JSON".into()));
        assert_eq!(listed[1]["since"], "2023-11-14T22:13:20Z");
        assert!(listed[1]["age_seconds"].as_i64().expect("a number") > 0);
    }

    let table = dead_letters(&backend, &["list"]);
    assert!(table.contains("no order id") && !table.contains('\u{1b}'), "{table}");

    let refused = run_to_end(&backend, &["dead-letters", "purge"], &[]);
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("drops 2 dead letters") && stderr.contains("--yes"),
        "{stderr}"
    );
    assert_eq!(listed(&backend).len(), 2);

    assert_eq!(dead_letters(&backend, &["purge", "--yes"]), "dropped 2");
    assert!(listed(&backend).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn replaying_may_be_repeated_and_what_still_fails_is_dead_lettered_once() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    let orders = accepted(&app, 2, |_| vec![(1, 2)]).await;
    dead_letters(&backend, &["list"]);

    let unknown = format!("{{\"order_id\":\"{}\"}}", Uuid::now_v7());
    let mut letters = vec![(unknown.clone(), "no such order")];
    letters.extend(
        orders
            .iter()
            .map(|id| (format!("{{\"order_id\":\"{id}\"}}"), "by mistake")),
    );

    dead_letter(&backend, &letters).await;
    eventually("all have arrived", || async {
        (listed(&backend).len() == 3).then_some(())
    })
    .await;

    let _workers = Shop::workers(&backend, 1);
    for count in [3, 1, 1] {
        assert_eq!(dead_letters(&backend, &["replay"]), format!("sent {count} again"));
        all_settled(&app).await;
        eventually("only the unknown order is dead-lettered again", || async {
            let listed = listed(&backend);
            (listed.len() == 1 && listed[0]["body"] == *unknown && listed[0]["reason"] == "no such order").then_some(())
        })
        .await;
    }

    assert_eq!(ledger_report(&app).await.stock_discrepancies, []);
    let stock = shop::domain::catalog::find(app.db.read(), 1)
        .await
        .expect("it exists")
        .stock;
    assert_eq!(stock, 10 - 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_letter_is_replayed_by_its_id_and_keeps_id_and_age_when_it_comes_back() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    let order = accepted(&app, 1, |_| vec![(1, 2)]).await[0];
    dead_letters(&backend, &["list"]);
    let letters = [
        ("junk".to_owned(), "not JSON"),
        (format!("{{\"order_id\":\"{order}\"}}"), "by mistake"),
        ("[]".to_owned(), "no order id"),
    ];
    dead_letter(&backend, &letters).await;
    eventually("all have arrived", || async {
        (listed(&backend).len() == 3).then_some(())
    })
    .await;

    let before = listed(&backend);
    assert_eq!(before[1]["order_id"], order.to_string());
    assert!(dead_letters(&backend, &[]).contains(&order.to_string()));
    let ids: Vec<&str> = before.iter().filter_map(|letter| letter["id"].as_str()).collect();

    let _workers = Shop::workers(&backend, 1);
    assert_eq!(dead_letters(&backend, &["replay", ids[1]]), "sent 1 again");
    all_settled(&app).await;
    assert_eq!(dead_letters(&backend, &["replay", ids[0]]), "sent 1 again");
    eventually("the junk is dead-lettered again", || async {
        let listed = listed(&backend);
        let junk = listed.iter().find(|letter| letter["body"] == "junk")?;
        let is_the_same = junk["id"] == ids[0] && junk["since"] == before[0]["since"];
        (is_the_same && listed.len() == 2 && junk["reason"] != before[0]["reason"]).then_some(())
    })
    .await;

    let missing = run_to_end(&backend, &["dead-letters", "replay", "nobody"], &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nobody"));
}

/// Listing takes each message and requeues it behind the others; the printed order must not depend on earlier listings.
#[tokio::test(flavor = "multi_thread")]
async fn listing_a_few_does_not_change_their_order() {
    let backend = Backend::servers();
    dead_letters(&backend, &["list"]);

    let letters: Vec<(String, &str)> = (0..12).map(|number| (number.to_string(), "no order id")).collect();
    dead_letter(&backend, &letters).await;
    eventually("all have arrived", || async {
        (listed(&backend).len() == 12).then_some(())
    })
    .await;

    for _ in 0..3 {
        let few: Value =
            serde_json::from_str(&dead_letters(&backend, &["list", "--limit", "2", "--json"])).expect("JSON");
        assert_eq!((&few[0]["body"], &few[1]["body"]), (&"0".into(), &"1".into()));
        let bodies: Vec<Value> = listed(&backend).iter().map(|letter| letter["body"].clone()).collect();
        assert_eq!(
            bodies,
            (0..12)
                .map(|number| Value::from(number.to_string()))
                .collect::<Vec<_>>()
        );
    }

    let output = run_to_end(&backend, &["dead-letters", "list", "--limit", "2"], &[]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("2 of 12"),
        "{output:?}"
    );
}

#[test]
fn the_memory_queue_keeps_none_and_an_unreachable_broker_is_named() {
    let mut backend = Backend::embedded();
    assert_eq!(dead_letters(&backend, &["list"]), "there are no dead letters");

    backend.queue_url = "amqp://u:hunter2@127.0.0.1:1/%2f".to_owned();
    let output = run_to_end(&backend, &["dead-letters", "list"], &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("queue_url") && !stderr.contains("hunter2"), "{stderr}");
}

/// A broker never splits headers over frames: a client that negotiates smaller frames loses its connection each time.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_headers_do_not_stop_the_worker() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    dead_letters(&backend, &["list"]);
    let (_connection, channel) = channel(&backend.queue_url).await;

    let mut headers = FieldTable::default();
    headers.insert("x-large".into(), AMQPValue::LongString("x".repeat(120_000).into()));
    let publish = channel.basic_publish(
        format!("{}.orders", backend.prefix).into(),
        "settle".into(),
        BasicPublishOptions::default(),
        b"junk",
        BasicProperties::default()
            .with_headers(headers)
            .with_message_id("large".into()),
    );
    publish.await.expect("published");

    let shop = Shop::serve(&backend);
    let _worker = Shop::work(&backend);
    let client = shop.client();
    let id = client.order(&[(1, 1)]).await;
    assert_eq!(client.pay(&id).await.status, 202);
    all_settled(&app).await;

    let letter = eventually("it is dead-lettered", || async { listed(&backend).pop() }).await;
    assert!(
        letter["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("not JSON")),
        "{letter}"
    );
}

/// One of them may be such that the client library cannot read it.
#[tokio::test(flavor = "multi_thread")]
async fn purging_reads_no_dead_letter() {
    let backend = Backend::servers();
    assert_eq!(dead_letters(&backend, &["list"]), "there are no dead letters");
    dead_letter(&backend, &[("[]".to_owned(), "no order id")]).await;
    let refused = eventually("it has arrived", || async {
        let refused = run_to_end(&backend, &["dead-letters", "purge"], &[]);
        (refused.status.code() == Some(2)).then_some(refused)
    })
    .await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("drops 1 dead letters"));

    let (_connection, channel) = channel(&backend.queue_url).await;
    let queue = format!("{}.orders.dead", backend.prefix);
    let unread = channel.basic_get(queue.into(), BasicGetOptions::default()).await;
    let unread = unread.expect("the queue is there").expect("it is still there");
    assert!(!unread.delivery.redelivered, "it was taken and given back");
}
