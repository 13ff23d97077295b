//! A back end for one test: a database, queue names and a key prefix that no other test has.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use sea_orm::{ConnectionTrait as _, Statement};
use shop::{
    app::{self, App},
    config::{Config, Overrides},
    db::{
        DatabaseIdentity,
        schema::Change,
        sql::{Column, sql},
    },
    domain::{
        Caller, Error, OrderId,
        catalog::{self, NewProduct},
        ledger::{self, MAX_AGE, Report},
        orders::{self, Labels, Line, NewOrder, Payment},
    },
    entities::Timestamp,
    queue::SettleRequest,
    telemetry::traces::new_traceparent,
};
use uuid::Uuid;

use super::eventually;
use crate::servers::{self, run::run};

#[derive(Clone)]
pub struct Backend {
    pub database_url: String,
    pub queue_url: String,
    pub cache_url: String,
    pub prefix: String,
    pub folder: PathBuf,
}

impl Backend {
    /// SQLite, and queue and cache inside the process.
    pub fn embedded() -> Self {
        let (prefix, folder) = own_folder();
        Self {
            database_url: format!("sqlite://{}/shop.db?mode=rwc", folder.display()),
            queue_url: "memory:".to_owned(),
            cache_url: "memory:".to_owned(),
            prefix,
            folder,
        }
    }

    /// PostgreSQL, RabbitMQ and Redis: servers that all tests share, with a database, queues and keys of its own.
    pub fn servers() -> Self {
        let (prefix, folder) = own_folder();
        let servers = servers::shared();
        Self {
            database_url: servers.postgres.create_database(),
            queue_url: servers.rabbitmq.url(),
            cache_url: servers.redis.url(),
            prefix,
            folder,
        }
    }

    pub fn named(name: &str) -> Self {
        match name {
            "embedded" => Self::embedded(),
            "servers" => Self::servers(),
            other => panic!("unknown back end {other}"),
        }
    }

    pub fn is_embedded(&self) -> bool {
        self.queue_url.starts_with("memory:")
    }

    /// As environment for the program.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SHOP_DATABASE_URL", self.database_url.clone()),
            ("SHOP_QUEUE_URL", self.queue_url.clone()),
            ("SHOP_CACHE_URL", self.cache_url.clone()),
            ("SHOP_QUEUE_PREFIX", self.prefix.clone()),
            ("SHOP_CACHE_PREFIX", self.prefix.clone()),
            ("SHOP_BIND", "127.0.0.1:0".to_owned()),
            ("SHOP_MANAGEMENT_BIND", "127.0.0.1:0".to_owned()),
            ("SHOP_LOG_FORMAT", "json".to_owned()),
        ]
    }

    pub fn config(&self) -> Config {
        let flags = [
            ("database_url", &self.database_url),
            ("queue_url", &self.queue_url),
            ("cache_url", &self.cache_url),
            ("queue_prefix", &self.prefix),
            ("cache_prefix", &self.prefix),
        ];
        Config::load(&Overrides {
            file: None,
            flags: flags.into_iter().map(|(key, value)| (key, value.clone())).collect(),
        })
        .expect("a valid configuration")
    }

    /// The application inside the test process, on an up-to-date schema.
    pub async fn app(&self) -> App {
        let app = App::connect(self.config()).await.expect("the back end is up");
        app::migrate(&app.db, &app.config, Change::Up).await.expect("migrates");
        app
    }

    /// Fills the catalogue with products `(price, stock)`; their ids count from 1 in an empty one.
    pub async fn stock(&self, products: &[(i64, i64)]) -> App {
        let app = self.app().await;
        let products: Vec<NewProduct> = (1..)
            .zip(products)
            .map(|(number, (price, stock))| NewProduct {
                name: format!("product {number}"),
                sku: None,
                active: true,
                price: *price,
                stock: *stock,
            })
            .collect();
        let products = &products;
        let added = app
            .db
            .transaction(|txn| async move { catalog::add_missing(&txn, Timestamp::now(), products).await })
            .await;
        assert_eq!(added.expect("products can be added"), products.len());
        app
    }
}

/// The identity of a database that is known by this name alone.
pub fn identity(name: &str) -> DatabaseIdentity {
    DatabaseIdentity {
        database: name.to_owned(),
        incarnation: format!("{name}.1"),
    }
}

/// A new order of these products and quantities, without a hold or a key.
pub fn new_order(lines: &[(i64, i64)]) -> NewOrder {
    let line = |(product_id, quantity): &(i64, i64)| Line {
        product_id: *product_id,
        quantity: *quantity,
    };
    NewOrder {
        id: Uuid::now_v7(),
        user_id: 7,
        lines: lines.iter().map(line).collect(),
        currency: "USD".to_owned(),
        idempotency_key: None,
        hold: None,
        labels: Labels::default(),
        created_at: Timestamp::now(),
    }
}

/// Orders of `lines` whose payment has been accepted, with no settle request published yet.
pub async fn accepted(app: &App, count: usize, lines: impl Fn(usize) -> Vec<(i64, i64)>) -> Vec<OrderId> {
    const AT_ONCE: usize = 500;
    let new: Vec<NewOrder> = (0..count).map(|number| new_order(&lines(number))).collect();

    for batch in new.chunks(AT_ONCE) {
        let ids: Vec<Payment> = batch.iter().map(|order| (Caller::Admin, order.id).into()).collect();
        let ids = &ids;
        let written = app.db.transaction(|txn| async move {
            orders::create(&txn, batch).await?;
            orders::accept_payments(&txn, Timestamp::now(), ids).await
        });

        let answers: Vec<Result<_, Error>> = written.await.expect("written");
        assert!(answers.iter().all(Result::is_ok));
    }

    new.iter().map(|order| order.id).collect()
}

/// An order of one unit of product 1 whose units are set aside, for a shorter time than the API allows. `None` while the
/// database is away.
pub async fn with_hold(app: &App, hold: Duration) -> Option<OrderId> {
    let order = NewOrder {
        hold: Some(hold),
        ..new_order(&[(1, 1)])
    };
    let id = order.id;
    let made = app
        .db
        .transaction(|txn| {
            let order = order.clone();
            async move { orders::create(&txn, &[order]).await }
        })
        .await;
    let made: Result<Vec<Result<_, Error>>, Error> = made;
    made.ok()?.iter().all(Result::is_ok).then_some(id)
}

/// Publishes a settle request for each order, as after an accepted payment.
pub async fn publish(app: &App, orders: &[OrderId]) {
    let requests: Vec<SettleRequest> = orders
        .iter()
        .map(|order_id| SettleRequest {
            order_id: *order_id,
            traceparent: new_traceparent(),
        })
        .collect();
    app.queue.publish_settle_requests(&requests).await.expect("published");
}

/// Moves the end of the holds of these orders, of all PENDING ones if there are none. The API takes 30 seconds at least.
pub async fn end_holds(app: &App, at: Timestamp, orders: &[OrderId]) {
    let statement = if orders.is_empty() {
        sql("UPDATE orders SET expires_at = :at WHERE status = 'PENDING' AND expires_at IS NOT NULL")
    } else {
        sql("UPDATE orders SET expires_at = :at WHERE id = ANY(:ids)").list("ids", Column::Uuid(orders.to_vec()))
    };
    let moved = statement.timestamp("at", at).execute(app.db.write()).await;
    assert!(moved.expect("moved") > 0, "there is no such hold");
}

/// Past for every process, whichever clock it goes by, and however long ago it was set.
pub fn a_minute_ago() -> Timestamp {
    Timestamp::now().minus(Duration::from_secs(60))
}

/// Stock, and the units of it that are on hold.
pub async fn level_of(app: &App, product: i64) -> (i64, i64) {
    let product = catalog::find(app.db.read(), product).await.expect("it exists");
    (product.stock, product.held)
}

/// The result of the ledger check, as `shop verify` prints it.
pub async fn ledger_report(app: &App) -> Report {
    let report: Result<Report, Error> = app
        .db
        .report(None, |txn| async move {
            ledger::check(&*txn, Timestamp::now(), MAX_AGE).await
        })
        .await;
    report.expect("the ledger can be read")
}

/// How many orders have this status.
pub async fn count(app: &App, status: &str) -> i64 {
    let select = format!("SELECT COUNT(*) FROM orders WHERE status = '{status}'");
    let counted = app
        .db
        .read()
        .query_one_raw(Statement::from_string(app.db.read().get_database_backend(), select));
    let row = counted.await.expect("counted").expect("one row");
    row.try_get_by_index(0).expect("a number")
}

/// Waits until nothing that was accepted is PENDING any more.
pub async fn all_settled(app: &App) {
    let backend = app.db.read().get_database_backend();
    let waiting = "SELECT COUNT(*) FROM orders WHERE settled_at IS NULL AND accepted_at IS NOT NULL";

    eventually("all that was accepted is settled", || async {
        let row = app
            .db
            .read()
            .query_one_raw(Statement::from_string(backend, waiting))
            .await
            .ok()??;
        (row.try_get_by_index::<i64>(0).ok()? == 0).then_some(())
    })
    .await;
}

fn own_folder() -> (String, PathBuf) {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let (_, folder) = run().new_folder("shop");
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    (format!("test-{}-{number}", std::process::id()), folder)
}
