//! What other systems call an order and its charge: a reference belongs to one order of a user, a charge pays one order, and
//! whoever conflicts with that is refused alone.

mod filters;

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shop::{
    app::App,
    domain::{
        Caller, Error,
        orders::{self, Labels, Line, NewOrder, Payment},
    },
    entities::Timestamp,
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::support::{Answer, Backend, Client, Shop, ledger_report};

fn order(user_id: i64, reference: &str) -> Value {
    json!({ "user_id": user_id, "items": [{ "product_id": 1, "quantity": 1 }], "reference": reference })
}

async fn pay(client: &Client, id: &str, charge: &str) -> Answer {
    let body = json!({ "payment_reference": charge });
    client.post(&format!("/orders/{id}/pay"), &body).await
}

fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["order_id"].as_str().expect("an id").to_owned()
}

async fn ids(client: &Client, query: &str) -> Vec<String> {
    let page = client.get(&format!("/orders?{query}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    let items = page.body["items"].as_array().expect("a list").iter();
    items
        .map(|order| order["order_id"].as_str().expect("an id").to_owned())
        .collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn reference_metadata_and_charge_are_given_back_everywhere(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let metadata = json!({ "note": "☕ \"quoted\"\n", "a": "", "": "x", "ä/~": "null" });
    let mut body = order(7, "basket-4711");
    body["metadata"] = metadata.clone();

    let made = client.post_with_key("/orders", "key", &body).await;
    let id = id_of(&made);
    let has_labels = |order: &Value| {
        assert_eq!(
            (&order["reference"], &order["metadata"]),
            (&json!("basket-4711"), &metadata),
            "{order}"
        );
    };
    has_labels(&made.body);
    let replayed = client.post_with_key("/orders", "key", &body).await;
    assert_eq!(
        (&replayed.body, replayed.header("idempotent-replayed")),
        (&made.body, Some("true"))
    );
    has_labels(&client.get(&format!("/orders/{id}")).await.body);
    has_labels(&client.get("/orders?reference=basket-4711").await.body["items"][0]);

    let paid = client
        .request(Method::POST, &format!("/orders/{id}/pay"))
        .header("Prefer", "wait=20");
    let paid = Answer::of(paid.json(&json!({ "payment_reference": "ch_1" }))).await;
    has_labels(&paid.body);
    assert_eq!(
        (&paid.body["status"], &paid.body["payment_reference"]),
        (&json!("PAID"), &json!("ch_1"))
    );
    let events = client.get(&format!("/orders/{id}/events")).await.body;
    let data = events
        .as_str()
        .and_then(|events| events.lines().find_map(|line| line.strip_prefix("data:")));
    let event: Value = serde_json::from_str(data.expect("an event")).expect("JSON");
    has_labels(&event);
    // Twice: the second time it comes from the cache.
    for _ in 0..2 {
        assert_eq!(client.get(&format!("/orders/{id}")).await.body, paid.body);
    }
    let replayed = client.post_with_key("/orders", "key", &body).await;
    assert_eq!(replayed.body, made.body, "the first answer names no charge");

    let plain = client.order(&[(1, 1)]).await;
    let plain = client.get(&format!("/orders/{plain}")).await.body;
    for field in ["reference", "metadata", "payment_reference"] {
        assert!(plain.get(field).is_none(), "{plain}");
    }
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_with_another_reference_metadata_or_hold_is_refused(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let mut body = order(7, "first");
    body["metadata"] = json!({ "colour": "red" });
    body["hold_seconds"] = json!(600);
    let made = client.post_with_key("/orders", "key", &body).await;
    id_of(&made);

    for (field, other) in [
        ("reference", json!("second")),
        ("reference", Value::Null),
        ("metadata", json!({ "colour": "blue" })),
        ("metadata", json!({ "colour": "red", "size": "L" })),
        ("metadata", json!({})),
        ("metadata", Value::Null),
        ("hold_seconds", json!(601)),
        ("hold_seconds", Value::Null),
    ] {
        let mut changed = body.clone();
        match other {
            Value::Null => changed.as_object_mut().expect("an object").remove(field),
            other => changed
                .as_object_mut()
                .expect("an object")
                .insert(field.to_owned(), other),
        };
        let answer = client.post_with_key("/orders", "key", &changed).await;
        answer.problem(422, "idempotency-key-reused");
    }
    assert_eq!(client.post_with_key("/orders", "key", &body).await.body, made.body);
    assert_eq!(ids(&client, "user_id=7").await.len(), 1);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_reference_belongs_to_one_order_of_a_user(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 100)]).await;
    let shops = [Shop::serve(&backend), Shop::serve(&backend)];
    let clients = shops.each_ref().map(Shop::client);

    let making = (0..40).map(|number: usize| {
        let (client, mut body) = (&clients[number % 2], order(7, "same"));
        // Some of them set units aside.
        if number.is_multiple_of(3) {
            body["hold_seconds"] = json!(600);
        }
        async move { client.post("/orders", &body).await }
    });
    let answers = join_all(making).await;

    let made: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(made.len(), 1);
    let id = id_of(made[0]);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        refused.problem(409, "reference-taken");
        assert_eq!(refused.body["order_id"], id, "{refused:?}");
    }
    let theirs = id_of(&clients[0].post("/orders", &order(8, "same")).await);
    assert_eq!(
        ids(&clients[0], "reference=same&user_id=7").await,
        std::slice::from_ref(&id)
    );
    assert_eq!(ids(&clients[0], "reference=same").await, [theirs, id]);
    assert_eq!(ids(&clients[0], "reference=SAME").await, [""; 0]);
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_charge_pays_one_order(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 100)]).await;
    let shops = [Shop::serve(&backend), Shop::serve(&backend)];
    let _workers = Shop::workers(&backend, 1);
    let clients = shops.each_ref().map(Shop::client);
    let orders = join_all((0..20).map(|_| clients[0].order(&[(1, 1)]))).await;

    // Each of two charges is to pay all orders at once; other orders are paid without any in the same batches.
    let others = join_all((0..20).map(|_| clients[1].order(&[(1, 1)]))).await;
    let paying = orders.iter().enumerate().map(|(number, id)| {
        let charge = if number % 2 == 0 { "ch_even" } else { "ch_odd" };
        pay(&clients[number / 2 % 2], id, charge)
    });
    let (paid, others_paid) = tokio::join!(join_all(paying), join_all(others.iter().map(|id| clients[0].pay(id))));

    assert!(
        others_paid.iter().all(|answer| matches!(answer.status, 200 | 202)),
        "{others_paid:?}"
    );
    let accepted: Vec<usize> = (0..20)
        .filter(|number| matches!(paid[*number].status, 200 | 202))
        .collect();
    assert_eq!(accepted.len(), 2, "{paid:?}");
    assert_ne!(accepted[0] % 2, accepted[1] % 2, "one order a charge");
    for (number, refused) in paid.iter().enumerate().filter(|(number, _)| !accepted.contains(number)) {
        refused.problem(409, "payment-reference-used");
        let order = clients[0].get(&format!("/orders/{}", orders[number])).await.body;
        assert_eq!(
            (&order["status"], &order["accepted_at"]),
            (&json!("PENDING"), &Value::Null),
            "still payable"
        );
    }

    // The same charge for the same order is harmless, and the first one stands.
    let (first, charge) = (
        &orders[accepted[0]],
        if accepted[0].is_multiple_of(2) {
            "ch_even"
        } else {
            "ch_odd"
        },
    );
    for charge in [charge, "ch_other", charge] {
        assert!(matches!(pay(&clients[1], first, charge).await.status, 200 | 202));
    }
    let settled = clients[0].settled(first).await;
    assert_eq!(
        (&settled["status"], &settled["payment_reference"]),
        (&json!("PAID"), &json!(charge))
    );
    let other = if charge == "ch_even" { "ch_odd" } else { "ch_even" };
    pay(&clients[1], first, other)
        .await
        .problem(409, "payment-reference-used");
    assert!(ledger_report(&app).await.is_clean());
}

/// What one transaction makes of a whole batch.
#[rstest]
#[tokio::test]
async fn a_conflict_is_refused_alone_in_its_batch(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 10)]).await;
    let first = create(&app, vec![new(Some("taken"), false)]).await;
    let first = first[0].as_ref().expect("made").order.row.id;

    // Ten units: five orders with a hold can be made, and those that are refused set nothing aside.
    let batch = vec![
        new(Some("taken"), true),
        new(None, true),
        new(Some("new"), true),
        new(Some("new"), true),
        new(Some("taken"), false),
        new(Some("third"), true),
        new(None, true),
        new(None, true),
        new(None, false),
    ];
    let made = create(&app, batch).await;
    let taken = |number: usize| matches!(&made[number], Err(Error::ReferenceTaken(id)) if *id == first);
    assert!(taken(0) && taken(4), "{made:?}");
    let is_made: Vec<usize> = (0..made.len()).filter(|number| made[*number].is_ok()).collect();
    assert_eq!(is_made, [1, 2, 5, 6, 7, 8], "{made:?}");

    let id = |number: usize| made[number].as_ref().expect("made").order.row.id;
    let payment = |number: usize, charge: Option<&str>| Payment {
        caller: Caller::Admin,
        order_id: id(number),
        reference: charge.map(str::to_owned),
    };
    let paid = accept(
        &app,
        vec![payment(1, Some("ch_1")), payment(5, Some("ch_1")), payment(6, None)],
    )
    .await;
    assert!(
        paid[0].is_ok() && matches!(paid[1], Err(Error::PaymentReferenceUsed(_))) && paid[2].is_ok(),
        "{paid:?}"
    );
    let paid = accept(
        &app,
        vec![
            payment(5, Some("ch_1")),
            payment(5, Some("ch_2")),
            payment(7, Some("ch_3")),
        ],
    )
    .await;
    let charge = |answer: &Result<orders::Order, Error>| {
        answer
            .as_ref()
            .ok()
            .and_then(|order| order.row.payment_reference.clone())
    };
    assert!(matches!(paid[0], Err(Error::PaymentReferenceUsed(_))), "{paid:?}");
    assert_eq!(
        (charge(&paid[1]).as_deref(), charge(&paid[2]).as_deref()),
        (Some("ch_2"), Some("ch_3"))
    );
    assert!(ledger_report(&app).await.is_clean());
}

/// Of two orders with one reference, the first in the batch is made, and it is its units that others find gone, whatever
/// its key and its id.
#[rstest]
#[tokio::test]
async fn the_first_of_a_batch_is_made(#[values("embedded", "servers")] backend: &str) {
    let app = Backend::named(backend).stock(&[(100, 10), (100, 10)]).await;
    let order = |product_id, key: &str, reference: Option<&str>, quantity| NewOrder {
        idempotency_key: Some(format!("{key} of {product_id}")),
        lines: vec![Line { product_id, quantity }],
        ..new(reference, true)
    };

    // By key, the second comes before the first. There are ten units: enough for the first and the last.
    for (product, of_second) in [(1, 1), (2, 20)] {
        let reference = format!("reference {product}");
        let batch = vec![
            order(product, "b", Some(&reference), 4),
            order(product, "a", Some(&reference), of_second),
            order(product, "c", None, 6),
        ];
        let made = create(&app, batch).await;
        assert!(
            made[0].is_ok() && matches!(made[1], Err(Error::ReferenceTaken(_))) && made[2].is_ok(),
            "{made:?}"
        );

        let one_more = create(&app, vec![order(product, "d", None, 1)]).await;
        assert!(matches!(one_more[0], Err(Error::InsufficientStock(_))), "{one_more:?}");
    }
    assert!(ledger_report(&app).await.is_clean());
}

/// An order of two units, with a reference and a hold if wanted.
fn new(reference: Option<&str>, hold: bool) -> NewOrder {
    NewOrder {
        id: Uuid::now_v7(),
        user_id: 7,
        lines: vec![Line {
            product_id: 1,
            quantity: 2,
        }],
        currency: "USD".to_owned(),
        idempotency_key: None,
        hold: hold.then_some(std::time::Duration::from_secs(60)),
        labels: Labels {
            reference: reference.map(str::to_owned),
            metadata: None,
        },
        created_at: Timestamp::now(),
    }
}

async fn create(app: &App, orders: Vec<NewOrder>) -> Vec<Result<orders::Created, Error>> {
    let orders = &orders;
    let made = app
        .db
        .transaction(|txn| async move { orders::create(&txn, orders).await });
    made.await.expect("the batch is written")
}

async fn accept(app: &App, payments: Vec<Payment>) -> Vec<Result<orders::Order, Error>> {
    let payments = &payments;
    let accepted = app
        .db
        .transaction(|txn| async move { orders::accept_payments(&txn, Timestamp::now(), payments).await });
    accepted.await.expect("the batch is written")
}
