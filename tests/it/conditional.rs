//! Conditional requests (RFC 9110, section 13): what the client has is not sent again, and what it has not seen is not
//! overwritten.

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::{
    proxy::Proxy,
    support::{Answer, Backend, Client, Shop},
};

async fn get_if_none_match(client: &Client, path: &str, tags: &str) -> Answer {
    Answer::of(client.request(Method::GET, path).header("If-None-Match", tags)).await
}

async fn patch_if_match(client: &Client, tags: &str, body: &Value) -> Answer {
    let request = client.request(Method::PATCH, "/products/1").header("If-Match", tags);
    Answer::of(request.json(body)).await
}

async fn etag_of(client: &Client, path: &str) -> String {
    let answer = client.get(path).await;
    answer.header("etag").expect("an ETag").to_owned()
}

#[rstest]
#[tokio::test]
async fn a_product_and_an_order_are_not_sent_to_who_has_them(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let order = format!("/orders/{}", client.order(&[(1, 1)]).await);
    let paths = ["/products/1", order.as_str()];

    let mut before = Vec::new();
    for path in paths {
        let etag = etag_of(&client, path).await;
        assert!(etag.starts_with('"'), "{etag} is strong");
        for tags in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
            let known = get_if_none_match(&client, path, &tags).await;
            assert_eq!((known.status, &known.body), (304, &json!("")), "{tags}");
            assert_eq!(known.header("etag"), Some(etag.as_str()));
        }
        assert_eq!(get_if_none_match(&client, path, "\"x\"").await.status, 200);
        before.push(etag);
    }

    let pay = client
        .request(Method::POST, &format!("{order}/pay"))
        .header("Prefer", "wait=20");
    assert_eq!(Answer::of(pay).await.body["status"], "PAID");
    for (path, before) in paths.iter().zip(before) {
        let changed = get_if_none_match(&client, path, &before).await;
        assert_eq!(changed.status, 200, "{path} has changed");
        let etag = changed.header("etag").expect("an ETag").to_owned();
        // The second time a settled order comes from the cache.
        for _ in 0..2 {
            assert_eq!(get_if_none_match(&client, path, &etag).await.status, 304, "{path}");
        }
    }

    let unknown = "/orders/01900000-0000-7000-8000-000000000000";
    get_if_none_match(&client, unknown, "*").await.problem(404, "not-found");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_to_what_was_read_one_is_made(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let read = etag_of(&client, "/products/1").await;
    // What a process does for its first requests alone is done, so that the changes really run beside one another.
    let nothing = json!({});
    join_all((0..64).map(|_| patch_if_match(&client, &read, &nothing))).await;

    let changing = (0..64).map(|number| {
        let (client, read) = (client.clone(), read.clone());
        async move { patch_if_match(&client, &read, &json!({ "price": 1_000 + number })).await }
    });
    let answers = join_all(changing).await;

    let made: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(made.len(), 1);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.problem(412, "precondition-failed");
    }
    let product = client.get("/products/1").await;
    assert_eq!(product.body["price"], made[0].body["price"]);
    assert_eq!(product.header("etag"), made[0].header("etag"));
}

#[tokio::test]
async fn if_match_is_heeded_as_the_standard_says() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 5)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let read = etag_of(&client, "/products/1").await;

    for tags in [format!("W/{read}"), "\"x\"".to_owned(), read.replace('"', "")] {
        let refused = patch_if_match(&client, &tags, &json!({ "price": 7 })).await;
        refused.problem(412, "precondition-failed");
    }
    let listed = patch_if_match(&client, &format!("\"x\", {read}"), &json!({ "price": 7 })).await;
    assert_eq!((listed.status, &listed.body["price"]), (200, &json!(7)));
    assert_eq!(patch_if_match(&client, "*", &json!({ "price": 8 })).await.status, 200);

    // The change is there already: whoever sends it again did not get the answer.
    assert_eq!(patch_if_match(&client, &read, &json!({ "price": 8 })).await.status, 200);

    // A fault of the request comes first, and what does not exist has no tag.
    patch_if_match(&client, "\"x\"", &json!({ "price": -1 }))
        .await
        .problem(400, "invalid-request");
    let unknown = client.request(Method::PATCH, "/products/9").header("If-Match", "*");
    Answer::of(unknown.json(&json!({ "price": 1 })))
        .await
        .problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_change_whose_commit_was_not_answered_is_not_refused_by_itself() {
    let mut backend = Backend::servers();
    backend.stock(&[(100, 5)]).await;
    let proxy = Proxy::before(&backend.database_url).await;
    backend.database_url = proxy.url(&backend.database_url);
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let read = etag_of(&client, "/products/1").await;

    proxy.lose_next_commit();
    let changed = patch_if_match(&client, &read, &json!({ "price": 7 })).await;

    assert!(proxy.has_lost_commit());
    assert_eq!((changed.status, &changed.body["price"]), (200, &json!(7)));
}
