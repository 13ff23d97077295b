//! The drill for SQLite: a copy that is made while the shop is running, and put in the place of the file.

use std::{fs, path::Path, time::Duration};

use rstest::rstest;
use serde_json::json;
use tokio::time::sleep;

use super::{
    STOCK, add_product,
    drill::{block, run_script},
    status_of,
};
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
    let run = |script: &str| run_script(&script.replace("config/", &config), &backend.folder, &backend);

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
    // Twice, as it is done every day.
    for _ in 0..2 {
        run(&block("drill-sqlite-backup"));
        sleep(Duration::from_secs(1)).await;
    }
    let copy = named(&backend.folder, "shop-").pop().expect("a copy was made");

    let lost_order = paid().await;
    let (lost_product, cart) = (add_product(&client).await, carts::cart_of(&client, &[(1, 1)]).await);
    assert!(shop.terminate().success());

    let restore = block("drill-sqlite-restore");
    let shown = "shop-20261125T030000Z.db";
    assert!(restore.contains(shown), "{restore}");
    run(&restore.replace(shown, &copy));
    let lost = named(&backend.folder, "lost-").pop().expect("a folder");
    if cache == "Redis" {
        // As where the copy was written over the file, which is then the same one as before.
        let (file, before) = (
            backend.folder.join("shop.db"),
            backend.folder.join(lost).join("shop.db"),
        );
        fs::copy(&file, &before).expect("written over");
        fs::rename(&before, &file).expect("in its place");
    }

    let shop = Shop::serve(&backend);
    let client = shop.client();
    assert_eq!(status_of(&client, &kept).await, (200, json!("PAID")));
    assert_eq!(status_of(&client, &lost_order).await.0, 404);
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

/// What has a name that begins so, in order.
fn named(folder: &Path, beginning: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let names = entries.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.filter(|name| name.starts_with(beginning)).collect();
    names.sort();
    names
}
