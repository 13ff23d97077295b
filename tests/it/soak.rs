//! Customers buy while servers and processes are killed, stopped, paused and brought back in an order that chance chose.
//! At the end every answer that anybody saw is held against the database. `SOAK_SECONDS=600` soaks for longer, and
//! `SOAK_SEED` repeats the choices of a run.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lapin::{BasicProperties, Connection, ConnectionProperties, options::BasicPublishOptions};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use shop::entities::order::OrderStatus;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};

use crate::{
    queue::Spy,
    servers::{Postgres, RabbitMq, Redis},
    support::{Backend, Crowd, Shop, all_settled, books},
};

const CUSTOMERS: u64 = 12;
const PRODUCTS: i64 = 8;
const STOCK: i64 = 3_000;
/// How many ways of breaking something there are.
const KINDS: u8 = 9;

struct World {
    backend: Backend,
    postgres: Postgres,
    rabbitmq: Arc<RabbitMq>,
    /// A broker takes seconds to come back; the rest goes on breaking meanwhile.
    restart: Option<JoinHandle<()>>,
    redis: Redis,
    serves: Vec<Shop>,
    works: Vec<Shop>,
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_no_answer_becomes_untrue() {
    let seconds = from_environment("SOAK_SECONDS", 20);
    let seed = from_environment("SOAK_SEED", rand::random());
    eprintln!("SOAK_SECONDS={seconds} SOAK_SEED={seed}");
    let mut world = World::begin();
    let app = world.backend.stock(&[(100, STOCK); 8]).await;
    Spy::begin(&world.backend).await;
    world.serves = (0..2).map(|_| Shop::serve(&world.backend)).collect();
    world.works = (0..2).map(|_| Shop::work(&world.backend)).collect();
    let crowd = Arc::new(Crowd::new(world.serves.iter().map(Shop::client).collect(), PRODUCTS));
    let customers = crowd.let_in(CUSTOMERS, seed);
    // The broker forgets a queue that it is killed right after making.
    sleep(Duration::from_secs(2)).await;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut deck: Vec<u8> = Vec::new();
    while Instant::now() < end {
        if deck.is_empty() {
            deck = (0..KINDS).collect();
            deck.shuffle(&mut random);
        }
        world.shake(deck.pop().unwrap_or(0), &mut random, &crowd).await;
        sleep(Duration::from_millis(random.random_range(100..800))).await;
    }
    if let Some(restart) = world.restart.take() {
        restart.await.expect("the broker is back");
    }
    crowd.see_out(customers).await;
    all_settled(&app).await;
    let memory = crowd.remembered();
    eprintln!(
        "{} orders, {} accepted, answers {:?}, {} connections broken, the longest answer took {:?}",
        memory.orders(),
        memory.accepted(),
        memory.statuses,
        memory.broken,
        memory.longest
    );
    let outcomes = memory.reconcile(&app).await;
    assert!(outcomes.values().any(|status| *status == OrderStatus::Paid));
    let report = books(&app).await;
    assert!(report.is_clean(), "{report:?}");
    // Everyone who is settled has been told of: by what the spy's queue kept while the broker was up and down.
    let mut told: HashMap<String, Value> = HashMap::new();
    for event in Spy::on(&world.backend).await.all().await {
        let id = event["id"].as_str().expect("an id").to_owned();
        let before = told.entry(id).or_insert_with(|| event.clone());
        assert_eq!(before["data"]["order_id"], event["data"]["order_id"]);
        assert_eq!(before["type"], event["type"]);
    }
    for (id, status) in &outcomes {
        let event = told.get(&format!("{id}/settled"));
        match status {
            OrderStatus::Pending => assert!(event.is_none()),
            OrderStatus::Paid => assert_eq!(event.expect("told of")["type"], "order.paid"),
            OrderStatus::Failed => assert_eq!(event.expect("told of")["type"], "order.failed"),
        }
    }
}

impl World {
    fn begin() -> Self {
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

    /// Breaks one thing, and mends it.
    async fn shake(&mut self, kind: u8, random: &mut ChaCha8Rng, crowd: &Crowd) {
        let place = random.random_range(0..2);
        let away = Duration::from_millis(random.random_range(100..1_500));
        match kind {
            0 => {
                eprintln!("kill -9 work {place}");
                self.works[place].kill();
                sleep(away).await;
                self.works[place] = Shop::work(&self.backend);
            }
            1 => {
                eprintln!("kill -9 serve {place}");
                self.serves[place].kill();
                self.serves[place] = Shop::serve(&self.backend);
                crowd.replace(place, self.serves[place].client());
            }
            2 => {
                eprintln!("SIGTERM serve {place}");
                assert!(self.serves[place].terminate().success());
                self.serves[place] = Shop::serve(&self.backend);
                crowd.replace(place, self.serves[place].client());
            }
            3 | 4 => {
                if let Some(restart) = self.restart.take() {
                    restart.await.expect("the broker is back");
                }
                eprintln!("RabbitMQ {}", if kind == 3 { "stops" } else { "is killed" });
                let rabbitmq = Arc::clone(&self.rabbitmq);
                self.restart = Some(spawn_blocking(move || {
                    if kind == 3 {
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
                eprintln!("Redis hangs, is killed, comes back");
                self.redis.pause();
                sleep(away).await;
                self.redis.resume();
                self.redis.kill();
                self.redis.start_again();
            }
            _ => {
                eprintln!("junk");
                self.junk().await;
            }
        }
    }

    async fn junk(&self) {
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
            // It may be on its way out.
            let _ = publish.await;
        }
        let _ = connection.close(200, "bye".into()).await;
    }
}
