//! Refunds: never more money than was paid and never more units than were ordered, however many are asked for at once; each
//! done once; what comes back on the shelf is accounted for; and the order itself does not change.

mod random;

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use shop::{app::App, domain::catalog};
use uuid::Uuid;

use crate::{
    auth::{JWT, admin, user},
    proxy::Proxy,
    support::{Answer, Backend, Client, EventListener, Shop, accepted, ledger_report, publish, run_to_end},
};

async fn stock_of(app: &App, product: i64) -> i64 {
    catalog::find(app.db.read(), product).await.expect("it exists").stock
}

async fn paid_order(client: &Client, lines: &[(i64, i64)]) -> String {
    let id = client.order(lines).await;
    client.pay(&id).await;
    assert_eq!(client.settled(&id).await["status"], "PAID");
    id
}

async fn refund(client: &Client, order: &str, key: &str, body: &Value) -> Answer {
    client
        .post_with_key(&format!("/orders/{order}/refunds"), key, body)
        .await
}

async fn refunds_of(client: &Client, order: &str) -> Vec<Value> {
    let page = client.get(&format!("/orders/{order}/refunds?limit=200")).await;
    assert_eq!(page.status, 200, "{page:?}");
    page.body["items"].as_array().expect("a list").clone()
}

fn amount(amount: i64) -> Value {
    json!({ "amount": amount, "reason": "goodwill" })
}

fn item(product: i64, quantity: i64, restock: bool) -> Value {
    json!({ "product_id": product, "quantity": quantity, "restock": restock })
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_64_refunds_of_60_percent_one_is_made(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 50)]).await;
    let shops = [Shop::serve(&backend), Shop::serve(&backend)];
    let _workers = Shop::workers(&backend, 1);
    let clients = shops.each_ref().map(Shop::client);
    let id = paid_order(&clients[0], &[(1, 10)]).await;

    // Half of them ask for money, half for units.
    let asking = (0..64).map(|number: usize| {
        let (client, id) = (&clients[number % 2], &id);
        let body = match number % 4 {
            0 | 1 => amount(600),
            _ => json!({ "items": [item(1, 6, true)], "reason": "returned" }),
        };
        async move { refund(client, id, &format!("key-{number}"), &body).await }
    });
    let answers = join_all(asking).await;

    let made: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0].body["amount"], 600);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        refused.problem(409, "refund-exceeds-payment");
        assert_eq!(refused.body["refundable"], 400, "{refused:?}");
    }

    assert_eq!(refunds_of(&clients[1], &id).await, [made[0].body.clone()]);
    let returned = made[0].body["items"].as_array().map_or(0, Vec::len);
    assert_eq!(stock_of(&app, 1).await, if returned == 0 { 40 } else { 46 });
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_leaves_the_order_as_it_is_and_puts_units_back_on_the_shelf(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (250, 10), (40, 10)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let id = paid_order(&client, &[(1, 3), (2, 2)]).await;
    let before = client.get(&format!("/orders/{id}")).await;

    let items = json!([item(2, 1, false), item(1, 2, true)]);
    let made = refund(&client, &id, "first", &json!({ "items": items, "reason": "returned" })).await;
    assert_eq!((made.status, &made.body["amount"]), (201, &json!(450)));
    assert_eq!(made.body["items"], json!([item(1, 2, true), item(2, 1, false)]));
    assert_eq!(
        (&made.body["order_id"], &made.body["currency"]),
        (&json!(id), &json!("USD"))
    );
    let free = refund(
        &client,
        &id,
        "second",
        &json!({ "amount": 0, "items": [item(1, 1, true)], "reason": "gift" }),
    )
    .await;
    assert_eq!((free.status, &free.body["amount"]), (201, &json!(0)));

    let all = json!([item(1, 1, true), item(2, 2, true), item(3, 1, true)]);
    let refused = refund(
        &client,
        &id,
        "third",
        &json!({ "items": all, "amount": 351, "reason": "all" }),
    )
    .await;
    let pointers = refused.problem(409, "refund-exceeds-payment");
    assert_eq!(
        pointers,
        ["/amount", "/items/0/quantity", "/items/1/quantity", "/items/2/quantity"]
    );
    assert_eq!(refused.body["refundable"], 350);
    let rest = refund(&client, &id, "third", &amount(350)).await;
    assert_eq!(rest.status, 201, "what was refused used up no key: {rest:?}");

    let after = client.get(&format!("/orders/{id}")).await;
    assert_eq!(
        (&after.body, after.header("etag")),
        (&before.body, before.header("etag"))
    );
    let newest_first = [rest.body, free.body, made.body.clone()];
    assert_eq!(refunds_of(&client, &id).await, newest_first);
    let last_page = second_page(&client, &format!("/orders/{id}/refunds?limit=2")).await;
    assert_eq!(last_page, json!({ "items": [made.body], "next_cursor": null }));

    assert_eq!([stock_of(&app, 1).await, stock_of(&app, 2).await], [10, 8]);
    let movements = client.get("/products/1/movements").await.body["items"].clone();
    assert_eq!(
        (
            &movements[1]["delta"],
            &movements[1]["reason"],
            &movements[1]["refund_id"]
        ),
        (&json!(2), &json!("returned"), &made.body["refund_id"])
    );
    assert_eq!(movements[1]["idempotency_key"], "first");
    assert!(ledger_report(&app).await.is_clean());
}

async fn second_page(client: &Client, path: &str) -> Value {
    let first = client.get(path).await.body;
    let cursor = first["next_cursor"].as_str().expect("more follow");
    client.get(&format!("{path}&cursor={cursor}")).await.body
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_a_paid_order_is_refunded_and_only_with_a_key(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let (pending, failed) = (client.order(&[(1, 1)]).await, client.order(&[(1, 11)]).await);
    client.pay(&failed).await;
    assert_eq!(client.settled(&failed).await["status"], "FAILED");
    let paid = paid_order(&client, &[(1, 1)]).await;

    for id in [&pending, &failed] {
        refund(&client, id, "key", &amount(1))
            .await
            .problem(409, "order-not-paid");
    }
    let unknown = Uuid::now_v7().to_string();
    refund(&client, &unknown, "key", &amount(1))
        .await
        .problem(404, "not-found");
    client
        .get(&format!("/orders/{unknown}/refunds"))
        .await
        .problem(404, "not-found");

    let without_key = client.post(&format!("/orders/{paid}/refunds"), &amount(1)).await;
    assert_eq!(without_key.problem(400, "invalid-request"), ["/header/Idempotency-Key"]);
    for (body, expected) in [
        (json!({ "reason": "why" }), &[""][..]),
        (json!({ "amount": 0, "reason": "why" }), &[""]),
        (json!({ "amount": -1, "reason": "" }), &["", "/amount", "/reason"]),
        (json!({ "items": [], "reason": "why" }), &["/items"]),
        (
            json!({ "items": [item(1, 0, true), item(1, -1, true)] }),
            &[
                "/items/0/quantity",
                "/items/1/product_id",
                "/items/1/quantity",
                "/reason",
            ],
        ),
        (
            json!({ "items": [{ "product_id": 1, "quantity": 1 }], "reason": "why", "note": 1 }),
            &["/items/0/restock", "/note"],
        ),
    ] {
        let answer = refund(&client, &paid, "key", &body).await;
        let mut pointers = answer.problem(400, "invalid-request");
        pointers.sort();
        pointers.dedup();
        assert_eq!(pointers, expected, "{answer:?}");
    }

    let first = refund(&client, &paid, "key", &amount(40)).await;
    let again = refund(&client, &paid, "key", &amount(40)).await;
    assert_eq!((first.status, again.status, &again.body), (201, 201, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    refund(&client, &paid, "key", &amount(41))
        .await
        .problem(422, "idempotency-key-reused");
    refund(&client, &pending, "key", &amount(40))
        .await
        .problem(422, "idempotency-key-reused");
    assert_eq!(refunds_of(&client, &paid).await.len(), 1);
    assert!(ledger_report(&app).await.is_clean());
}

#[tokio::test]
async fn administrators_refund_and_owners_see_it() {
    let backend = Backend::embedded();
    let app = backend.stock(&[(100, 10)]).await;
    let shop = Shop::start(&backend, &["serve"], &JWT);
    let client = shop.client();
    let id = accepted(&app, 1, |_| vec![(1, 2)]).await[0].to_string();
    publish(&app, &[id.parse().expect("an id")]).await;
    let path = format!("/orders/{id}/refunds");
    let send = |method: Method, token: String| {
        let request = client.request(method, &path).bearer_auth(token);
        Answer::of(request.header("Idempotency-Key", "key").json(&amount(50)))
    };
    crate::support::eventually("the order is settled by the sweeper", || async {
        let request = client
            .request(Method::GET, &format!("/orders/{id}"))
            .bearer_auth(admin());
        (Answer::of(request).await.body["status"] == "PAID").then_some(())
    })
    .await;

    send(Method::POST, user(7)).await.problem(403, "forbidden");
    let made = send(Method::POST, admin()).await;
    assert_eq!(made.status, 201, "{made:?}");
    for token in [user(7), admin()] {
        assert_eq!(send(Method::GET, token).await.body["items"], json!([made.body]));
    }
    send(Method::GET, user(8)).await.problem(404, "not-found");
    client.get(&path).await.problem(401, "unauthorized");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_whose_commit_was_not_answered_is_made_and_told_of_once() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    let mut events = EventListener::on(&backend).await;
    let _worker = Shop::work(&backend);
    let proxy = Proxy::before(&backend.database_url).await;
    backend.database_url = proxy.url(&backend.database_url);
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let id = paid_order(&client, &[(1, 4)]).await;
    let body = json!({ "items": [item(1, 3, true)], "reason": "returned" });

    proxy.lose_next_commit();
    let first = refund(&client, &id, "key", &body).await;
    assert!(proxy.has_lost_commit());
    assert_eq!(
        (first.status, first.header("idempotent-replayed")),
        (201, None),
        "{first:?}"
    );
    let again = refund(&client, &id, "key", &body).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));

    assert_eq!(refunds_of(&client, &id).await, std::slice::from_ref(&first.body));
    assert_eq!(stock_of(&app, 1).await, 9);
    assert!(ledger_report(&app).await.is_clean());
    let mut refunded = events.next().await;
    while refunded["type"] != "order.refunded" {
        refunded = events.next().await;
    }
    assert_eq!(
        (&refunded["id"], &refunded["subject"]),
        (&first.body["refund_id"], &json!(id))
    );
    let data = &refunded["data"];
    for field in ["refund_id", "order_id", "amount", "currency", "items", "reason"] {
        assert_eq!(data[field], first.body[field], "{field}");
    }
    assert_eq!(data["user_id"], 7);
    assert!(!events.all().await.iter().any(|event| event["type"] == "order.refunded"));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_was_tampered_with_is_found(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let id = paid_order(&client, &[(1, 4)]).await;
    let body = json!({ "items": [item(1, 3, true)], "reason": "returned" });
    assert_eq!(refund(&client, &id, "key", &body).await.status, 201);
    let verify = || run_to_end(&backend, &["verify", "--json"], &[]);
    assert!(verify().status.success());

    for (tamper, restore, problem) in [
        (
            "UPDATE refunds SET amount = 401",
            "UPDATE refunds SET amount = 300",
            "more than was paid",
        ),
        (
            "UPDATE refund_items SET quantity = 5",
            "UPDATE refund_items SET quantity = 3",
            "more units",
        ),
        (
            "UPDATE refund_items SET quantity = 2",
            "UPDATE refund_items SET quantity = 3",
            "other units on the shelf",
        ),
        (
            "UPDATE stock_movements SET delta = 4 WHERE reason = 'returned'",
            "UPDATE stock_movements SET delta = 3 WHERE reason = 'returned'",
            "other units on the shelf",
        ),
    ] {
        app.db.write().execute_unprepared(tamper).await.expect("tampers");
        let verified = verify();
        let printed = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.status.code(), Some(1), "{tamper}: {printed}");
        let report: Value = serde_json::from_str(&printed).expect("JSON");
        let found = &report["order_discrepancies"][0];
        assert_eq!(found["order_id"], id, "{tamper}: {printed}");
        assert!(
            found["problem"].as_str().is_some_and(|text| text.contains(problem)),
            "{tamper}: {printed}"
        );
        app.db.write().execute_unprepared(restore).await.expect("restores");
    }
    assert!(verify().status.success());
}
