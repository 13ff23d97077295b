//! The archive of docs/retention.md, by its own commands.

use std::collections::BTreeSet;

use shop::{cli::prune, entities::Timestamp};

use super::{STOCK, a_moment, check, refund, settled};
use crate::{
    docs::pages::{blocks, read},
    servers::shared,
    support::{Backend, Shop},
};

const NEVER: [(&str, &str); 1] = [("SHOP_BOOKS_EVERY_SECONDS", "0")];

/// Every row of the tables that lose rows, with the name of its table.
fn rows(backend: &Backend) -> BTreeSet<String> {
    let select = ["orders", "order_items", "refunds", "refund_items"]
        .map(|table| format!("SELECT '{table}', to_jsonb(t) FROM {table} t"))
        .join(" UNION ALL ");
    let rows = shared().postgres.psql(&backend.database_url, &select);
    rows.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_deleted_is_in_the_archive_and_nothing_else() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, STOCK), (100, STOCK)]).await;
    let page = blocks(&read("docs/retention.md"));
    let archive = page.iter().find(|block| block.is("archive")).expect("the block");
    shared().postgres.psql(&backend.database_url, &archive.body);
    let shop = Shop::start(&backend, &["serve"], &NEVER);
    let _worker = Shop::start(&backend, &["work"], &NEVER);
    let client = shop.client();

    settled(&client, &[(1, 1), (2, 2)]).await;
    let refunded = settled(&client, &[(1, 3)]).await;
    assert_eq!(refund(&client, &refunded, "early").await, 201);
    let refunded_late = settled(&client, &[(1, 4)]).await;
    settled(&client, &[(1, 2 * STOCK)]).await;
    client.order(&[(2, 5)]).await;
    client.held_order(&[(1, 6)]).await;
    let cutoff = a_moment(&app).await;
    assert_eq!(refund(&client, &refunded_late, "late").await, 201);
    settled(&client, &[(1, 7)]).await;
    let before = rows(&backend);

    let deleted = prune::delete(&app.db, Timestamp::now(), cutoff).await.expect("deleted");
    let orders = deleted.orders;
    assert_eq!((orders.paid, orders.failed, orders.unpaid), (2, 1, 1));
    // The next one finds nothing, and so archives nothing.
    let again = prune::delete(&app.db, Timestamp::now(), cutoff).await;
    assert_eq!(again.expect("deleted"), prune::OldRows::default());

    let archived = shared()
        .postgres
        .psql(&backend.database_url, "SELECT name, content FROM archive");
    let archived: Vec<String> = archived.lines().map(str::to_owned).collect();
    let gone: BTreeSet<String> = before.difference(&rows(&backend)).cloned().collect();
    assert_eq!(archived.len(), 4 + 5 + 1 + 1, "{archived:?}");
    assert_eq!(archived.into_iter().collect::<BTreeSet<String>>(), gone);
    assert!(check(&app).await.report.is_clean());
}
