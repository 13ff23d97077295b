//! `shop dead-letters`: list, replay, purge.

use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Backend, Shop, accepted, all_settled, books, eventually, run_to_end};

fn dead_letters(backend: &Backend, arguments: &[&str]) -> String {
    let output = run_to_end(backend, &[&["dead-letters"], arguments].concat(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What lies among the dead letters of `backend`, as `list --json` tells it.
fn listed(backend: &Backend) -> Vec<Value> {
    let json: Value = serde_json::from_str(&dead_letters(backend, &["list", "--json"])).expect("JSON");
    json.as_array().expect("a list").clone()
}

/// Puts messages straight into the dead letters, as the worker does.
async fn dead_letter(backend: &Backend, letters: &[(String, &str)]) {
    let connection = Connection::connect(&backend.queue_url, ConnectionProperties::default());
    let connection = connection.await.expect("connects");
    let channel = connection.create_channel().await.expect("opens");
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
        publish.await.expect("published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_queue_is_a_quiet_success_and_looking_takes_nothing_away() {
    let backend = Backend::servers();
    for action in [&[][..], &["list"]] {
        assert_eq!(dead_letters(&backend, action), "");
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
    assert_eq!(dead_letters(&backend, &["purge"]), "dropped 2");
    assert!(listed(&backend).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn replaying_is_safe_to_repeat_and_what_is_still_dead_comes_back_once() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    let orders = accepted(&app, 2, |_| vec![(1, 2)]).await;
    dead_letters(&backend, &["list"]);
    let stranger = format!("{{\"order_id\":\"{}\"}}", Uuid::now_v7());
    let mut letters = vec![(stranger.clone(), "no such order")];
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
        eventually("only the stranger is back", || async {
            let listed = listed(&backend);
            (listed.len() == 1 && listed[0]["body"] == *stranger && listed[0]["reason"] == "no such order")
                .then_some(())
        })
        .await;
    }
    assert_eq!(books(&app).await.stock_discrepancies, []);
    let stock = shop::domain::catalog::find(app.db.read(), 1)
        .await
        .expect("it exists")
        .stock;
    assert_eq!(stock, 10 - 4);
}

/// Looking puts every letter back behind the others: their order must not tell how often somebody looked.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_few_does_not_change_the_order() {
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
fn the_queue_inside_the_process_keeps_none_and_an_absent_broker_is_named() {
    let mut backend = Backend::embedded();
    assert_eq!(dead_letters(&backend, &["list"]), "");
    backend.queue_url = "amqp://u:hunter2@127.0.0.1:1/%2f".to_owned();
    let output = run_to_end(&backend, &["dead-letters", "list"], &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("queue_url") && !stderr.contains("hunter2"), "{stderr}");
}

/// A broker never splits headers: whoever takes smaller frames than it sends loses the connection again and again.
#[tokio::test(flavor = "multi_thread")]
async fn headers_as_large_as_can_be_stop_nobody() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    dead_letters(&backend, &["list"]);
    let connection = Connection::connect(&backend.queue_url, ConnectionProperties::default());
    let connection = connection.await.expect("connects");
    let channel = connection.create_channel().await.expect("opens");
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
    let letter = eventually("it is laid aside", || async { listed(&backend).pop() }).await;
    assert!(
        letter["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("not JSON")),
        "{letter}"
    );
}
