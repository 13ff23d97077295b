//! Customers who buy while the world around them breaks, and remember every answer that they were given.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use serde_json::{Value, json};
use shop::{
    app::App,
    domain::{Caller, OrderId, orders},
    entities::order::OrderStatus,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Answer, Client};

/// What customers were told.
#[derive(Default)]
pub struct Memory {
    /// The 201 of each order.
    created: HashMap<String, Value>,
    /// The order that an idempotency key stands for.
    keys: HashMap<String, String>,
    /// Orders whose payment was answered 200 or 202.
    accepted: HashSet<String>,
    /// Orders that were said to be PAID or FAILED.
    settled: HashMap<String, String>,
    pub statuses: BTreeMap<u16, usize>,
    /// Requests that ended without an answer.
    pub broken: usize,
    pub longest: Duration,
}

/// The shop as its customers see it: several replicas, of which some may be gone.
pub struct Crowd {
    clients: RwLock<Vec<Client>>,
    memory: Mutex<Memory>,
    products: i64,
    stop: CancellationToken,
}

impl Crowd {
    pub fn new(clients: Vec<Client>, products: i64) -> Self {
        Self {
            clients: RwLock::new(clients),
            memory: Mutex::default(),
            products,
            stop: CancellationToken::new(),
        }
    }

    /// A replica has come back elsewhere.
    pub fn replace(&self, place: usize, client: Client) {
        self.clients.write().unwrap_or_else(PoisonError::into_inner)[place] = client;
    }

    /// What all of them remember, at the end.
    pub fn remembered(&self) -> Memory {
        std::mem::take(&mut self.memory())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets so many customers in. The same seed makes the same choices.
    pub fn let_in(self: &Arc<Self>, count: u64, seed: u64) -> JoinSet<()> {
        let customer = |number| {
            let crowd = Arc::clone(self);
            async move { crowd.customer(seed, number).await }
        };
        (0..count).map(customer).collect()
    }

    /// Sees everybody out. Panics where somebody was lied to.
    pub async fn see_out(&self, customers: JoinSet<()>) {
        self.stop.cancel();
        customers.join_all().await;
    }

    /// Buys one basket after another until told to stop. The same seed makes the same choices.
    async fn customer(&self, seed: u64, number: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number));
        let mut round = 0;
        while !self.stop.is_cancelled() {
            round += 1;
            self.buy(&mut random, &format!("{number}-{round}")).await;
        }
    }

    async fn buy(&self, random: &mut ChaCha8Rng, key: &str) {
        let first = random.random_range(1..=self.products);
        let second = random.random_range(1..=self.products);
        let mut items = vec![json!({ "product_id": first, "quantity": random.random_range(1..=3) })];
        if second != first {
            items.push(json!({ "product_id": second, "quantity": random.random_range(1..=3) }));
        }
        let body = json!({ "user_id": 1, "items": items });
        let (again, declined) = (random.random_bool(0.2), random.random_bool(0.1));
        let (pays, abandoned) = (random.random_range(1..=3), random.random_bool(0.1));
        let Some(id) = self.create(random, key, &body).await else {
            return;
        };
        if again {
            self.create(random, key, &body).await;
        }
        if declined {
            let pay = format!("/orders/{id}/pay");
            let body = json!({ "payment_method": "pm_card_declined" });
            self.send(random, Method::POST, &pay, Some(&body), None).await;
        }
        if abandoned {
            return;
        }
        for _ in 0..pays {
            self.pay(random, &id).await;
        }
        if let Some(answer) = self
            .send(random, Method::GET, &format!("/orders/{id}"), None, None)
            .await
            && answer.status == 200
            && answer.body["status"] != "PENDING"
        {
            self.memory()
                .told_settled(&id, answer.body["status"].as_str().expect("text"));
        }
    }

    /// Until it is answered, a few times.
    async fn create(&self, random: &mut ChaCha8Rng, key: &str, body: &Value) -> Option<String> {
        for _ in 0..20 {
            if let Some(answer) = self.send(random, Method::POST, "/orders", Some(body), Some(key)).await
                && answer.status == 201
            {
                let id = answer.body["order_id"].as_str().expect("an id").to_owned();
                let mut memory = self.memory();
                let known = memory.keys.entry(key.to_owned()).or_insert_with(|| id.clone());
                assert_eq!(*known, id, "one key, one order");
                memory.created.insert(id.clone(), answer.body);
                return Some(id);
            }
            if self.stop.is_cancelled() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }

    async fn pay(&self, random: &mut ChaCha8Rng, id: &str) {
        let Some(answer) = self
            .send(random, Method::POST, &format!("/orders/{id}/pay"), None, None)
            .await
        else {
            return;
        };
        let mut memory = self.memory();
        match answer.status {
            200 => {
                memory.accepted.insert(id.to_owned());
                memory.told_settled(id, "PAID");
            }
            202 => {
                memory.accepted.insert(id.to_owned());
            }
            409 => memory.told_settled(id, "FAILED"),
            _ => {}
        }
    }

    async fn send(
        &self,
        random: &mut ChaCha8Rng,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Option<Answer> {
        let client = {
            let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
            clients[random.random_range(0..clients.len())].clone()
        };
        let mut request = client.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let begun = Instant::now();
        let answer = Answer::if_any(request).await;
        let Ok(answer) = answer.inspect_err(|error| assert!(!error.is_timeout(), "{path}: no answer: {error}")) else {
            self.memory().broken += 1;
            // Gone, or going: not at full speed against a closed port.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return None;
        };
        let mut memory = self.memory();
        memory.longest = memory.longest.max(begun.elapsed());
        *memory.statuses.entry(answer.status).or_default() += 1;
        assert!(
            matches!(answer.status, 200 | 201 | 202 | 402 | 409 | 503),
            "{path}: {answer:?}"
        );
        if answer.status == 503 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert!(answer.header("retry-after").is_some());
        }
        Some(answer)
    }
}

impl Memory {
    fn told_settled(&mut self, id: &str, status: &str) {
        let before = self.settled.insert(id.to_owned(), status.to_owned());
        assert!(
            before.is_none_or(|before| before == status),
            "order {id} was settled twice"
        );
    }

    pub fn orders(&self) -> usize {
        self.created.len()
    }

    pub fn accepted(&self) -> usize {
        self.accepted.len()
    }

    /// Holds every answer against the database: nothing that was said may be untrue.
    pub async fn reconcile(&self, app: &App) -> HashMap<OrderId, OrderStatus> {
        let mut outcomes = HashMap::new();
        for (id, first) in &self.created {
            let id: OrderId = id.parse().expect("an id");
            let order = orders::find(app.db.read(), Caller::Admin, id)
                .await
                .expect("every 201 is there");
            assert_eq!(first["total_price"], order.row.total_price, "{id}");
            assert_eq!(first["items"].as_array().map(Vec::len), Some(order.items.len()), "{id}");
            outcomes.insert(id, order.row.status);
        }
        for id in &self.accepted {
            let id: OrderId = id.parse().expect("an id");
            assert_ne!(outcomes[&id], OrderStatus::Pending, "a 202 that was not settled: {id}");
        }
        for (id, told) in &self.settled {
            let id: OrderId = id.parse().expect("an id");
            let is = format!("{:?}", outcomes[&id]).to_uppercase();
            assert_eq!(*told, is, "{id}");
        }
        outcomes
    }
}
