//! What runs in the background of a process: what holds up none of it, and how one learns that it has stopped.

use std::time::Duration;

use reqwest::Method;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::Value;
use shop::app::App;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    proxy::Proxy,
    servers::shared,
    support::{Answer, Backend, Shop, a_minute_ago, end_holds, eventually},
};

async fn execute(app: &App, statement: &str) {
    app.db.write().execute_unprepared(statement).await.expect(statement);
}

/// How many rows come of joining the statements that count the open holds now with `tables`.
async fn while_counting(app: &App, tables: &str) -> i64 {
    let counting = format!(
        "SELECT COUNT(*)
           FROM pg_stat_activity {tables}
          WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
            AND query LIKE '%COUNT(*)%expires_at IS NOT NULL%'"
    );
    let statement = Statement::from_string(DbBackend::Postgres, counting);
    let row = app.db.read().query_one_raw(statement).await.expect("answered");
    row.expect("a row").try_get_by_index(0).expect("a number")
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
    client.held_order(&[(1, 1)]).await;
    eventually("one expires while the holds are counted", || async {
        let ends = client.held_order(&[(1, 1)]).await;
        eventually("the holds are counted", || async {
            (while_counting(&app, "").await > 0).then_some(())
        })
        .await;
        end_holds(&app, a_minute_ago(), &[ends.parse().expect("an id")]).await;
        client.settled(&ends).await;

        // That statement has gone on meanwhile, unless it was about to end.
        let expired = while_counting(&app, "JOIN orders ON orders.settled_at > query_start").await;
        (expired > 0).then_some(())
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
