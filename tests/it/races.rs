//! Paying, cancelling and expiry race for the same orders at the same moment, while processes die between any two steps. Of
//! the three exactly one wins, and every answer that anybody got stays true. `RACE_ORDERS=20000` runs more of it, and
//! `RACE_SEED` repeats the choices of a run.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use reqwest::Method;
use rstest::rstest;
use serde_json::Value;
use shop::{
    app::App,
    domain::{Caller, OrderId, orders},
    entities::{
        Timestamp,
        order::{FailureReason, OrderStatus},
    },
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    history::{self, HoldEnds},
    support::{
        Answer, Backend, Client, EventListener, Shop, all_settled, count, end_holds, eventually, ledger_report,
        level_of,
    },
};

const PRODUCTS: i64 = 3;
const STOCK: i64 = 1_000_000;
/// Holds end in groups of so many, one after another.
const GROUP: usize = 50;
const GROUP_INTERVAL: Duration = Duration::from_millis(150);
/// Requests are sent so long before or after the hold ends.
const AROUND: Duration = Duration::from_millis(60);

/// Where the processes of a role die, one after another.
const SERVE_DIES: [&str; 3] = ["accepted:15", "cancelled:6", "published:12"];
const WORK_DIES: [&str; 5] = [
    "expired:2",
    "relayed:2",
    "settled:4",
    "delivered:5",
    "eventspublished:3",
];
const EMBEDDED_DIES: [&str; 5] = ["expired:2", "cancelled:4", "accepted:9", "settled:6", "relayed:2"];

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// What is asked of an order, and what was answered.
struct Outcome {
    order: OrderId,
    cancels: bool,
    answer: Answer,
}

/// Replicas, of which one after another dies and is started again.
struct Replicas {
    clients: Arc<RwLock<Vec<Client>>>,
    stop: CancellationToken,
    dying: Vec<JoinHandle<Shop>>,
}

impl Replicas {
    /// `roles` are the process of each replica, and where it dies; those that die nowhere go on.
    fn start(backend: &Backend, roles: &[(&'static str, &'static [&'static str])]) -> Self {
        let (clients, stop) = (Arc::new(RwLock::new(Vec::new())), CancellationToken::new());
        let mut dying = Vec::new();
        for (role, points) in roles {
            let first = doomed(backend, role, points, 0);
            let place = (*role == "serve").then(|| {
                let mut clients = clients.write().expect("not poisoned");
                clients.push(first.client());
                clients.len() - 1
            });

            let (backend, role, points) = (backend.clone(), *role, *points);
            let (clients, stop) = (Arc::clone(&clients), stop.clone());
            dying.push(tokio::spawn(async move {
                let (mut process, mut deaths) = (first, 0);
                while !stop.is_cancelled() {
                    sleep(Duration::from_millis(20)).await;
                    if !process.has_ended() {
                        continue;
                    }
                    deaths += 1;
                    process = tokio::task::block_in_place(|| doomed(&backend, role, points, deaths));
                    if let Some(place) = place {
                        clients.write().expect("not poisoned")[place] = process.client();
                    }
                }
                eprintln!("{role} has died {deaths} times");
                process
            }));
        }
        Self { clients, stop, dying }
    }

    fn client(&self, number: usize) -> Client {
        let clients = self.clients.read().expect("not poisoned");
        clients[number % clients.len()].clone()
    }

    /// Kills what still runs.
    async fn end(self) {
        self.stop.cancel();
        for dying in self.dying {
            drop(dying.await.expect("it ends"));
        }
    }
}

fn doomed(backend: &Backend, role: &str, points: &[&str], deaths: usize) -> Shop {
    let mut environment = vec![("SHOP_BATCH_MAX", "20")];
    if !points.is_empty() {
        environment.push(("FAILPOINT", points[deaths % points.len()]));
    }
    let shop = Shop::start(backend, &[role], &environment);
    shop.wait_for(if role == "serve" { "serving" } else { "working" });
    shop
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_pay_cancel_and_expiry_one_wins_and_no_answer_is_contradicted(
    #[values("embedded", "servers")] backend: &str,
) {
    let (orders, seed) = (
        from_environment("RACE_ORDERS", 1_000),
        from_environment("RACE_SEED", rand::random()),
    );
    eprintln!("RACE_ORDERS={orders} RACE_SEED={seed}");
    let backend = Backend::named(backend);
    let app = backend.stock(&[(100, STOCK); 3]).await;
    history::record(&app).await;
    let roles: &[(&str, &[&str])] = if backend.is_embedded() {
        &[("serve", &EMBEDDED_DIES)]
    } else {
        EventListener::declare(&backend).await;
        &[
            ("serve", &[]),
            ("serve", &SERVE_DIES),
            ("work", &WORK_DIES),
            ("work", &WORK_DIES),
        ]
    };
    let maker = Shop::serve(&backend);
    let orders = make_orders(&maker.client(), orders).await;
    drop(maker);

    let replicas = Replicas::start(&backend, roles);
    let outcomes = race(&app, &replicas, &orders, seed).await;
    replicas.end().await;

    let _serve = Shop::serve(&backend);
    let _works = Shop::workers(&backend, 1);
    all_settled(&app).await;
    eventually("no order is open any more", || async {
        (count(&app, "PENDING").await == 0).then_some(())
    })
    .await;
    eventually("the outbox is empty", || async {
        let left = shop::domain::outbox::len(app.db.read()).await.expect("counted");
        (left == 0).then_some(())
    })
    .await;

    history::assert_steps(&app, HoldEnds::MovedByTheTest).await;
    let states = states_of(&app, &orders).await;
    for outcome in &outcomes {
        assert_true(outcome, states[&outcome.order]);
    }
    let report = ledger_report(&app).await;
    assert!(report.is_clean(), "{report:?}");
    for product in 1..=PRODUCTS {
        assert_eq!(level_of(&app, product).await.1, 0, "units are still on hold");
    }
    if !backend.is_embedded() {
        assert_events(&backend, &states).await;
    }
    eprintln!("{:?}", tally(&states));
}

/// Three of four with a hold, over few products, so that they meet there as well.
async fn make_orders(client: &Client, count: u64) -> Vec<(OrderId, bool)> {
    let make = |number: u64| async move {
        let product = i64::try_from(number).expect("few") % PRODUCTS + 1;
        let lines = [(product, 2), (product % PRODUCTS + 1, 1)];
        let has_hold = !number.is_multiple_of(4);
        let id = if has_hold {
            client.held_order(&lines).await
        } else {
            client.order(&lines).await
        };
        (id.parse().expect("an id"), has_hold)
    };
    stream::iter(0..count).map(make).buffered(64).collect().await
}

/// Pays every order twice and cancels every second one, all at about the moment at which its hold ends.
async fn race(app: &App, replicas: &Replicas, orders: &[(OrderId, bool)], seed: u64) -> Vec<Outcome> {
    let (begin, begins) = (
        Instant::now() + GROUP_INTERVAL * 4,
        Timestamp::now().plus(GROUP_INTERVAL * 4),
    );
    for (group, members) in orders.chunks(GROUP).enumerate() {
        let held: Vec<OrderId> = members
            .iter()
            .filter(|(_, has_hold)| *has_hold)
            .map(|(id, _)| *id)
            .collect();
        let after = GROUP_INTERVAL * u32::try_from(group).expect("few");
        end_holds(app, begins.plus(after), &held).await;
    }

    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut requests = Vec::new();
    for (group, members) in orders.chunks(GROUP).enumerate() {
        let ends = begin + GROUP_INTERVAL * u32::try_from(group).expect("few");
        for (number, (order, _)) in members.iter().enumerate() {
            for cancels in [false, false, true].into_iter().take(2 + number % 2) {
                let at = ends - AROUND + AROUND * random.random_range(0..200) / 100;
                requests.push((*order, cancels, at, random.random_range(0..100)));
            }
        }
    }

    let ask = |(order, cancels, at, replica): (OrderId, bool, Instant, usize)| async move {
        sleep_until(at).await;
        let answer = until_answered(replicas, order, cancels, replica).await;
        Outcome { order, cancels, answer }
    };
    // All of them at once: each has its own moment.
    let together = requests.len();
    stream::iter(requests)
        .map(ask)
        .buffer_unordered(together)
        .collect()
        .await
}

/// Asks again while the process that was asked is dead, or too busy.
async fn until_answered(replicas: &Replicas, order: OrderId, cancels: bool, replica: usize) -> Answer {
    let path = format!("/orders/{order}/{}", if cancels { "cancel" } else { "pay" });
    for attempt in replica.. {
        let request = replicas.client(attempt).request(Method::POST, &path);
        match Answer::if_any(request).await {
            Ok(answer) if answer.status != 503 => return answer,
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
    unreachable!("there is always another attempt")
}

type State = (OrderStatus, Option<FailureReason>);

async fn states_of(app: &App, orders: &[(OrderId, bool)]) -> HashMap<OrderId, State> {
    let mut states = HashMap::new();
    for (id, _) in orders {
        let row = orders::find(app.db.read(), Caller::Admin, *id)
            .await
            .expect("found")
            .row;
        states.insert(*id, (row.status, row.failure.and_then(|failure| failure.reason())));
    }
    states
}

/// Asserts that what was answered is still so.
fn assert_true(outcome: &Outcome, state: State) {
    let answer = &outcome.answer;
    let reason = match answer.body["failure"]["reason"].as_str() {
        Some("cancelled") => Some(FailureReason::Cancelled),
        Some("expired") => Some(FailureReason::Expired),
        Some(other) => panic!("there was enough of everything: {other}"),
        None => None,
    };
    let problem = answer.body["type"].as_str().unwrap_or_default();

    let expected = match (outcome.cancels, answer.status, problem) {
        (true, 200 | 202, _) => (OrderStatus::Failed, Some(FailureReason::Cancelled)),
        (false, 200 | 202, _) | (true, 409, "urn:shop:problem:payment-accepted" | "urn:shop:problem:order-paid") => {
            (OrderStatus::Paid, None)
        }
        (_, 409, "urn:shop:problem:order-failed") => (OrderStatus::Failed, reason),
        _ => panic!("{answer:?}"),
    };
    assert_eq!(state, expected, "{}: {answer:?}", outcome.order);
}

/// Asserts that every order has one event that tells its outcome, however often it was published.
async fn assert_events(backend: &Backend, states: &HashMap<OrderId, State>) {
    let mut published: HashMap<String, Value> = HashMap::new();
    for event in EventListener::on(backend).await.all().await {
        let subject = event["subject"].as_str().expect("a subject").to_owned();
        let before = published.entry(subject).or_insert_with(|| event.clone());
        assert_eq!(before, &event, "one order, one event");
    }

    assert_eq!(published.len(), states.len());
    for (id, (status, reason)) in states {
        let event = &published[&id.to_string()];
        let kind = if *status == OrderStatus::Paid {
            "order.paid"
        } else {
            "order.failed"
        };
        assert_eq!(event["type"], kind, "{id}");
        assert_eq!(
            event["data"]["failure"]["reason"].as_str(),
            reason.map(FailureReason::as_str),
            "{id}"
        );
    }
}

fn tally(states: &HashMap<OrderId, State>) -> HashMap<String, usize> {
    let mut tally = HashMap::new();
    for (status, reason) in states.values() {
        let outcome = reason.map_or_else(|| format!("{status:?}"), |reason| reason.as_str().to_owned());
        *tally.entry(outcome).or_default() += 1;
    }
    tally
}
