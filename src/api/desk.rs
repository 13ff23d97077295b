//! Where requests that write wait for their batch, and where accepted orders leave for the queue.

use std::{collections::HashSet, sync::Arc, time::Duration};

use metrics::{counter, histogram};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tracing::Span;

use super::too_slow;
use crate::{
    app::App,
    batch::{Answers, Batcher, Limits},
    domain::{
        Caller, Error, OrderId,
        orders::{self, Created, NewOrder, Order},
    },
    entities::{Micros, order::OrderStatus},
    fault::{self, Point},
    queue::{Bell, Queue, QueueError, new_traceparent},
    telemetry::{figures, trace},
};

/// The most that a batch may take; a database that is slower counts as away.
const BATCH_TIMEOUT: Duration = Duration::from_millis(1_800);
/// The longest that a request waits for its batch. With [`BATCH_TIMEOUT`] it is answered within 3 s, whatever happens.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most bells that wait to be rung; beyond it they are left to the sweeper.
const MAX_BELLS: usize = 10_000;
/// The most bells rung at once.
const BELLS_AT_ONCE: usize = 500;
/// How often an idle connection to the queue is looked after.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// An order to accept the payment of, and the trace that the request belongs to.
type Acceptance = (Caller, OrderId, Option<String>);

/// The writing paths of the API. Clones share them.
#[derive(Clone)]
pub struct Desk {
    create: Batcher<NewOrder, Created>,
    accept: Batcher<Acceptance, Order>,
}

impl Desk {
    /// Starts the batchers, and the ringer that ends once the last [`Desk`] is gone and all bells are rung.
    #[must_use]
    pub fn open(app: &App) -> (Self, JoinSet<()>) {
        let limits = Limits {
            batch: app.config.batch_max,
            queued: app.config.batch_queued,
            in_flight: app.db.writers(),
            patience: PATIENCE,
        };
        let (bells, waiting) = mpsc::channel(MAX_BELLS);
        let exchange = format!("{}.orders", app.config.queue_prefix);
        let mut ringing = JoinSet::new();
        ringing.spawn(ring(app.queue.clone(), exchange, waiting));
        let (creating, accepting) = (app.clone(), app.clone());
        let desk = Self {
            create: Batcher::start(limits, move |batch| create(creating.clone(), batch)),
            accept: Batcher::start(limits, move |batch| accept(accepting.clone(), bells.clone(), batch)),
        };
        (desk, ringing)
    }

    /// # Errors
    /// As [`orders::create`], and [`Error::Overloaded`].
    pub async fn create(&self, order: NewOrder) -> Result<Created, Error> {
        self.create.submit(order).await
    }

    /// Accepts the payment of an order, for good, and rings for it.
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
    histogram!(figures::BATCH_SIZE, "batch" => "create").record(batch.len() as f64);
    let written = app.db.transaction(move |txn| {
        let batch = Arc::clone(&batch);
        Box::pin(async move { orders::create(txn, &batch).await })
    });
    let answers: Answers<Created> = app
        .db
        .within(BATCH_TIMEOUT, written)
        .await
        .unwrap_or_else(|| Err(too_slow()));
    fault::point(Point::Created);
    if let Ok(answers) = &answers {
        let made = answers.iter().flatten().filter(|created| !created.replayed).count();
        counter!(figures::ORDERS_CREATED).increment(made as u64);
    }
    answers
}

#[expect(clippy::cast_precision_loss, reason = "batches are small")]
async fn accept(app: App, bells: mpsc::Sender<Bell>, batch: Arc<[Acceptance]>) -> Answers<Order> {
    histogram!(figures::BATCH_SIZE, "batch" => "accept").record(batch.len() as f64);
    let now = Micros::now();
    let asked: Arc<[(Caller, OrderId)]> = batch.iter().map(|(caller, id, _)| (*caller, *id)).collect();
    let written = app.db.transaction(move |txn| {
        let asked = Arc::clone(&asked);
        Box::pin(async move { orders::accept_payments(txn, now, &asked).await })
    });
    let answers = app.db.within(BATCH_TIMEOUT, written).await;
    let answers: Vec<Result<Order, Error>> = answers.unwrap_or_else(|| Err(too_slow()))?;
    fault::point(Point::Accepted);
    // Who clicks twice may be twice in one batch.
    let mut rung = HashSet::new();
    for (answer, (_, id, traceparent)) in answers.iter().zip(batch.iter()) {
        if let Ok(order) = answer
            && order.order.status == OrderStatus::Pending
            && order.order.accepted_at == Some(now)
            && rung.insert(*id)
        {
            counter!(figures::PAYMENTS_ACCEPTED).increment(1);
            // A full channel loses the bell and not the order: the sweeper will ring.
            let _ = bells.try_send(Bell {
                order_id: *id,
                traceparent: traceparent.clone().unwrap_or_else(new_traceparent),
            });
        }
    }
    Ok(answers)
}

/// Rings in batches. What cannot be rung is left to the sweeper; nobody's request waits for the queue.
async fn ring(queue: Queue, exchange: String, mut waiting: mpsc::Receiver<Bell>) {
    let mut tick = interval(KEEP_ALIVE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut up = true;
    let mut bells = Vec::new();
    loop {
        let result: Result<(), QueueError> = tokio::select! {
            biased;
            count = waiting.recv_many(&mut bells, BELLS_AT_ONCE) => {
                if count == 0 {
                    return;
                }
                let spans = publish_spans(&mut bells, &exchange);
                let rung = queue.ring(&bells).await;
                drop(spans);
                fault::point(Point::Rung);
                rung
            }
            _ = tick.tick() => queue.ping().await,
        };
        bells.clear();
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
fn publish_spans(bells: &mut [Bell], exchange: &str) -> Vec<Span> {
    if !trace::is_on() {
        return Vec::new();
    }
    let publish = |bell: &mut Bell| {
        let span = tracing::info_span!(
            "publish",
            otel.name = format!("publish {exchange}"),
            otel.kind = "producer",
            messaging.operation.r#type = "send",
            messaging.destination.name = exchange,
            messaging.message.id = %bell.order_id,
        );
        trace::adopt(&span, &bell.traceparent);
        if let Some(own) = trace::of(&span) {
            bell.traceparent = own;
        }
        span
    };
    bells.iter_mut().map(publish).collect()
}
