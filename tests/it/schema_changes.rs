//! Changes of the schema beside open shops, by migrations that later versions will bring.

use std::time::Duration;

use migration::{
    DbErr, MigrationName, MigrationTrait, Migrator, MigratorTrait, NewIndex, SchemaManager, async_trait, create_index,
};
use rstest::rstest;
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, TransactionTrait as _};
use serde_json::json;
use shop::{
    app::App,
    db::schema::{Change, change_by},
};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    outages::under_load,
    servers::Postgres,
    support::{Backend, Shop, eventually},
};

const PATIENT: Duration = Duration::from_secs(60);

/// A migration of a later version.
struct Later {
    name: &'static str,
    change: Statement,
}

#[derive(Clone, Copy)]
enum Statement {
    Sql(&'static str),
    Index(&'static str),
}

impl MigrationName for Later {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Later {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        match self.change {
            Statement::Sql(sql) => migration::run(manager, sql, sql).await,
            Statement::Index(on) => {
                let name = "later";
                create_index(manager, &NewIndex { name, unique: true, on }).await
            }
        }
    }

    fn use_transaction(&self) -> Option<bool> {
        matches!(self.change, Statement::Index(_)).then_some(false)
    }
}

fn with(name: &'static str, change: Statement) -> Vec<Box<dyn MigrationTrait>> {
    let mut migrations = Migrator::migrations();
    migrations.push(Box::new(Later { name, change }));
    migrations
}

struct NewColumn;
impl MigratorTrait for NewColumn {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        with(
            "m9001_column",
            Statement::Sql("ALTER TABLE orders ADD COLUMN gift_wrap text"),
        )
    }
}

struct NewUniqueIndex;
impl MigratorTrait for NewUniqueIndex {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        with("m9002_index", Statement::Index("products (name)"))
    }
}

fn change<M: MigratorTrait>(app: &App, max_wait: Duration) -> JoinHandle<Result<(), DbErr>> {
    let app = app.clone();
    tokio::spawn(async move { change_by::<M>(&app.db, &app.config.database.url, Change::Up, max_wait).await })
}

/// A report that reads the orders for long. It ends with the connection.
async fn long_report(app: &App) -> DatabaseTransaction {
    let report = app.db.write().begin().await.expect("begun");
    report
        .execute_unprepared("SELECT count(*) FROM orders")
        .await
        .expect("read");
    report
}

/// Whoever waits for a lock on a table makes everybody wait who comes later.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_waits_for_a_long_report_makes_nobody_else_wait() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 100_000); 4]).await;
    let (shop, _work) = (Shop::serve(&backend), Shop::work(&backend));

    let report = long_report(&app).await;
    let mut changing = None;
    let crowd = under_load(vec![shop.client()], async {
        changing = Some(change::<NewColumn>(&app, PATIENT));
        // Longer than any request waits.
        sleep(Duration::from_secs(5)).await;
        assert!(!changing.as_ref().is_some_and(JoinHandle::is_finished));
    })
    .await;
    let record = crowd.take_record();
    assert!(!record.statuses.contains_key(&503), "{:?}", record.statuses);

    report.rollback().await.expect("over");
    changing.expect("started").await.expect("runs").expect("changed");
    let added = "SELECT gift_wrap FROM orders LIMIT 1";
    app.db
        .read()
        .execute_unprepared(added)
        .await
        .expect("the column is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_waited_in_vain_says_for_whom_and_changes_nothing() {
    let backend = Backend::servers();
    let app = backend.stock(&[(100, 10)]).await;
    let report = long_report(&app).await;
    let pid = sea_orm::Statement::from_string(DbBackend::Postgres, "SELECT pg_backend_pid()");
    let pid = report.query_one_raw(pid).await.expect("answered").expect("one row");
    let pid: i32 = pid.try_get_by_index(0).expect("a number");

    let refused = change::<NewColumn>(&app, Duration::ZERO).await.expect("runs");
    let problem = refused.expect_err("the report holds the table").to_string();
    assert!(problem.contains(&format!("process {pid} (shop, user")), "{problem}");

    report.rollback().await.expect("over");
    let added = app.db.read().execute_unprepared("SELECT gift_wrap FROM orders").await;
    assert!(added.is_err());
}

/// The command says so on standard error while it waits.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_for_whom_it_waits_and_succeeds_when_they_are_done() {
    let backend = Backend::servers();
    let app = backend.stock(&[]).await;
    let report = long_report(&app).await;

    let mut down = Shop::start(&backend, &["migrate", "down", "--yes"], &[]);
    down.wait_for("waiting for a lock on a table; retrying");
    assert!(down.log().contains("(shop, user"), "{}", down.log());
    report.rollback().await.expect("over");
    assert_eq!(down.exit_code(), Some(0));
}

/// `CREATE INDEX` alone would wait for the transaction that is open, and every writer would wait for `CREATE INDEX`.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_built_while_others_write() {
    let postgres = Postgres::start();
    let mut backend = Backend::servers();
    backend.database_url = postgres.create_database();
    let app = backend.stock(&[(100, 100_000); 2]).await;
    let shop = Shop::serve(&backend);
    let client = shop.client();
    let writer = app.db.write().begin().await.expect("begun");
    let update = "UPDATE products SET updated_at = now() WHERE id = 1";
    writer.execute_unprepared(update).await.expect("written");

    let changing = change::<NewUniqueIndex>(&app, PATIENT);
    eventually("the index waits for the writer", || async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE%CONCURRENTLY%'";
        (postgres.psql(&backend.database_url, waiting) == "1").then_some(())
    })
    .await;
    for _ in 0..3 {
        let restock = json!({ "delta": 1, "reason": "delivery" });
        assert_eq!(client.post("/products/2/stock", &restock).await.status, 200);
    }

    // A second process waits for the first without holding it up.
    let second = change::<NewUniqueIndex>(&app, PATIENT);
    sleep(Duration::from_millis(500)).await;
    writer.commit().await.expect("committed");
    for changing in [changing, second] {
        changing.await.expect("runs").expect("changed");
    }
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'later'::regclass";
    assert_eq!(postgres.psql(&backend.database_url, valid), "t");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_could_not_be_built_is_built_anew(#[values("embedded", "servers")] backend: &str) {
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, 10), (100, 10)]).await;
    let same_name = "UPDATE products SET name = 'product 1'";
    app.db.write().execute_unprepared(same_name).await.expect("renamed");

    let refused = change::<NewUniqueIndex>(&app, PATIENT).await.expect("runs");
    assert!(refused.is_err(), "two products have the same name");

    let other_name = "UPDATE products SET name = 'product 2' WHERE id = 2";
    app.db.write().execute_unprepared(other_name).await.expect("renamed");
    change::<NewUniqueIndex>(&app, PATIENT)
        .await
        .expect("runs")
        .expect("changed");
    let again = app.db.write().execute_unprepared(same_name).await;
    assert!(again.is_err(), "the index is unique");
}
