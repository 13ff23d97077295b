//! `shop verify` finds what does not add up, and nothing else.

use rstest::rstest;
use sea_orm::ConnectionTrait as _;

use crate::support::{Backend, Shop, run_to_end};

#[rstest]
#[tokio::test]
async fn books_that_were_tampered_with_are_found_out(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (100, 10)]).await;
    let shop = Shop::serve(&backend);
    let _workers = Shop::workers(&backend, 1);
    let client = shop.client();
    let (paid, failed, waiting) = (
        client.order(&[(1, 4)]).await,
        client.order(&[(2, 11)]).await,
        client.order(&[(2, 1)]).await,
    );
    for id in [&paid, &failed] {
        client.pay(id).await;
        client.settled(id).await;
    }
    let verify = || run_to_end(&backend, &["verify"], &[]);
    assert!(verify().status.success());
    let id_of = |id: &str| {
        if backend.is_embedded() {
            format!("x'{}'", id.replace('-', ""))
        } else {
            format!("'{id}'")
        }
    };
    for (tamper, mend, told) in [
        (
            "UPDATE products SET stock = stock + 1 WHERE id = 1".to_owned(),
            "UPDATE products SET stock = stock - 1 WHERE id = 1".to_owned(),
            "product 1",
        ),
        (
            format!("UPDATE orders SET total_price = 1 WHERE id = {}", id_of(&paid)),
            format!("UPDATE orders SET total_price = 400 WHERE id = {}", id_of(&paid)),
            paid.as_str(),
        ),
        (
            format!("UPDATE orders SET accepted_at = 1 WHERE id = {}", id_of(&waiting)),
            format!("UPDATE orders SET accepted_at = NULL WHERE id = {}", id_of(&waiting)),
            waiting.as_str(),
        ),
    ] {
        app.db.write().execute_unprepared(&tamper).await.expect("tampers");
        let found = verify();
        assert_eq!(found.status.code(), Some(1));
        let printed = String::from_utf8_lossy(&found.stdout).into_owned();
        assert!(printed.contains(told), "{told}: {printed}");
        app.db.write().execute_unprepared(&mend).await.expect("mends");
    }
    assert!(verify().status.success());
}

#[tokio::test]
async fn seeding_twice_adds_nothing_and_leaves_the_books_right() {
    let backend = Backend::embedded();
    backend.app().await;
    let seed = || {
        let output = run_to_end(
            &backend,
            &["seed", "--products", "30", "--orders", "600", "--seed", "5"],
            &[],
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(seed(), "added 30 products and 600 orders");
    assert_eq!(seed(), "added 0 products and 0 orders");
    let verified = run_to_end(&backend, &["verify"], &[]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}
