//! The drill for SQLite: a copy that is made while the shop is running, and put in the place of the file.

use std::fs;

use rstest::rstest;
use serde_json::json;

use super::{STOCK, add_product, block, run_script, status_of};
use crate::{
    carts,
    docs::pages::ROOT,
    servers::shared,
    support::{Backend, Shop, run_to_end},
};

/// Redis keeps running, and so keeps what it holds of the file before.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_file_is_restored_from_a_copy_that_was_made_while_it_was_used(
    #[values("memory", "Redis")] cache: &str,
) {
    let mut backend = Backend::embedded();
    if cache == "Redis" {
        backend.cache_url = shared().redis.url();
    }
    let app = backend.stock(&[(100, STOCK)]).await;
    app.close().await;
    let config = format!("{ROOT}/config/");
    let run_block = |word: &str| run_script(&block(word).replace("config/", &config), &backend.folder, &backend);

    let mut shop = Shop::serve(&backend);
    let client = shop.client();
    let paid = async || {
        let id = client.order(&[(1, 1)]).await;
        client.pay(&id).await;
        client.settled(&id).await;
        id
    };
    let kept = paid().await;
    let held = client.held_order(&[(1, 2)]).await;
    run_block("drill-sqlite-backup");

    let lost = paid().await;
    let (lost_product, cart) = (add_product(&client).await, carts::cart_of(&client, &[(1, 1)]).await);
    assert!(shop.terminate().success());

    run_block("drill-sqlite-restore");
    if cache == "Redis" {
        // As where the copy was written over the file, which is then the same one as before.
        let (file, before) = (backend.folder.join("shop.db"), backend.folder.join("lost/shop.db"));
        fs::copy(&file, &before).expect("written over");
        fs::rename(&before, &file).expect("in its place");
    }

    let shop = Shop::serve(&backend);
    let client = shop.client();
    assert_eq!(status_of(&client, &kept).await, (200, json!("PAID")));
    assert_eq!(status_of(&client, &lost).await.0, 404);
    carts::find(&client, &cart).await.problem(404, "not-found");
    assert!(add_product(&client).await > lost_product);
    client.pay(&held).await;
    assert_eq!(client.settled(&held).await["status"], "PAID");
    let verified = run_to_end(&backend, &["verify"], &[]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
    let product = client.get("/products/1").await;
    assert_eq!(product.body["stock"], STOCK - 1 - 2);
}
