//! Settles what the queue delivers: deliveries → settle → forget → announce → acknowledge. The acknowledgement comes
//! last, so whatever dies on the way is delivered again, finds the order settled, and is announced under the same id.

use std::{collections::HashSet, time::Duration};

use metrics::{counter, histogram};
use serde_json::json;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::{
    app::App,
    db::Txn,
    domain::{
        Error, OrderId,
        settlement::{self, LowStock, Settled, Settlement},
    },
    entities::{
        Timestamp,
        order::{FailureReason, OrderStatus},
    },
    failpoints::{self, Failpoint},
    queue::{Delivery, Event, MessageBatch, QueueError},
    telemetry::{
        metrics::{
            BATCH_SIZE, DEAD_LETTERS, ORDERS_FAILED, ORDERS_PAID, REDELIVERIES, SETTLE_DURATION, SETTLEMENT_LAG,
        },
        traces,
    },
};

/// The most that one attempt at a batch may take.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The most messages that a batch's span is linked to.
const MAX_LINKS: usize = 100;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A batch that has been settled, and not yet told of.
type SettledBatch = (MessageBatch, Settlement, Span);

/// Consumes until `stop`, then finishes the batches in hand. One batch is settled while the one before it is announced
/// and acknowledged.
pub async fn run(app: App, stop: CancellationToken) {
    let (settled, finishing) = mpsc::channel(1);
    tokio::join!(settle_all(&app, &stop, settled), finish_all(&app, &stop, finishing));
}

async fn settle_all(app: &App, stop: &CancellationToken, settled: mpsc::Sender<SettledBatch>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = app.queue.next(app.config.batch.max) => next,
        };
        let gone_on = match next {
            Ok(deliveries) => {
                pause = FIRST_PAUSE;
                failpoints::hit(Failpoint::Delivered);
                let span = consume_span(&deliveries, &app.config.queue.prefix);
                let orders = orders_of(&deliveries);
                let settlement = settle_until_done(app, &orders, stop).instrument(span.clone()).await;
                failpoints::hit(Failpoint::Settled);
                match settlement {
                    Some(settlement) => settled.send((deliveries, settlement, span)).await.ok(),
                    None => None,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "not consuming; connecting again");
                backoff(&mut pause, stop).await
            }
        };
        if gone_on.is_none() {
            return;
        }
    }
}

async fn finish_all(app: &App, stop: &CancellationToken, mut settled: mpsc::Receiver<SettledBatch>) {
    while let Some((deliveries, settlement, span)) = settled.recv().await {
        let finished = finish(app, &deliveries, &settlement, stop).instrument(span).await;
        if finished.is_none() {
            return;
        }
    }
}

/// The batch's part of the traces that its messages belong to: a child of the first, and linked to all.
fn consume_span(deliveries: &MessageBatch, queue_prefix: &str) -> Span {
    let mut parents = deliveries
        .messages
        .iter()
        .filter_map(|delivery| delivery.traceparent.as_deref());
    let first = parents.clone().next().unwrap_or_default();
    let order = match &*deliveries.messages {
        [one] => one.order_id.as_ref().ok().map(ToString::to_string),
        _ => None,
    };
    let span = tracing::info_span!(
        "settle",
        otel.name = format!("process {queue_prefix}.orders.settle"),
        otel.kind = "consumer",
        messaging.operation.r#type = "process",
        messaging.destination.name = format!("{queue_prefix}.orders.settle"),
        messaging.batch.message_count = deliveries.messages.len(),
        order_id = order,
        trace_id = traces::trace_id(first),
    );
    if traces::is_on() {
        traces::adopt(&span, first);
        parents
            .by_ref()
            .take(MAX_LINKS)
            .for_each(|parent| traces::link(&span, parent));
    }
    span
}

/// The orders that a batch names, each once.
fn orders_of(deliveries: &MessageBatch) -> Vec<OrderId> {
    let named = deliveries
        .messages
        .iter()
        .filter_map(|delivery| delivery.order_id.as_ref().ok());
    let mut orders: Vec<OrderId> = named.copied().collect();
    orders.sort_unstable();
    orders.dedup();
    orders
}

/// What follows the commit, with the acknowledgement last. `None` when it was told to stop before that; the batch then
/// comes again.
async fn finish(app: &App, deliveries: &MessageBatch, settlement: &Settlement, stop: &CancellationToken) -> Option<()> {
    // Also for what an earlier attempt has settled: it may have ended before it came to this.
    if settlement.settled.iter().any(|order| order.status == OrderStatus::Paid) {
        app.cache.invalidate_pages().await;
    }
    failpoints::hit(Failpoint::Invalidated);
    report(settlement, deliveries);
    let dead = dead_letters(deliveries, settlement);
    counter!(DEAD_LETTERS).increment(dead.len() as u64);
    let events = events(settlement);
    retry_until_published(stop, "dead letters", || app.queue.dead_letter(&dead)).await?;
    retry_until_published(stop, "events", || app.queue.publish_events(&events)).await?;
    failpoints::hit(Failpoint::EventsPublished);
    if let Err(error) = app.queue.acknowledge(deliveries).await {
        tracing::warn!(%error, "a settled batch was not acknowledged and will come again");
    }
    failpoints::hit(Failpoint::Acknowledged);
    Some(())
}

/// Holds on while the database is away: nothing is dropped and nothing is laid aside because of it.
async fn settle_until_done(app: &App, orders: &[OrderId], stop: &CancellationToken) -> Option<Settlement> {
    let mut pause = FIRST_PAUSE;
    loop {
        match settle_batch(app, orders).await {
            Ok(settlement) => return Some(settlement),
            Err(Error::Internal(error)) => {
                tracing::error!(%error, orders = orders.len(), "a batch was refused; trying its orders one by one");
                return settle_one_by_one(app, orders, stop).await;
            }
            Err(error) => {
                tracing::warn!(%error, orders = orders.len(), "could not settle; holding on");
                backoff(&mut pause, stop).await?;
            }
        }
    }
}

/// So that one order that the database refuses cannot hold up its neighbours. It stays as it is, and the sweeper will
/// ring for it again, ever more rarely.
async fn settle_one_by_one(app: &App, orders: &[OrderId], stop: &CancellationToken) -> Option<Settlement> {
    let mut all = Settlement::default();
    for order in orders {
        let mut pause = FIRST_PAUSE;
        loop {
            match settle_batch(app, &[*order]).await {
                Ok(one) => {
                    all.settled.extend(one.settled);
                    all.not_accepted.extend(one.not_accepted);
                    all.unknown.extend(one.unknown);
                    all.low_stock.extend(one.low_stock);
                    break;
                }
                Err(Error::Internal(error)) => {
                    tracing::error!(%error, order_id = %order, "an order could not be settled and is left as it is");
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "could not settle; holding on");
                    backoff(&mut pause, stop).await?;
                }
            }
        }
    }
    Some(all)
}

async fn settle_batch(app: &App, orders: &[OrderId]) -> Result<Settlement, Error> {
    if orders.is_empty() {
        return Ok(Settlement::default());
    }
    let begun = std::time::Instant::now();
    let low_stock_at = app.config.catalog.low_stock_at;
    let settle = |txn: Txn| async move { settlement::settle(&txn, Timestamp::now(), orders, low_stock_at).await };
    let settlement = app.db.timeout(SETTLE_TIMEOUT, app.db.transaction(settle)).await;
    histogram!(SETTLE_DURATION).record(begun.elapsed());
    settlement
}

fn dead_letters<'a>(deliveries: &'a MessageBatch, settlement: &Settlement) -> Vec<(&'a Delivery, String)> {
    let unknown: HashSet<OrderId> = settlement.unknown.iter().copied().collect();
    let reason = |delivery: &Delivery| match &delivery.order_id {
        Err(reason) => Some(reason.clone()),
        Ok(id) if unknown.contains(id) => Some("no such order".to_owned()),
        Ok(_) => None,
    };
    let dead = deliveries
        .messages
        .iter()
        .filter_map(|delivery| Some((delivery, reason(delivery)?)));
    dead.inspect(|(_, reason)| tracing::warn!(reason, "a message was laid aside as a dead letter"))
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "batches are small")]
fn report(settlement: &Settlement, deliveries: &MessageBatch) {
    for order in &settlement.not_accepted {
        tracing::warn!(order_id = %order, "a message asked for an order that nobody has paid; it was left alone");
    }
    let fresh = || settlement.settled.iter().filter(|order| order.newly_settled);
    let count = |status| fresh().filter(|order| order.status == status).count();
    let (paid, failed) = (count(OrderStatus::Paid), count(OrderStatus::Failed));
    counter!(ORDERS_PAID).increment(paid as u64);
    counter!(ORDERS_FAILED, "reason" => FailureReason::InsufficientStock.as_str()).increment(failed as u64);
    histogram!(BATCH_SIZE, "batch" => "settle").record(deliveries.messages.len() as f64);
    let lag = histogram!(SETTLEMENT_LAG);
    fresh().for_each(|order| lag.record(order.accepted_at.age_at(order.settled_at)));
    let redelivered = deliveries
        .messages
        .iter()
        .filter(|delivery| delivery.redelivered)
        .count();
    counter!(REDELIVERIES).increment(redelivered as u64);
    tracing::debug!(
        deliveries = deliveries.messages.len(),
        paid,
        failed,
        settled_before = settlement.settled.iter().filter(|order| !order.newly_settled).count(),
        "settled a batch"
    );
}

fn events(settlement: &Settlement) -> Vec<Event> {
    let orders = settlement.settled.iter().map(order_event);
    orders.chain(settlement.low_stock.iter().map(low_stock_event)).collect()
}

fn order_event(order: &Settled) -> Event {
    let kind = match order.status {
        OrderStatus::Paid => "order.paid",
        OrderStatus::Failed | OrderStatus::Pending => "order.failed",
    };
    let mut data = json!({
        "order_id": order.id,
        "user_id": order.user_id,
        "total_price": order.total_price,
        "currency": order.currency,
    });
    if let Some(failure) = &order.failure {
        data["failure"] = json!(failure);
    }
    event(
        kind,
        order.id.to_string(),
        format!("{}/settled", order.id),
        order.settled_at,
        data,
    )
}

fn low_stock_event(product: &LowStock) -> Event {
    let data = json!({ "product_id": product.product_id, "stock": product.stock });
    let id = format!("{}/low/{}", product.product_id, product.since.0);
    event("stock.low", product.product_id.to_string(), id, product.since, data)
}

fn event(kind: &'static str, subject: String, id: String, time: Timestamp, data: serde_json::Value) -> Event {
    Event {
        id,
        specversion: "1.0",
        source: "/shop",
        kind,
        subject,
        time: time
            .to_utc()
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap_or_default(),
        datacontenttype: "application/json",
        data,
    }
}

/// Publishes until the queue has taken it. The deliveries stay unacknowledged meanwhile, so nothing can be lost.
async fn retry_until_published<F, Taken>(stop: &CancellationToken, what: &str, publish: F) -> Option<()>
where
    F: Fn() -> Taken,
    Taken: Future<Output = Result<(), QueueError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match publish().await {
            Ok(()) => return Some(()),
            Err(error) => {
                tracing::warn!(%error, "{what} could not be published; holding on");
                backoff(&mut pause, stop).await?;
            }
        }
    }
}

/// Waits a little, longer each time. `None` when it is time to stop.
async fn backoff(pause: &mut Duration, stop: &CancellationToken) -> Option<()> {
    let wait = *pause;
    *pause = (wait * 2).min(LONGEST_PAUSE);
    tokio::select! {
        () = stop.cancelled() => None,
        () = sleep(wait) => Some(()),
    }
}
