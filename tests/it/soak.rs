//! Customers buy while servers and processes are killed, stopped, paused and restarted in random order. At the end every
//! answer that a customer got is compared with the database. `SOAK_SECONDS=600` runs for longer, and `SOAK_SEED` repeats
//! the choices of a run.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lapin::{BasicProperties, Connection, ConnectionProperties, options::BasicPublishOptions};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use shop::{
    app::App,
    domain::{OrderId, orders::is_any_expired},
    entities::{Timestamp, order::OrderStatus},
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};

use crate::{
    history::{self, HoldEnds},
    servers::{Postgres, RabbitMq, Redis},
    support::{Backend, Crowd, EventListener, Shop, accepted, all_settled, eventually, ledger_report, with_hold},
};

const CUSTOMERS: u64 = 12;
const PRODUCTS: i64 = 8;
/// Units of each product for every second, too few for everybody.
const STOCK_A_SECOND: u64 = 20;
/// The number of faults that [`World::inject`] knows.
const FAULTS: u8 = 9;

struct World {
    backend: Backend,
    postgres: Postgres,
    rabbitmq: Arc<RabbitMq>,
    /// A broker takes seconds to restart; other faults happen meanwhile.
    restart: Option<JoinHandle<()>>,
    redis: Redis,
    serves: Vec<Shop>,
    works: Vec<Shop>,
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_every_answer_stays_true() {
    let seconds = from_environment("SOAK_SECONDS", 20);
    let seed = from_environment("SOAK_SEED", rand::random());
    eprintln!("SOAK_SECONDS={seconds} SOAK_SEED={seed}");

    let mut world = World::start();
    let stock = i64::try_from(STOCK_A_SECOND * seconds).expect("few");
    let app = world.backend.stock(&[(100, stock); 8]).await;
    history::record(&app).await;
    EventListener::declare(&world.backend).await;
    world.serves = (0..2).map(|_| Shop::serve(&world.backend)).collect();
    world.works = (0..2).map(|_| Shop::work(&world.backend)).collect();
    let crowd = Arc::new(Crowd::new(world.serves.iter().map(Shop::client).collect(), PRODUCTS));
    let customers = crowd.start(CUSTOMERS, seed);
    let holds = tokio::spawn(make_short_holds(app.clone()));
    // A broker that is killed right after the declaration of a queue loses it.
    sleep(Duration::from_secs(2)).await;

    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut faults: Vec<u8> = Vec::new();
    while Instant::now() < end {
        if faults.is_empty() {
            faults = (0..FAULTS).collect();
            faults.shuffle(&mut random);
        }
        world.inject(faults.pop().unwrap_or(0), &mut random, &crowd).await;
        sleep(Duration::from_millis(random.random_range(100..800))).await;
    }

    if let Some(restart) = world.restart.take() {
        restart.await.expect("the broker has restarted");
    }
    crowd.stop(customers).await;
    holds.abort();
    // On a slow machine too few units are sold for an order to lack any.
    accepted(&app, 1, |_| vec![(1, 10_000)]).await;
    all_settled(&app).await;
    all_expired(&app).await;

    let record = crowd.take_record();
    eprintln!(
        "{} orders, {} accepted, answers {:?}, {} connections broken, the longest answer took {:?}",
        record.orders(),
        record.accepted(),
        record.statuses,
        record.broken,
        record.longest
    );
    let outcomes = record.reconcile(&app).await;
    assert!(outcomes.values().any(|status| *status == OrderStatus::Paid));
    let report = ledger_report(&app).await;
    assert!(report.is_clean(), "{report:?}");
    assert_events(&world.backend, &outcomes).await;

    let steps = history::assert_steps(&app, HoldEnds::AsMade).await;
    for step in ["made", "accepted", "paid", "insufficient_stock", "cancelled", "expired"] {
        assert!(steps.contains_key(step), "no order was {step}: {steps:?}");
    }
}

/// Makes orders that nobody pays and whose hold ends soon, until it is aborted.
async fn make_short_holds(app: App) {
    loop {
        with_hold(&app, Duration::from_millis(500)).await;
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until no hold that is past is open.
async fn all_expired(app: &App) {
    eventually("all holds that are past are released", || async {
        let any_expired = is_any_expired(app.db.read(), Timestamp::now()).await;
        (!any_expired.ok()?).then_some(())
    })
    .await;
}

/// Asserts that every settled order has its event, also those that were settled while the broker was away.
async fn assert_events(backend: &Backend, outcomes: &HashMap<OrderId, OrderStatus>) {
    let mut published: HashMap<String, Value> = HashMap::new();
    for event in EventListener::on(backend).await.all().await {
        let id = event["id"].as_str().expect("an id").to_owned();
        let before = published.entry(id).or_insert_with(|| event.clone());
        assert_eq!(before["data"]["order_id"], event["data"]["order_id"]);
        assert_eq!(before["type"], event["type"]);
    }

    for (id, status) in outcomes {
        let event = published.get(&format!("{id}/settled"));
        match status {
            OrderStatus::Pending | OrderStatus::Other(_) => assert!(event.is_none()),
            OrderStatus::Paid => assert_eq!(event.expect("an event")["type"], "order.paid"),
            OrderStatus::Failed => assert_eq!(event.expect("an event")["type"], "order.failed"),
        }
    }
}

impl World {
    fn start() -> Self {
        let (postgres, rabbitmq, redis) = (Postgres::start(), RabbitMq::start(), Redis::start());
        let mut backend = Backend::servers();
        backend.database_url = postgres.create_database();
        backend.queue_url = rabbitmq.url();
        backend.cache_url = redis.url();

        Self {
            backend,
            postgres,
            rabbitmq: Arc::new(rabbitmq),
            restart: None,
            redis,
            serves: Vec::new(),
            works: Vec::new(),
        }
    }

    /// Makes one part fail, and brings it back.
    async fn inject(&mut self, fault: u8, random: &mut ChaCha8Rng, crowd: &Crowd) {
        let replica = random.random_range(0..2);
        let away = Duration::from_millis(random.random_range(100..1_500));

        match fault {
            0 => {
                eprintln!("kill -9 work {replica}");
                self.works[replica].kill();
                sleep(away).await;
                self.works[replica] = Shop::work(&self.backend);
            }
            1 => {
                eprintln!("kill -9 serve {replica}");
                self.serves[replica].kill();
                self.serves[replica] = Shop::serve(&self.backend);
                crowd.replace(replica, self.serves[replica].client());
            }
            2 => {
                eprintln!("SIGTERM serve {replica}");
                assert!(self.serves[replica].terminate().success());
                self.serves[replica] = Shop::serve(&self.backend);
                crowd.replace(replica, self.serves[replica].client());
            }
            3 | 4 => {
                if let Some(restart) = self.restart.take() {
                    restart.await.expect("the broker has restarted");
                }
                eprintln!("RabbitMQ {}", if fault == 3 { "stops" } else { "is killed" });
                let rabbitmq = Arc::clone(&self.rabbitmq);
                self.restart = Some(spawn_blocking(move || {
                    if fault == 3 {
                        rabbitmq.stop();
                    } else {
                        rabbitmq.kill();
                    }
                    rabbitmq.start_again();
                }));
            }
            5 => {
                eprintln!("PostgreSQL is killed");
                self.postgres.kill();
                sleep(away).await;
                self.postgres.start_again();
            }
            6 => {
                eprintln!("PostgreSQL hangs for {away:?}");
                self.postgres.pause();
                sleep(away).await;
                self.postgres.resume();
            }
            7 => {
                eprintln!("Redis hangs, is killed, restarts");
                self.redis.pause();
                sleep(away).await;
                self.redis.resume();
                self.redis.kill();
                self.redis.start_again();
            }
            _ => {
                eprintln!("junk");
                self.publish_junk().await;
            }
        }
    }

    /// Messages that are dead-lettered, if the broker is there to take them.
    async fn publish_junk(&self) {
        let connection = Connection::connect(&self.backend.queue_url, ConnectionProperties::default());
        let Ok(connection) = connection.await else { return };
        let Ok(channel) = connection.create_channel().await else {
            return;
        };

        for body in [
            "",
            "{}",
            "\u{0}",
            "{\"order_id\":\"0190b0a0-0000-7000-8000-000000000000\"}",
        ] {
            let exchange = format!("{}.orders", self.backend.prefix);
            let publish = channel.basic_publish(
                exchange.into(),
                "settle".into(),
                BasicPublishOptions::default(),
                body.as_bytes(),
                BasicProperties::default(),
            );
            // The broker may be stopping.
            let _ = publish.await;
        }
        let _ = connection.close(200, "bye".into()).await;
    }
}
