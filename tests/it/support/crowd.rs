//! Customers who buy while servers fail, and record every answer that they get.

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

/// The longest hold that there is: none ends while the outcome of a long test is read.
const HOLD_SECONDS: u32 = 3_600;

/// The answers that customers got.
#[derive(Default)]
pub struct Record {
    /// The 201 of each order.
    created: HashMap<String, Value>,
    /// The order that an idempotency key stands for.
    keys: HashMap<String, String>,
    /// Orders whose payment was answered 200 or 202.
    accepted: HashSet<String>,
    /// Orders that were answered as PAID or FAILED, with that status.
    settled: HashMap<String, String>,
    pub statuses: BTreeMap<u16, usize>,
    /// Requests that ended without an answer.
    pub broken: usize,
    pub longest: Duration,
}

/// The shop as its customers see it: several replicas, of which some may be gone.
pub struct Crowd {
    clients: RwLock<Vec<Client>>,
    record: Mutex<Record>,
    products: i64,
    stop: CancellationToken,
}

impl Crowd {
    pub fn new(clients: Vec<Client>, products: i64) -> Self {
        Self {
            clients: RwLock::new(clients),
            record: Mutex::default(),
            products,
            stop: CancellationToken::new(),
        }
    }

    /// Puts a client in the place of one whose replica has another address now.
    pub fn replace(&self, index: usize, client: Client) {
        self.clients.write().unwrap_or_else(PoisonError::into_inner)[index] = client;
    }

    /// Takes what was recorded, at the end.
    pub fn take_record(&self) -> Record {
        std::mem::take(&mut self.record())
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `count` customers. The same seed makes the same choices.
    pub fn start(self: &Arc<Self>, count: u64, seed: u64) -> JoinSet<()> {
        let customer = |number| {
            let crowd = Arc::clone(self);
            async move { crowd.customer(seed, number).await }
        };
        (0..count).map(customer).collect()
    }

    /// Stops all customers. Panics if one of them got a wrong answer.
    pub async fn stop(&self, customers: JoinSet<()>) {
        self.stop.cancel();
        customers.join_all().await;
    }

    /// Buys one basket after another until [`Crowd::stop`]. The same seed makes the same choices.
    async fn customer(&self, seed: u64, number: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number));

        let mut round = 0;
        while !self.stop.is_cancelled() {
            round += 1;
            self.buy(&mut random, &format!("{number}-{round}")).await;
        }
    }

    /// Creates an order, perhaps twice and with a hold, pays it up to three times or never, perhaps cancels it before or
    /// after, and looks at the outcome.
    async fn buy(&self, random: &mut ChaCha8Rng, key: &str) {
        let first = random.random_range(1..=self.products);
        let second = random.random_range(1..=self.products);
        let mut items = vec![json!({ "product_id": first, "quantity": random.random_range(1..=3) })];
        if second != first {
            items.push(json!({ "product_id": second, "quantity": random.random_range(1..=3) }));
        }

        let mut body = json!({ "user_id": 1, "items": items });
        if random.random_bool(0.3) {
            body["hold_seconds"] = json!(HOLD_SECONDS);
        }
        let (again, declined) = (random.random_bool(0.2), random.random_bool(0.1));
        let (pays, abandoned) = (random.random_range(1..=3), random.random_bool(0.1));
        let (cancelled_before, cancelled_after) = (random.random_bool(0.05), random.random_bool(0.05));

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

        if cancelled_before {
            self.cancel(random, &id).await;
        }
        for _ in 0..pays {
            self.pay(random, &id).await;
        }
        if cancelled_after {
            self.cancel(random, &id).await;
        }

        if let Some(answer) = self
            .send(random, Method::GET, &format!("/orders/{id}"), None, None)
            .await
            && answer.status == 200
            && answer.body["status"] != "PENDING"
        {
            self.record()
                .record_settled(&id, answer.body["status"].as_str().expect("text"));
        }
    }

    /// Tries again until it is answered, 20 times at most.
    async fn create(&self, random: &mut ChaCha8Rng, key: &str, body: &Value) -> Option<String> {
        for _ in 0..20 {
            let answer = self.send(random, Method::POST, "/orders", Some(body), Some(key)).await;
            if let Some(answer) = &answer
                && answer.status == 201
            {
                let id = answer.body["order_id"].as_str().expect("an id").to_owned();
                let mut record = self.record();
                let known = record.keys.entry(key.to_owned()).or_insert_with(|| id.clone());
                assert_eq!(*known, id, "one key, one order");
                record.created.insert(id.clone(), answer.body.clone());
                return Some(id);
            }
            if answer.is_some_and(|answer| answer.status == 409) || self.stop.is_cancelled() {
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

        let mut record = self.record();
        match answer.status {
            200 => {
                record.accepted.insert(id.to_owned());
                record.record_settled(id, "PAID");
            }
            202 => {
                record.accepted.insert(id.to_owned());
            }
            409 => record.record_settled(id, "FAILED"),
            _ => {}
        }
    }

    async fn cancel(&self, random: &mut ChaCha8Rng, id: &str) {
        let path = format!("/orders/{id}/cancel");
        let Some(answer) = self.send(random, Method::POST, &path, None, None).await else {
            return;
        };

        let mut record = self.record();
        match (answer.status, answer.body["type"].as_str().unwrap_or_default()) {
            (200 | 202, _) | (409, "urn:shop:problem:order-failed") => record.record_settled(id, "FAILED"),
            (409, "urn:shop:problem:order-paid") => record.record_settled(id, "PAID"),
            (409, "urn:shop:problem:payment-accepted") => drop(record.accepted.insert(id.to_owned())),
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

        let started = Instant::now();
        let answer = Answer::if_any(request).await;

        let Ok(answer) = answer.inspect_err(|error| assert!(!error.is_timeout(), "{path}: no answer: {error}")) else {
            self.record().broken += 1;
            // The server is down or going down: do not retry at full speed.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return None;
        };

        let mut record = self.record();
        record.longest = record.longest.max(started.elapsed());
        *record.statuses.entry(answer.status).or_default() += 1;

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

impl Record {
    fn record_settled(&mut self, id: &str, status: &str) {
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

    /// Compares every answer with the database: each must still be true.
    pub async fn reconcile(&self, app: &App) -> HashMap<OrderId, OrderStatus> {
        let mut outcomes = HashMap::new();
        for (id, first) in &self.created {
            let id: OrderId = id.parse().expect("an id");
            let order = orders::find(app.db.read(), Caller::Admin, id)
                .await
                .expect("every order that was answered 201 exists");
            assert_eq!(first["total_price"], order.row.total_price, "{id}");
            assert_eq!(first["items"].as_array().map(Vec::len), Some(order.items.len()), "{id}");
            outcomes.insert(id, order.row.status);
        }

        for id in &self.accepted {
            let id: OrderId = id.parse().expect("an id");
            assert_ne!(outcomes[&id], OrderStatus::Pending, "a 202 that was not settled: {id}");
        }

        for (id, answered) in &self.settled {
            let id: OrderId = id.parse().expect("an id");
            let stored = format!("{:?}", outcomes[&id]).to_uppercase();
            assert_eq!(*answered, stored, "{id}");
        }

        outcomes
    }
}
