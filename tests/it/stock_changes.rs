//! Changing stock safely: done once under a key, on a condition, many products at once or none, and always explained.

mod many;

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use shop::{app::App, domain::catalog};

use crate::{
    auth::{JWT, admin, user},
    proxy::Proxy,
    support::{Answer, Backend, Client, Shop, ledger_report},
};

async fn stock_of(app: &App, product: i64) -> i64 {
    catalog::find(app.db.read(), product).await.expect("it exists").stock
}

async fn movements(client: &Client, product: i64) -> Vec<Value> {
    let page = client.get(&format!("/products/{product}/movements")).await;
    assert_eq!(page.status, 200, "{page:?}");
    page.body["items"].as_array().expect("a list").clone()
}

/// Every way of changing something once: the path, a body, and another body.
fn keyed_requests() -> [(&'static str, Value, Value); 3] {
    let delivery = |delta: i64| json!({ "delta": delta, "reason": "delivery" });
    let line = |delta: i64| json!([{ "product_id": 1, "delta": delta, "reason": "delivery" }]);
    let product = |stock: i64| json!({ "name": "Mug", "price": 5, "stock": stock });
    [
        ("/products/1/stock", delivery(10), delivery(11)),
        ("/stock-changes", line(10), line(11)),
        ("/products", product(10), product(11)),
    ]
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_change_under_a_key_is_made_once_however_often_it_is_sent(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 0)]).await;
    let shops = [Shop::serve(&backend), Shop::serve(&backend)];
    let clients = shops.each_ref().map(Shop::client);

    for (path, body, other) in keyed_requests() {
        let send = |number: usize| clients[number % 2].post_with_key(path, path, &body);
        let answers = join_all((0..30).map(send)).await;

        let first = answers
            .iter()
            .filter(|answer| answer.header("idempotent-replayed").is_none());
        assert_eq!(first.count(), 1, "{path}");
        for answer in &answers {
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
            assert_eq!(answer.body, answers[0].body, "{path}");
            assert_eq!(answer.header("location"), answers[0].header("location"));
        }

        clients[0]
            .post_with_key(path, path, &other)
            .await
            .problem(422, "idempotency-key-reused");
        for (elsewhere, body, _) in keyed_requests()
            .into_iter()
            .filter(|(elsewhere, ..)| *elsewhere != path)
        {
            let answer = clients[1].post_with_key(elsewhere, path, &body).await;
            answer.problem(422, "idempotency-key-reused");
        }
        for key in ["two words", ""] {
            let pointers = clients[0].post_with_key(path, key, &body).await;
            assert_eq!(pointers.problem(400, "invalid-request"), ["/header/Idempotency-Key"]);
        }
    }

    assert_eq!(stock_of(&app, 1).await, 20);
    assert_eq!(catalog::ids(app.db.read()).await.expect("read"), [1, 2]);
    assert_eq!(stock_of(&app, 2).await, 10);
    assert!(ledger_report(&app).await.is_clean());
}

/// The first answer is given again although the product has changed since, and what was refused may be sent again.
#[rstest]
#[tokio::test]
async fn the_first_answer_is_given_again_and_a_refusal_uses_up_no_key(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let write_off = json!({ "delta": -6, "reason": "breakage" });
    let send = || client.post_with_key("/products/1/stock", "write-off", &write_off);

    send().await.problem(409, "stock-out-of-range");
    client
        .post("/products/1/stock", &json!({ "delta": 4, "reason": "found" }))
        .await;
    let done = send().await;
    assert_eq!((done.status, &done.body["stock"]), (200, &json!(3)));
    client
        .request(Method::PATCH, "/products/1")
        .json(&json!({ "name": "renamed", "price": 1 }))
        .send()
        .await
        .expect("answers");
    client
        .post("/products/1/stock", &json!({ "set_to": 0, "reason": "fire" }))
        .await;

    let again = send().await;
    assert_eq!(
        (&again.body, again.header("idempotent-replayed")),
        (&done.body, Some("true"))
    );
    assert_eq!(stock_of(&app, 1).await, 0);

    let reasons: Vec<Value> = movements(&client, 1)
        .await
        .iter()
        .map(|movement| movement["reason"].clone())
        .collect();
    assert_eq!(reasons, ["fire", "breakage", "found", "initial stock"]);
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_that_expect_the_same_stock_one_is_made(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();

    let count = |number: i64| {
        let body = json!({ "set_to": 100 + number, "expected_stock": 10, "reason": "counted" });
        let client = client.clone();
        async move { client.post("/products/1/stock", &body).await }
    };
    let answers = join_all((0..40).map(count)).await;

    let (made, refused): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(made.len(), 1);
    let stock = made[0].body["stock"].clone();
    for answer in refused {
        answer.problem(409, "stock-changed");
        assert_eq!(answer.body["stock"], stock);
    }
    assert_eq!(stock_of(&app, 1).await, stock);

    // What is so already is no movement.
    let same = json!({ "set_to": stock, "expected_stock": stock, "reason": "counted again" });
    assert_eq!(client.post("/products/1/stock", &same).await.body["stock"], stock);
    assert_eq!(movements(&client, 1).await.len(), 2);
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[case(json!({ "reason": "why" }), &[""])]
#[case(json!({ "delta": 1, "set_to": 1, "reason": "why" }), &[""])]
#[case(json!({ "delta": 0, "reason": "why" }), &["/delta"])]
#[case(json!({ "set_to": -1, "expected_stock": -1 }), &["/expected_stock", "/reason", "/set_to"])]
#[case(json!({ "set_to": 1_000_000_000_001_i64, "reason": " ", "stock": 1 }), &["/reason", "/set_to", "/stock"])]
#[tokio::test]
async fn an_invalid_stock_change_is_rejected_with_every_error(#[case] body: Value, #[case] expected: &[&str]) {
    let backend = Backend::embedded();
    backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let pointers = |answer: &Answer| {
        let mut pointers = answer.problem(400, "invalid-request");
        pointers.sort();
        pointers
    };

    let one = client.post("/products/1/stock", &body).await;
    assert_eq!(pointers(&one), expected);

    // The same as the second of two lines, the first of which is sound.
    let mut line = body.clone();
    line["product_id"] = json!(1);
    let sound = json!({ "product_id": 2, "delta": 1, "reason": "why" });
    let many = client.post("/stock-changes", &json!([sound, line])).await;
    let expected: Vec<String> = expected.iter().map(|pointer| format!("/1{pointer}")).collect();
    assert_eq!(pointers(&many), expected);
}

/// The process tries again by itself, and knows its own commit. So does the client, and gets the first answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_commit_was_not_answered_is_made_once_under_its_key() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 0)]).await;
    let proxy = Proxy::before(&backend.database_url).await;
    backend.database_url = proxy.url(&backend.database_url);
    let shop = Shop::serve(&backend);
    let client = shop.client();

    for (path, body, _) in keyed_requests() {
        proxy.lose_next_commit();
        let first = client.post_with_key(path, path, &body).await;
        assert!(proxy.has_lost_commit());
        assert!(matches!(first.status, 200 | 201), "{first:?}");
        assert_eq!(first.header("idempotent-replayed"), None);

        let again = client.post_with_key(path, path, &body).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }

    assert_eq!(stock_of(&app, 1).await, 20);
    assert_eq!(catalog::ids(app.db.read()).await.expect("read"), [1, 2]);
    assert!(ledger_report(&app).await.is_clean());
}

#[rstest]
#[tokio::test]
async fn movements_say_why_under_which_key_and_by_whom_and_only_to_administrators(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 5)]).await;
    let public = [JWT[0], JWT[1], ("SHOP_CATALOGUE_PUBLIC", "true")];
    let shop = Shop::start(&backend, &["serve"], &public);
    let client = shop.client();
    let path = "/products/1/movements";
    let get = |path: String, token: String| Answer::of(client.request(Method::GET, &path).bearer_auth(token));

    for number in 1..=5 {
        let body = json!({ "delta": number, "reason": format!("delivery {number}") });
        let change = client.request(Method::POST, "/products/1/stock").bearer_auth(admin());
        let change = change.header("Idempotency-Key", format!("delivery-{number}"));
        assert_eq!(Answer::of(change.json(&body)).await.status, 200);
    }

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(format!("{path}?limit=2{cursor}"), admin()).await;
        seen.extend(page.body["items"].as_array().expect("a list").clone());
        let Some(next) = page.body["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 6);
    assert_eq!(
        (
            &seen[0]["delta"],
            &seen[0]["reason"],
            &seen[0]["idempotency_key"],
            &seen[0]["user_id"]
        ),
        (&json!(5), &json!("delivery 5"), &json!("delivery-5"), &json!(1))
    );
    assert_eq!(
        (&seen[5]["reason"], &seen[5]["user_id"]),
        (&json!("initial stock"), &Value::Null)
    );
    let ids: Vec<i64> = seen.iter().filter_map(|movement| movement["id"].as_i64()).collect();
    assert!(ids.is_sorted_by(|one, next| one > next), "{ids:?}");

    get(path.to_owned(), user(7)).await.problem(403, "forbidden");
    client.get(path).await.problem(401, "unauthorized");
    get("/products/9/movements".to_owned(), admin())
        .await
        .problem(404, "not-found");
    for bad in ["limit=0", "limit=201", "cursor=x"] {
        get(format!("{path}?{bad}"), admin())
            .await
            .problem(400, "invalid-request");
    }
    let change = json!([{ "product_id": 1, "delta": 1, "reason": "mine" }]);
    let change = client
        .request(Method::POST, "/stock-changes")
        .bearer_auth(user(7))
        .json(&change);
    Answer::of(change).await.problem(403, "forbidden");
}
