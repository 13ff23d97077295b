//! What is for sale: products that other systems know by a SKU, and products that are taken off the list and put back.

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Client, Shop, eventually, ledger_report};

async fn patch(client: &Client, path: &str, body: &Value) -> Answer {
    Answer::of(client.request(Method::PATCH, path).json(body)).await
}

async fn listed(client: &Client, query: &str) -> Vec<i64> {
    let page = client.get(&format!("/products?{query}")).await;
    let items = page.body["items"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|item| item["id"].as_i64()).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_sku_belongs_to_one_product(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.stock(&[(100, 5), (100, 5)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let new = |name: String| json!({ "name": name, "price": 1, "stock": 1, "sku": "MUG-1" });

    let adding = (0..20).map(|number| {
        let (client, body) = (client.clone(), new(format!("mug {number}")));
        async move { client.post("/products", &body).await }
    });
    let answers = join_all(adding).await;
    let added: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!((added.len(), &added[0].body["sku"]), (1, &json!("MUG-1")));
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        refused.problem(409, "sku-taken");
    }

    patch(&client, "/products/1", &json!({ "sku": "MUG-1", "price": 7 }))
        .await
        .problem(409, "sku-taken");
    let path = added[0].header("location").expect("where it is").to_owned();
    assert_eq!(
        patch(&client, &path, &json!({ "sku": "MUG-1" })).await.status,
        200,
        "its own"
    );
    let given = patch(&client, "/products/1", &json!({ "sku": "mug-1" })).await;
    assert_eq!(
        (&given.body["sku"], &given.body["price"]),
        (&json!("mug-1"), &json!(100))
    );

    let id = added[0].body["id"].as_i64().expect("an id");
    for (query, found) in [("sku=MUG-1", vec![id]), ("sku=mug-1", vec![1]), ("sku=mug", vec![])] {
        eventually("the list shows it", || async {
            (listed(&client, query).await == found).then_some(())
        })
        .await;
    }
    for bad in ["", "two%20words", "caf%C3%A9", &"x".repeat(65)] {
        let answer = client.get(&format!("/products?sku={bad}")).await;
        answer.problem(400, "invalid-request");
    }
    for bad in ["", "two words", "café", &"x".repeat(65)] {
        let answer = patch(&client, "/products/1", &json!({ "sku": bad })).await;
        assert_eq!(answer.problem(400, "invalid-request")[0], "/sku");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_product_off_the_list_is_not_sold_and_old_orders_are_settled(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 5), (100, 5), (100, 5)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let body = json!({ "user_id": 7, "items": [
        { "product_id": 1, "quantity": 1 }, { "product_id": 2, "quantity": 1 }, { "product_id": 9, "quantity": 1 },
    ] });
    let old = client.order(&[(1, 1), (2, 1)]).await;
    let keyed = json!({ "user_id": 7, "items": [{ "product_id": 2, "quantity": 1 }] });
    let first = client.post_with_key("/orders", "before", &keyed).await;

    let taken_off = patch(&client, "/products/2", &json!({ "active": false })).await;
    assert_eq!((taken_off.status, &taken_off.body["active"]), (200, &json!(false)));
    eventually("it is not listed", || async {
        let all = listed(&client, "").await == [1, 3] && listed(&client, "q=product").await == [1, 3];
        (all && listed(&client, "active=false").await == [2]).then_some(())
    })
    .await;
    assert_eq!(client.get("/products/2").await.body["active"], false, "found by its id");
    client.get("/products?active=no").await.problem(400, "invalid-request");

    let refused = client.post("/orders", &body).await;
    assert_eq!(
        refused.problem(422, "unknown-product"),
        ["/items/1/product_id", "/items/2/product_id"]
    );
    let again = client.post_with_key("/orders", "before", &keyed).await;
    assert_eq!((again.status, &again.body), (201, &first.body), "made before");
    client.pay(&old).await;
    assert_eq!(client.settled(&old).await["status"], "PAID");

    patch(&client, "/products/2", &json!({ "active": true })).await;
    client.order(&[(2, 1)]).await;
    eventually("it is listed", || async {
        (listed(&client, "").await == [1, 2, 3]).then_some(())
    })
    .await;

    let hidden = json!({ "name": "soon", "price": 1, "stock": 1, "active": false });
    let hidden = client.post("/products", &hidden).await;
    assert_eq!((hidden.status, &hidden.body["active"]), (201, &json!(false)));
    assert!(ledger_report(&app).await.is_clean());
}
