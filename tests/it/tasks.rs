//! What runs in the background of a process: what holds up none of it, and how one learns that it has stopped.

use sea_orm::ConnectionTrait as _;
use shop::{app::App, db::sql::sql};

use crate::support::{Backend, Shop, a_minute_ago, end_holds, eventually};

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
