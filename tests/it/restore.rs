//! The drill of docs/backup.md, with its own commands: a backup, the archived log, and a restore to an earlier moment.

mod drill;
mod sqlite;

use drill::Drill;
use rstest::rstest;
use serde_json::{Value, json};
use shop::{app::App, entities::Timestamp};

use crate::{
    carts,
    support::{
        Answer, Backend, Client, EventListener, Shop, all_settled, end_holds, eventually, ledger_report, level_of,
        run_to_end,
    },
};

/// How many products are added after the moment. PostgreSQL itself skips some 32 ids after a recovery.
const LOST_PRODUCTS: usize = 40;
const STOCK: i64 = 1_000;

/// What the shop had answered before the moment.
struct Kept {
    paid: String,
    accepted: String,
    unpaid: String,
    held: String,
    /// Its hold ends after the moment.
    expired: String,
    cart: String,
}

/// What it answered after the moment.
struct Lost {
    products: Vec<i64>,
    paid: Answer,
    accepted: String,
}

async fn pay_with(client: &Client, order: &str, charge: &str) {
    let payment = json!({ "payment_reference": charge });
    let paid = client.post(&format!("/orders/{order}/pay"), &payment).await;
    assert_eq!(paid.status, 202, "{paid:?}");
}

async fn add_product(client: &Client) -> i64 {
    let product = json!({ "name": "Mug", "price": 100, "stock": STOCK });
    let added = client.post("/products", &product).await;
    assert_eq!(added.status, 201, "{added:?}");
    added.body["id"].as_i64().expect("a number")
}

/// An order of one unit of each product, under a key.
async fn order_of_each(client: &Client, products: &[i64]) -> Answer {
    let items: Vec<Value> = products
        .iter()
        .map(|product| json!({ "product_id": product, "quantity": 1 }))
        .collect();
    let order = json!({ "user_id": 7, "items": items });
    let answer = client.post_with_key("/orders", "the-same-key", &order).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer
}

fn id_of(order: &Answer) -> String {
    order.body["order_id"].as_str().expect("an id").to_owned()
}

fn line_ids(order: &Answer) -> Vec<i64> {
    let items = order.body["items"].as_array().expect("a list").iter();
    items.map(|item| item["id"].as_i64().expect("a number")).collect()
}

async fn status_of(client: &Client, order: &str) -> (u16, Value) {
    let answer = client.get(&format!("/orders/{order}")).await;
    (answer.status, answer.body["status"].clone())
}

/// All that happens before the moment, the backup included. In the end no worker runs.
async fn until_the_moment(drill: &Drill, app: &App, client: &Client) -> Kept {
    let mut worker = Shop::work(&drill.backend);
    let paid = client.order(&[(1, 1)]).await;
    client.pay(&paid).await;
    client.settled(&paid).await;
    drill.back_up();
    worker.terminate();

    let kept = Kept {
        paid,
        accepted: client.order(&[(1, 2)]).await,
        unpaid: client.order(&[(1, 4)]).await,
        held: client.held_order(&[(1, 8)]).await,
        expired: client.held_order(&[(1, 32)]).await,
        cart: carts::cart_of(client, &[(1, 1)]).await,
    };
    client.pay(&kept.accepted).await;
    end_holds(app, Timestamp::now(), &[kept.expired.parse().expect("an id")]).await;
    kept
}

/// All that happens after the moment. In the end no worker runs, and messages of two orders wait in the queue.
async fn after_the_moment(drill: &Drill, client: &Client, kept: &Kept) -> Lost {
    let mut worker = Shop::work(&drill.backend);
    client.settled(&kept.accepted).await;
    client.pay(&kept.held).await;
    client.settled(&kept.held).await;
    client.settled(&kept.expired).await;

    let mut products = Vec::new();
    for _ in 0..LOST_PRODUCTS {
        products.push(add_product(client).await);
    }
    let paid = order_of_each(client, &products).await;
    client.pay(&id_of(&paid)).await;
    client.settled(&id_of(&paid)).await;
    worker.terminate();

    pay_with(client, &kept.unpaid, "charge-1").await;
    let accepted = client.order(&[(1, 16)]).await;
    client.pay(&accepted).await;
    Lost {
        products,
        paid,
        accepted,
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_moment_between_two_orders_keeps_what_was_answered_before_it(
    #[values("recovery_target_time", "recovery_target_name")] target: &str,
) {
    let drill = Drill::start();
    let app = drill.backend.stock(&[(100, STOCK)]).await;
    EventListener::declare(&drill.backend).await;
    // Nobody stops this process.
    let shop = Shop::serve(&drill.backend);
    let kept = until_the_moment(&drill, &app, &shop.client()).await;
    let moment = drill.moment(target);
    let lost = after_the_moment(&drill, &shop.client(), &kept).await;
    drill.archive_log().await;

    drill.restore(&moment).await;

    let other = Shop::serve(&drill.backend);
    for client in [other.client(), shop.client()] {
        nothing_is_shown_of_what_is_lost(&client, &kept, &lost).await;
    }
    let worker = Shop::work(&drill.backend);
    let client = other.client();
    what_was_accepted_is_settled_and_the_rest_can_be_paid_again(&client, &kept).await;
    nothing_is_given_out_twice(&client, &lost).await;
    messages_that_name_lost_orders_are_dead_lettered(&drill, &lost).await;

    all_settled(&app).await;
    assert_eq!(level_of(&app, 1).await, (STOCK - 1 - 2 - 4 - 8 - 32, 0));
    let report = ledger_report(&app).await;
    assert!(report.is_clean(), "{report:?}");
    assert!(run_to_end(&drill.backend, &["verify"], &[]).status.success());
    drop(worker);
    events_of_lost_orders_have_been_published(&drill.backend, &kept, &lost).await;
}

/// What the first one has told PostgreSQL is not in the backup that is taken after it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_later_restore_knows_nothing_of_the_moment_of_an_earlier_one(
    #[values("recovery_target_name", "the end of the archive")] target: &str,
) {
    let drill = Drill::start();
    drill.backend.stock(&[(100, STOCK)]).await.close().await;
    drill.back_up();
    let moment = drill.moment("recovery_target_time");
    drill.add_product("lost");
    drill.archive_log().await;
    drill.restore(&moment).await;

    drill.back_up();
    drill.add_product("kept");
    let moment = if target == "recovery_target_name" {
        drill.moment(target)
    } else {
        String::new()
    };
    drill.add_product("last");
    drill.archive_log().await;
    drill.restore(&moment).await;

    let kept = ["product 1", "kept", "last"];
    let kept = if moment.is_empty() { &kept[..] } else { &kept[..2] };
    assert_eq!(drill.products(), kept);
}

async fn nothing_is_shown_of_what_is_lost(client: &Client, kept: &Kept, lost: &Lost) {
    for order in [&id_of(&lost.paid), &lost.accepted] {
        eventually("the lost order is unknown", || async {
            let (status, _) = status_of(client, order).await;
            (status == 404).then_some(())
        })
        .await;
    }

    for order in [&kept.accepted, &kept.unpaid, &kept.held, &kept.expired] {
        assert_eq!(status_of(client, order).await, (200, json!("PENDING")));
    }
    assert_eq!(status_of(client, &kept.paid).await, (200, json!("PAID")));
    // A process that was not stopped asks once a second which database it is.
    eventually("the cart is gone", || async {
        (carts::find(client, &kept.cart).await.status == 404).then_some(())
    })
    .await;
    let page = client.get("/products").await;
    assert_eq!(page.body["items"].as_array().map(Vec::len), Some(1), "{page:?}");
}

async fn what_was_accepted_is_settled_and_the_rest_can_be_paid_again(client: &Client, kept: &Kept) {
    assert_eq!(client.settled(&kept.accepted).await["status"], "PAID");

    let unpaid = client.get(&format!("/orders/{}", kept.unpaid)).await;
    assert_eq!(unpaid.body["accepted_at"], Value::Null, "{unpaid:?}");
    pay_with(client, &kept.unpaid, "charge-1").await;
    pay_with(client, &kept.held, "charge-2").await;
    pay_with(client, &kept.expired, "charge-3").await;
    for order in [&kept.unpaid, &kept.held, &kept.expired] {
        assert_eq!(client.settled(order).await["status"], "PAID");
    }
}

async fn nothing_is_given_out_twice(client: &Client, lost: &Lost) {
    let mut products = Vec::new();
    for _ in 0..LOST_PRODUCTS {
        products.push(add_product(client).await);
    }
    let highest = lost.products.iter().max();
    assert!(products.iter().min() > highest, "{products:?} {:?}", lost.products);

    // The key went with the order.
    let order = order_of_each(client, &products).await;
    assert_ne!(id_of(&order), id_of(&lost.paid));
    let (lines, lost_lines) = (line_ids(&order), line_ids(&lost.paid));
    assert!(lines.iter().min() > lost_lines.iter().max(), "{lines:?} {lost_lines:?}");
}

async fn messages_that_name_lost_orders_are_dead_lettered(drill: &Drill, lost: &Lost) {
    let named = eventually("the message of the lost order is dead-lettered", || async {
        let listed = run_to_end(&drill.backend, &["dead-letters", "list", "--json"], &[]);
        let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        let letters = listed.as_array().expect("a list");
        let named = letters
            .iter()
            .map(|letter| (letter["order_id"].clone(), letter["reason"].clone()));
        Some(named.collect::<Vec<_>>()).filter(|named| !named.is_empty())
    })
    .await;
    assert_eq!(named, [(json!(lost.accepted), json!("no such order"))]);
}

/// An order that is settled again has the same event again; that of a lost order names one that does not exist.
async fn events_of_lost_orders_have_been_published(backend: &Backend, kept: &Kept, lost: &Lost) {
    let events = EventListener::on(backend).await.all().await;
    let ids = |order: &str| -> Vec<&Value> {
        let of_order = events.iter().filter(|event| event["subject"] == order);
        of_order.map(|event| &event["id"]).collect()
    };

    for order in [&kept.accepted, &kept.held] {
        let ids = ids(order);
        assert!(ids.len() > 1 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    assert!(!ids(&id_of(&lost.paid)).is_empty());
    assert_eq!(ids(&lost.accepted).len(), 0);
}
