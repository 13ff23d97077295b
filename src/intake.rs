//! Where requests to create, pay or cancel an order become transactions: they gather in batches, each batch is one
//! transaction, and every payment that it accepted becomes a settle request for the [`notifier`](crate::tasks::notifier).
//! Changes of administrators are rare and run alone: [`once`].

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use metrics::{counter, histogram};
use tokio::task::JoinSet;

use crate::{
    app::App,
    batch::{Answers, Batcher, Limits},
    domain::{
        Caller, Error, OrderId,
        orders::{self, Cancelled, Created, NewOrder, Order, Payment},
    },
    entities::order::{FailureReason, OrderStatus, StoredFailure},
    failpoints::{self, Failpoint},
    queue::SettleRequest,
    tasks::notifier::Notifier,
    telemetry::{
        metrics::{BATCH_SIZE, ORDERS_CREATED, ORDERS_FAILED, PAYMENTS_ACCEPTED},
        traces::new_traceparent,
    },
};

pub mod once;

/// How long a batch may take. A database that takes longer counts as unavailable.
const BATCH_TIMEOUT: Duration = Duration::from_millis(1_800);
/// So many batches of order lines may wait; what comes after that would be refused a second later.
const QUEUED_BATCHES: usize = 10;
/// How long a request waits for its batch. Together with [`BATCH_TIMEOUT`], a request is answered within 3 s while the database
/// does not answer. Only members of a batch that the database refused, which are tried one by one, may take longer.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// A payment to accept.
#[derive(Clone)]
struct Traced {
    payment: Payment,
    /// W3C Trace Context of the request, if it has one.
    traceparent: Option<String>,
}

/// The order-writing paths of the API. Clones share them, and cost no more than a counter: every request takes one.
#[derive(Clone)]
pub struct OrderIntake {
    batchers: Arc<Batchers>,
}

struct Batchers {
    create: Batcher<NewOrder, Created>,
    accept: Batcher<Traced, Order>,
    cancel: Batcher<(Caller, OrderId), Cancelled>,
}

impl OrderIntake {
    /// Starts the batchers and the notifier. The task in the set is the notifier's; it ends when the last clone of the
    /// intake is dropped and every settle request is published.
    pub fn start(app: &App) -> (Self, JoinSet<()>) {
        let limits = Limits {
            batch: app.config.batch.max,
            batch_weight: app.config.batch.lines,
            queued: app.config.batch.queued,
            queued_weight: app.config.batch.lines * QUEUED_BATCHES,
            in_flight: app.db.writers(),
            max_wait: MAX_WAIT,
        };

        // A process that was killed may have put this off.
        app.cache.invalidate_pages_soon();

        let (notifier, publishing) = Notifier::start(app);
        let (creating, accepting, cancelling) = (app.clone(), app.clone(), app.clone());
        let batchers = Arc::new(Batchers {
            create: Batcher::start(
                limits,
                |order| order.lines.len(),
                move |batch| create(creating.clone(), batch),
            ),
            accept: Batcher::start(
                limits,
                |_| 1,
                move |batch| accept(accepting.clone(), notifier.clone(), batch),
            ),
            cancel: Batcher::start(limits, |_| 1, move |batch| cancel(cancelling.clone(), batch)),
        });

        (Self { batchers }, publishing)
    }

    /// Creates an order.
    ///
    /// # Errors
    /// As [`orders::create`], and [`Error::Overloaded`] when too many requests wait.
    pub async fn create(&self, order: NewOrder) -> Result<Created, Error> {
        self.batchers.create.submit(order).await
    }

    /// Accepts the payment of an order. That is durable once this returns; the worker is notified afterwards.
    ///
    /// # Errors
    /// As [`orders::accept_payments`], and [`Error::Overloaded`] when too many requests wait.
    pub async fn accept_payment(&self, payment: Payment, traceparent: Option<String>) -> Result<Order, Error> {
        self.batchers.accept.submit(Traced { payment, traceparent }).await
    }

    /// Cancels an order. That is durable once this returns.
    ///
    /// # Errors
    /// As [`orders::cancel`], and [`Error::Overloaded`] when too many requests wait.
    pub async fn cancel(&self, caller: Caller, order_id: OrderId) -> Result<Cancelled, Error> {
        self.batchers.cancel.submit((caller, order_id)).await
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
        let created = answers.iter().flatten().filter(|created| !created.replayed).count();
        counter!(ORDERS_CREATED).increment(created as u64);
        note_availability(&app, answers.iter().flatten().map(|created| &created.order));
    } else if batch.iter().any(|order| order.hold.is_some()) {
        app.cache.invalidate_pages_soon();
    }
    answers
}

#[expect(clippy::cast_precision_loss, reason = "batches are small")]
async fn accept(app: App, notifier: Notifier, batch: Arc<[Traced]>) -> Answers<Order> {
    histogram!(BATCH_SIZE, "batch" => "accept").record(batch.len() as f64);

    let now = app.db.time();
    let payments: &Vec<Payment> = &batch.iter().map(|traced| traced.payment.clone()).collect();
    let written = app
        .db
        .transaction(|txn| async move { orders::accept_payments(&txn, now, payments).await });
    let answers = app.db.timeout(BATCH_TIMEOUT, written).await;
    failpoints::hit(Failpoint::Accepted);
    let answers: Vec<Result<Order, Error>> = answers.inspect_err(|_| app.cache.invalidate_pages_soon())?;

    // A client that pays twice at once may have both requests in one batch.
    let mut seen = HashSet::new();
    for (answer, Traced { payment, traceparent }) in answers.iter().zip(batch.iter()) {
        if let Ok(order) = answer
            && order.row.status == OrderStatus::Pending
            && order.row.accepted_at == Some(now)
            && seen.insert(payment.order_id)
        {
            counter!(PAYMENTS_ACCEPTED).increment(1);
            notifier.notify(SettleRequest {
                order_id: payment.order_id,
                traceparent: traceparent.clone().unwrap_or_else(new_traceparent),
            });
        }
    }

    let expired = |order: &&Order| {
        let failure = order.row.failure.as_ref();
        order.row.settled_at == Some(now) && failure.and_then(StoredFailure::reason) == Some(FailureReason::Expired)
    };
    let expired: HashMap<OrderId, &Order> = by_id(answers.iter().flatten().filter(expired));
    count_failed(FailureReason::Expired, expired.len());
    note_availability(&app, expired.into_values());
    Ok(answers)
}

#[expect(clippy::cast_precision_loss, reason = "batches are small")]
async fn cancel(app: App, batch: Arc<[(Caller, OrderId)]>) -> Answers<Cancelled> {
    histogram!(BATCH_SIZE, "batch" => "cancel").record(batch.len() as f64);

    let (now, asked) = (app.db.time(), &*batch);
    let written = app
        .db
        .transaction(|txn| async move { orders::cancel(&txn, now, asked).await });
    let answers = app.db.timeout(BATCH_TIMEOUT, written).await;
    failpoints::hit(Failpoint::Cancelled);
    let answers: Vec<Result<Cancelled, Error>> = answers.inspect_err(|_| app.cache.invalidate_pages_soon())?;

    let cancelled = answers.iter().flatten().filter(|cancelled| cancelled.newly_cancelled);
    let cancelled = by_id(cancelled.map(|cancelled| &cancelled.order));
    count_failed(FailureReason::Cancelled, cancelled.len());
    note_availability(&app, cancelled.into_values());
    Ok(answers)
}

/// Each order once: a client may ask twice at once.
fn by_id<'a>(orders: impl Iterator<Item = &'a Order>) -> HashMap<OrderId, &'a Order> {
    orders.map(|order| (order.row.id, order)).collect()
}

fn count_failed(reason: FailureReason, orders: usize) {
    counter!(ORDERS_FAILED, "reason" => reason.as_str()).increment(orders as u64);
}

/// The pages show how many units are available, which these orders have changed if they have a hold. A batch of which it is
/// not known what came of it, because the answer to its commit is late or lost, may have changed that as well.
fn note_availability<'a>(app: &App, mut orders: impl Iterator<Item = &'a Order>) {
    if orders.any(|order| order.row.expires_at.is_some()) {
        app.cache.invalidate_pages_soon();
    }
}
