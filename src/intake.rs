//! Where requests that write wait for their batch, and where accepted orders leave for the queue.

use std::{collections::HashSet, sync::Arc, time::Duration};

use metrics::{counter, histogram};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::Span;

use crate::{
    app::App,
    batch::{Answers, Batcher, Limits},
    domain::{
        Caller, Error, OrderId,
        orders::{self, Created, NewOrder, Order},
    },
    entities::{Timestamp, order::OrderStatus},
    failpoints::{self, Failpoint},
    queue::{Queue, QueueError, SettleRequest, new_traceparent},
    telemetry::{
        metrics::{BATCH_SIZE, ORDERS_CREATED, PAYMENTS_ACCEPTED},
        traces,
    },
};

/// The most that a batch may take; a database that is slower counts as away.
const BATCH_TIMEOUT: Duration = Duration::from_millis(1_800);
/// The longest that a request waits for its batch. With [`BATCH_TIMEOUT`] it is answered within 3 s, whatever happens.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The most requests that wait to be rung; beyond it they are left to the sweeper.
const MAX_QUEUED: usize = 10_000;
/// The most requests rung at once.
const PUBLISH_BATCH: usize = 500;
/// How often an idle connection to the queue is looked after.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// An order to accept the payment of, and the trace that the request belongs to.
type Acceptance = (Caller, OrderId, Option<String>);

/// The writing paths of the API. Clones share them.
#[derive(Clone)]
pub struct OrderIntake {
    create: Batcher<NewOrder, Created>,
    accept: Batcher<Acceptance, Order>,
}

impl OrderIntake {
    /// Starts the batchers, and the ringer that ends once the last [`OrderIntake`] is gone and all requests are rung.
    #[must_use]
    pub fn start(app: &App) -> (Self, JoinSet<()>) {
        let limits = Limits {
            batch: app.config.batch.max,
            queued: app.config.batch.queued,
            in_flight: app.db.writers(),
            max_wait: MAX_WAIT,
        };
        let (requests, waiting) = mpsc::channel(MAX_QUEUED);
        let exchange = format!("{}.orders", app.config.queue.prefix);
        let mut ringing = JoinSet::new();
        ringing.spawn(publish(app.queue.clone(), exchange, waiting));
        let (creating, accepting) = (app.clone(), app.clone());
        let desk = Self {
            create: Batcher::start(limits, move |batch| create(creating.clone(), batch)),
            accept: Batcher::start(limits, move |batch| accept(accepting.clone(), requests.clone(), batch)),
        };
        (desk, ringing)
    }

    /// # Errors
    /// As [`orders::create`], and [`Error::Overloaded`].
    pub async fn create(&self, order: NewOrder) -> Result<Created, Error> {
        self.create.submit(order).await
    }

    /// Accepts the payment of an order, for good, and notify_attempts for it.
    ///
    /// # Errors
    /// As [`orders::accept_payments`], and [`Error::Overloaded`].
    pub async fn accept_payment(
        &self,
        caller: Caller,
        id: OrderId,
        traceparent: Option<String>,
    ) -> Result<Order, Error> {
        self.accept.submit((caller, id, traceparent)).await
    }
}

#[expect(clippy::cast_precision_loss, reason = "batches are small")]
async fn create(app: App, batch: Arc<[NewOrder]>) -> Answers<Created> {
    histogram!(BATCH_SIZE, "batch" => "create").record(batch.len() as f64);
    let orders = &*batch;
    let written = app
        .db
        .transaction(|txn| async move { orders::create(&txn, orders).await });
    let answers: Answers<Created> = app.db.timeout(BATCH_TIMEOUT, written).await;
    failpoints::hit(Failpoint::Created);
    if let Ok(answers) = &answers {
        let made = answers.iter().flatten().filter(|created| !created.replayed).count();
        counter!(ORDERS_CREATED).increment(made as u64);
    }
    answers
}

#[expect(clippy::cast_precision_loss, reason = "batches are small")]
async fn accept(app: App, requests: mpsc::Sender<SettleRequest>, batch: Arc<[Acceptance]>) -> Answers<Order> {
    histogram!(BATCH_SIZE, "batch" => "accept").record(batch.len() as f64);
    let now = Timestamp::now();
    let asked: Vec<(Caller, OrderId)> = batch.iter().map(|(caller, id, _)| (*caller, *id)).collect();
    let asked = &asked;
    let written = app
        .db
        .transaction(|txn| async move { orders::accept_payments(&txn, now, asked).await });
    let answers: Vec<Result<Order, Error>> = app.db.timeout(BATCH_TIMEOUT, written).await?;
    failpoints::hit(Failpoint::Accepted);
    // Who clicks twice may be twice in one batch.
    let mut rung = HashSet::new();
    for (answer, (_, id, traceparent)) in answers.iter().zip(batch.iter()) {
        if let Ok(order) = answer
            && order.row.status == OrderStatus::Pending
            && order.row.accepted_at == Some(now)
            && rung.insert(*id)
        {
            counter!(PAYMENTS_ACCEPTED).increment(1);
            // A full channel loses the request and not the order: the sweeper will ring.
            let _ = requests.try_send(SettleRequest {
                order_id: *id,
                traceparent: traceparent.clone().unwrap_or_else(new_traceparent),
            });
        }
    }
    Ok(answers)
}

/// Rings in batches. What cannot be rung is left to the sweeper; nobody's request waits for the queue.
async fn publish(queue: Queue, exchange: String, mut waiting: mpsc::Receiver<SettleRequest>) {
    let mut tick = interval(KEEP_ALIVE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut up = true;
    let mut requests = Vec::new();
    loop {
        let result: Result<(), QueueError> = tokio::select! {
            biased;
            count = waiting.recv_many(&mut requests, PUBLISH_BATCH) => {
                if count == 0 {
                    return;
                }
                let spans = publish_spans(&mut requests, &exchange);
                let rung = queue.publish_settle_requests(&requests).await;
                drop(spans);
                failpoints::hit(Failpoint::Published);
                rung
            }
            _ = tick.tick() => queue.ping().await,
        };
        requests.clear();
        match &result {
            Ok(()) if !up => tracing::info!("the queue is back"),
            Err(error) if up => {
                tracing::warn!(%error, "the queue is away; accepted orders wait in the database");
            }
            _ => {}
        }
        up = result.is_ok();
    }
}

/// Where traces are exported: a span for every message, which the message then carries on.
fn publish_spans(requests: &mut [SettleRequest], exchange: &str) -> Vec<Span> {
    if !traces::is_on() {
        return Vec::new();
    }
    let publish = |request: &mut SettleRequest| {
        let span = tracing::info_span!(
            "publish",
            otel.name = format!("publish {exchange}"),
            otel.kind = "producer",
            messaging.operation.r#type = "send",
            messaging.destination.name = exchange,
            messaging.message.id = %request.order_id,
        );
        traces::adopt(&span, &request.traceparent);
        if let Some(own) = traces::of(&span) {
            request.traceparent = own;
        }
        span
    };
    requests.iter_mut().map(publish).collect()
}
