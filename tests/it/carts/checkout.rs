//! A cart becomes one order, whoever checks it out, however often, and whatever becomes of the cart.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use reqwest::Method;
use rstest::rstest;
use serde_json::json;
use shop::{cache::carts::Carts, domain::carts::CartId, domain::orders::Line, entities::Timestamp};

use super::{answer_to, cart_of, check_out, execute, find, lines, put, remove, two_of};
use crate::support::{Answer, Backend, Shop, count, eventually, identity};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_cart_checked_out_from_fifty_connections_becomes_one_order(
    #[values("embedded", "servers")] backend: &str,
    #[values(None, Some(600))] hold_seconds: Option<u32>,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (250, 3)]).await;
    let shops = two_of(&backend);
    let cart = cart_of(&shops[0].client(), &[(2, 1), (1, 3)]).await;

    let checkouts = (0..50).map(|number| {
        // Each a connection of its own.
        let (client, cart) = (shops[number % shops.len()].client(), cart.clone());
        let mut body = json!({ "user_id": 7 });
        if let Some(seconds) = hold_seconds {
            body["hold_seconds"] = seconds.into();
        }
        async move { answer_to(client.request(Method::POST, &format!("{cart}/checkout")).json(&body)).await }
    });
    let answers = join_all(checkouts).await;

    let mut orders = BTreeSet::new();
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(lines(answer), [(2, 1), (1, 3)]);
        orders.insert(answer.body["order_id"].to_string());
    }
    assert_eq!(orders.len(), 1, "{orders:?}");
    assert_eq!(count(&app, "PENDING").await, 1);
    let held = 10 - if hold_seconds.is_some() { 3 } else { 0 };
    assert_eq!(shops[0].client().get("/products/1").await.body["available"], held);

    let first = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_none());
    assert!(first.count() <= 1);
}

#[rstest]
#[tokio::test]
async fn a_cart_that_is_checked_out_is_closed_and_answers_its_order(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (250, 3)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let cart = cart_of(&client, &[(1, 2)]).await;
    let order = check_out(&client, &cart, 7).await;
    assert_eq!(order.status, 201, "{order:?}");

    for answer in [
        put(&client, &cart, 1, 3).await,
        put(&client, &cart, 2, 1).await,
        put(&client, &cart, 1, 0).await,
        remove(&client, &cart, 1).await,
        check_out(&client, &cart, 8).await,
    ] {
        answer.problem(409, "cart-checked-out");
    }

    let id = order.body["order_id"].as_str().expect("an id");
    client.pay(id).await;
    let again = check_out(&client, &cart, 7).await;
    assert_eq!(
        (again.status, &again.body),
        (201, &order.body),
        "the first answer again"
    );
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(lines(&find(&client, &cart).await), [(1, 2)]);
    assert_eq!(count_of_orders(&app).await, 1);
}

#[rstest]
#[tokio::test]
async fn a_checkout_that_is_refused_leaves_the_cart_as_it_was(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (i64::MAX, 3)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let cart = cart_of(&client, &[(1, 2), (2, 2)]).await;

    // The total is left out where it does not fit, and cannot be ordered.
    assert_eq!(find(&client, &cart).await.body.get("total_price"), None);
    check_out(&client, &cart, 7).await.problem(422, "total-too-large");
    let bad = client
        .post(&format!("{cart}/checkout"), &json!({ "user_id": 0, "cart": 1 }))
        .await;
    assert_eq!(bad.problem(400, "invalid-request").len(), 2);

    assert_eq!(put(&client, &cart, 2, 1).await.status, 200);
    remove(&client, &cart, 1).await;
    let order = check_out(&client, &cart, 8).await;
    assert_eq!(
        (order.status, lines(&order)),
        (201, vec![(2, 1)]),
        "for another user, too"
    );
    assert_eq!(count_of_orders(&app).await, 1);
}

#[rstest]
#[tokio::test]
async fn a_checkout_sets_units_aside_or_is_refused_with_what_is_short(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (250, 3)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let hold = async |cart: &str, seconds: u32| {
        let body = json!({ "user_id": 7, "hold_seconds": seconds });
        answer_to(client.request(Method::POST, &format!("{cart}/checkout")).json(&body)).await
    };
    let (first, second) = (
        cart_of(&client, &[(1, 4)]).await,
        cart_of(&client, &[(1, 7), (2, 1)]).await,
    );

    let held = hold(&first, 600).await;
    assert_eq!(
        (held.status, held.body["expires_at"].is_string()),
        (201, true),
        "{held:?}"
    );
    assert_eq!(find(&client, &second).await.body["items"][0]["available"], 6);
    // However it is asked for again.
    assert_eq!(hold(&first, 60).await.body, held.body);
    assert_eq!(check_out(&client, &first, 7).await.body, held.body);

    let short = hold(&second, 600).await;
    short.problem(409, "insufficient-stock");
    let expected = json!([{ "product_id": 1, "requested": 7, "available": 6 }]);
    assert_eq!(short.body["lines"], expected);
    assert_eq!(
        hold(&second, 29).await.problem(400, "invalid-request"),
        ["/hold_seconds"]
    );
    assert_eq!(put(&client, &second, 1, 6).await.status, 200);
    assert_eq!(hold(&second, 600).await.status, 201);
    assert_eq!(count_of_orders(&app).await, 2);
}

#[rstest]
#[tokio::test]
async fn a_checkout_whose_cart_vanished_meanwhile_answers_its_order(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let mut shop = Shop::serve(&backend);
    let cart = cart_of(&shop.client(), &[(1, 2)]).await;
    let open = cart_of(&shop.client(), &[(1, 1)]).await;
    let order = check_out(&shop.client(), &cart, 7).await;

    // A restart where carts are in the process; other keys where they are in Redis.
    shop.kill();
    let elsewhere = [("SHOP_CACHE_PREFIX", "elsewhere")];
    let shop = Shop::start(&backend, &["serve"], &elsewhere);
    let client = shop.client();

    find(&client, &cart).await.problem(404, "not-found");
    let again = check_out(&client, &cart, 7).await;
    assert_eq!((again.status, &again.body), (201, &order.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    check_out(&client, &cart, 8).await.problem(404, "not-found");
    check_out(&client, &open, 7).await.problem(404, "not-found");
    assert_eq!(count_of_orders(&app).await, 1);
}

/// A checkout that died after the order was made: nobody has closed the cart. After a while it can be changed again, and
/// still it is that order.
#[rstest]
#[tokio::test]
async fn a_cart_that_was_changed_after_a_checkout_of_unknown_outcome_is_still_that_order(
    #[values("embedded", "servers")] backend: &str,
) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let cart = cart_of(&client, &[(1, 2)]).await;
    let id = CartId::parse(&cart["/carts/".len()..]).expect("an id");

    // The order of the cart, with other lines than the cart has now.
    let order = client.order(&[(1, 9)]).await;
    let key = id.key().idempotency_key();
    execute(&app, &format!("UPDATE orders SET idempotency_key = '{key}'")).await;

    let answer = check_out(&client, &cart, 7).await;
    assert_eq!((answer.status, lines(&answer)), (201, vec![(1, 9)]));
    assert_eq!(answer.body["order_id"], order.as_str());
    put(&client, &cart, 1, 1).await.problem(409, "cart-checked-out");
    assert_eq!(count_of_orders(&app).await, 1);
}

#[rstest]
#[tokio::test]
async fn a_cart_does_not_change_while_it_is_being_checked_out(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.app().await;
    app.cache.set_database_identity(identity("one"));
    eventually("the cache is up", || async { app.cache.ping().await.ok() }).await;
    let carts = Carts::new(&app.cache, std::time::Duration::from_secs(60));
    let key = CartId::random().expect("random numbers").key();
    let request = || carts.request(key, None, Timestamp::now());
    let line = |quantity| Line {
        product_id: 1,
        quantity,
    };
    request().create().await.expect("created");
    request().put(line(1)).await.expect("put");

    // Two checkouts at once: only when both are refused, the cart can be changed.
    for _ in 0..2 {
        request().begin_checkout(7).await.expect("begun");
    }
    request().release_checkout().await.expect("released");
    assert!(request().put(line(2)).await.is_err());
    assert!(request().begin_checkout(8).await.is_err());
    request().release_checkout().await.expect("released");
    let changed = request().put(line(2)).await.expect("put");
    assert_eq!(changed.lines, [line(2)]);
    request().begin_checkout(8).await.expect("begun for another user");
}

/// No client can send the key of a cart's order, and so take its place.
#[tokio::test]
async fn the_key_of_a_carts_order_cannot_be_sent() {
    let backend = Backend::embedded();
    backend.stock(&[(100, 10)]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let key = CartId::random().expect("random numbers").key().idempotency_key();
    let order = json!({ "user_id": 7, "items": [{ "product_id": 1, "quantity": 1 }] });
    let request = client.request(Method::POST, "/orders").header("Idempotency-Key", key);
    Answer::of(request.json(&order)).await.problem(400, "invalid-request");
}

async fn count_of_orders(app: &shop::app::App) -> i64 {
    let mut orders = 0;
    for status in ["PENDING", "PAID", "FAILED"] {
        orders += count(app, status).await;
    }
    orders
}
