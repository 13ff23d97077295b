//! What runs in the background of a process: what holds up none of it, and how one learns that it has stopped.

use std::time::Duration;

use reqwest::Method;
use sea_orm::ConnectionTrait as _;
use serde_json::Value;
use shop::{app::App, db::sql::sql};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    proxy::Proxy,
    servers::shared,
    support::{Answer, Backend, Shop, a_minute_ago, end_holds, eventually},
};

async fn execute(app: &App, statement: &str) {
    app.db.write().execute_unprepared(statement).await.expect(statement);
}

/// Whether an order has expired while a statement ran that counts the open holds and still runs.
async fn expired_while_counting(app: &App) -> bool {
    let orders: Vec<i64> = sql("
        SELECT COUNT(*)
          FROM pg_stat_activity
          JOIN orders ON orders.settled_at > pg_stat_activity.query_start
         WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
           AND query LIKE '%COUNT(*)%expires_at IS NOT NULL%'")
    .scalars(app.db.read())
    .await
    .expect("answered");
    orders[0] > 0
}

/// As when many holds are open: here counting takes four seconds for each of them.
#[tokio::test(flavor = "multi_thread")]
async fn counting_the_holds_does_not_keep_them_from_expiring() {
    let mut backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    for statement in [
        "CREATE SCHEMA slow",
        "CREATE FUNCTION slow.step(bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT $1 + 1 FROM pg_sleep(4) $$",
        "CREATE AGGREGATE slow.count(*) (SFUNC = slow.step, STYPE = bigint, INITCOND = '0')",
    ] {
        execute(&app, statement).await;
    }
    let serve = Shop::serve(&backend);
    backend.database_url += "?options[search_path]=slow,pg_catalog,public";
    let _work = Shop::start(&backend, &["work"], &[("SHOP_BOOKS_EVERY_SECONDS", "0")]);

    let client = serve.client();
    let (ends, _open) = (client.held_order(&[(1, 1)]).await, client.held_order(&[(1, 1)]).await);
    end_holds(&app, a_minute_ago(), &[ends.parse().expect("an id")]).await;
    eventually("one has expired while the holds are counted", || async {
        expired_while_counting(&app).await.then_some(())
    })
    .await;
}

/// When the watch of orders had to say that it receives no events.
fn no_events(shop: &Shop) -> Vec<OffsetDateTime> {
    let log = shop.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"].to_string().contains("cannot receive events"));
    let time = |line: Value| OffsetDateTime::parse(line["timestamp"].as_str().expect("a time"), &Rfc3339);
    lines.map(|line| time(line).expect("RFC 3339")).collect()
}

/// A broker that takes a listener and drops it again would be asked as fast as it answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_lost_is_opened_again_after_a_pause() {
    let mut backend = Backend::servers();
    backend.stock(&[(100, 10)]).await;
    let proxy = Proxy::before(&backend.queue_url).await;
    backend.queue_url = proxy.url(&backend.queue_url);
    let shop = Shop::start(&backend, &["serve"], &[("SHOP_LOG", "debug")]);
    let client = shop.client();
    let path = format!("/orders/{}", client.order(&[(1, 1)]).await);
    let waiting = client.request(Method::GET, &path).header("Prefer", "wait=30");
    let waiting = tokio::spawn(Answer::of(waiting));

    let events = format!("{}.events\t", backend.prefix);
    eventually("it listens", || async {
        let bindings = shared()
            .rabbitmq
            .ctl(&["list_bindings", "source_name", "destination_name"]);
        bindings.lines().any(|line| line.starts_with(&events)).then_some(())
    })
    .await;
    proxy.cut();
    let times = eventually("it has tried again", || async {
        let times = no_events(&shop);
        (times.len() > 1).then_some(times)
    })
    .await;

    let pause = times[1] - times[0];
    assert!(pause > Duration::from_millis(900), "{pause}");
    waiting.abort();
}
