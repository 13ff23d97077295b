//! `GET /products?q=`: the same names are found on both databases, in any case and spelling.

use reqwest::Method;
use rstest::rstest;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use shop::seed;

use crate::support::{Answer, Backend, Client, Shop};

#[rstest]
#[tokio::test]
async fn a_product_is_found_by_any_part_of_its_name(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    backend.app().await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    for name in [
        "Étagère 100 %",
        "Coffee_Mug",
        "Чашка",
        "C:\\shelf",
        "Äpfel",
        "Straße nach İstanbul",
    ] {
        let body = json!({ "name": name, "price": 500, "stock": 5 });
        assert_eq!(client.post("/products", &body).await.status, 201, "{name}");
    }

    for (part, found) in [
        ("äpfel", 1),
        ("ÄPF", 1),
        ("a\u{308}pfel", 1),
        ("apfel", 0),
        ("STRASSE NACH", 1),
        ("straẞe", 1),
        ("istanbul", 1),
        ("ISTANBUL", 1),
        ("ıstanbul", 1),
        ("éta", 1),
        ("e\u{301}TA", 1),
        ("100 ％", 1),
        ("ЧАШКА", 1),
        ("Étagère", 1),
        ("100 %", 1),
        ("coffee", 1),
        ("MUG", 1),
        ("e_m", 1),
        ("e_e", 0),
        ("ашка", 1),
        ("Чашка", 1),
        ("\\SHELF", 1),
        ("%", 1),
        ("", 6),
    ] {
        assert_eq!(search(&client, part).await.len(), found, "{part}");
    }
}

/// The names that a search for this part finds.
async fn search(client: &Client, part: &str) -> Vec<String> {
    let encoded: Vec<String> = part.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let page = client.get(&format!("/products?q={}", encoded.concat())).await;
    let items = page.body["items"].as_array().expect("a list").iter();
    items
        .map(|item| item["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[rstest]
#[tokio::test]
async fn a_product_is_found_by_its_new_name_and_one_inserted_by_hand_too(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.app().await;
    let plan = seed::Plan {
        products: 3,
        orders: 0,
        seed: 1,
    };
    seed::fill(&app, plan).await.expect("filled");
    let by_hand = "INSERT INTO products (name, price, stock) VALUES ('Übertopf', 990, 3), ('Tasse', 990, 3)";
    app.db.write().execute_unprepared(by_hand).await.expect("inserted");

    let mut shop = Shop::serve(&backend);
    let client = shop.client();
    let change = async |body| {
        let changed = Answer::of(client.request(Method::PATCH, "/products/1").json(&body)).await;
        assert_eq!(changed.status, 200, "{changed:?}");
    };
    assert_eq!(search(&client, "üBERTOPF").await, ["Übertopf"]);
    assert_eq!(search(&client, "RATTAN").await, ["Rattan Water Bottle"]);
    change(json!({ "name": "Öllampe" })).await;
    change(json!({ "price": 700 })).await;
    assert_eq!(search(&client, "ÖLL").await, ["Öllampe"]);
    assert_eq!(search(&client, "rattan").await, [""; 0]);

    // What is inserted or renamed while a process runs is found in ASCII's cases, and in all from its next start on.
    let by_hand = "UPDATE products SET name = 'Schüssel', search_name = NULL WHERE name = 'Tasse'";
    app.db.write().execute_unprepared(by_hand).await.expect("updated");
    assert_eq!(search(&client, "SCH").await, ["Schüssel"]);
    assert!(shop.terminate().success());
    let shop = Shop::serve(&backend);
    assert_eq!(search(&shop.client(), "SCHÜSSEL").await, ["Schüssel"]);
}
