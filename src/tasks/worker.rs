//! Settles the orders that the queue delivers. For each batch of messages it settles the orders in one transaction,
//! invalidates the cached pages, publishes dead letters and events, and acknowledges the messages last. If it dies on
//! the way, the messages are redelivered: the orders are found settled, and the events are published again, under the
//! same ids.

use std::time::{Duration, Instant};

use metrics::histogram;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use super::{
    backoff::{Backoff, Stopped},
    dependencies::record_database_outage,
    finish::{SettledBatch, finish},
};
use crate::{
    app::App,
    db::Txn,
    domain::{
        Error, OrderId,
        settlement::{self, Settlement},
    },
    failpoints::{self, Failpoint},
    queue::MessageBatch,
    telemetry::{metrics::SETTLE_DURATION, outage::QUEUE, traces},
};

/// How long one attempt at settling a batch may take.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The most messages that a batch's span is linked to.
const MAX_LINKS: usize = 100;

/// Consumes until `stop`, then finishes the batches that are settled. While one batch is settled, the one before it is
/// published and acknowledged.
pub async fn run(app: App, stop: CancellationToken) {
    // A process that was killed may have put this off.
    app.cache.invalidate_pages_soon();

    let (settled, to_finish) = mpsc::channel(1);
    tokio::join!(
        settle_batches(&app, &stop, settled),
        finish_batches(&app, &stop, to_finish)
    );
}

async fn settle_batches(app: &App, stop: &CancellationToken, settled: mpsc::Sender<SettledBatch>) {
    let mut backoff = Backoff::new();

    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = app.queue.next(app.config.batch.max) => received,
        };

        match received {
            Ok(received) => {
                backoff.reset();
                failpoints::hit(Failpoint::Delivered);
                let Ok(batch) = settle_received(app, received, stop).await else {
                    return;
                };
                if settled.send(batch).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                QUEUE.record_failure(&error);
                if backoff.wait(stop).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn finish_batches(app: &App, stop: &CancellationToken, mut to_finish: mpsc::Receiver<SettledBatch>) {
    while let Some(batch) = to_finish.recv().await {
        let span = batch.span.clone();
        if finish(app, &batch, stop).instrument(span).await.is_err() {
            return;
        }
    }
}

async fn settle_received(app: &App, received: MessageBatch, stop: &CancellationToken) -> Result<SettledBatch, Stopped> {
    let span = consume_span(&received, &app.config.queue.prefix);
    let orders = order_ids(&received);

    let settlement = settle_until_done(app, &orders, stop).instrument(span.clone()).await;
    failpoints::hit(Failpoint::Settled);

    Ok(SettledBatch {
        received,
        settlement: settlement?,
        span,
    })
}

/// The batch's span: a child of the first message's trace, and linked to those of all messages.
fn consume_span(batch: &MessageBatch, queue_prefix: &str) -> Span {
    let traceparents = || {
        batch
            .messages
            .iter()
            .filter_map(|delivery| delivery.traceparent.as_deref())
    };
    let first = traceparents().next().unwrap_or_default();
    let only_order = match &*batch.messages {
        [only] => only.order_id.as_ref().ok().map(ToString::to_string),
        _ => None,
    };

    let span = tracing::info_span!(
        "settle",
        otel.name = format!("process {queue_prefix}.orders.settle"),
        otel.kind = "consumer",
        messaging.operation.r#type = "process",
        messaging.destination.name = format!("{queue_prefix}.orders.settle"),
        messaging.batch.message_count = batch.messages.len(),
        order_id = only_order,
        trace_id = traces::trace_id(first),
    );

    if traces::is_enabled() {
        traces::set_parent(&span, first);
        for traceparent in traceparents().take(MAX_LINKS) {
            traces::add_link(&span, traceparent);
        }
    }
    span
}

/// The orders that a batch names, each once.
fn order_ids(batch: &MessageBatch) -> Vec<OrderId> {
    let mut orders: Vec<OrderId> = batch
        .messages
        .iter()
        .filter_map(|delivery| delivery.order_id.as_ref().ok())
        .copied()
        .collect();
    orders.sort_unstable();
    orders.dedup();
    orders
}

/// Retries until the database settles the batch. Meanwhile the messages stay unacknowledged: none is dropped or
/// dead-lettered.
async fn settle_until_done(app: &App, orders: &[OrderId], stop: &CancellationToken) -> Result<Settlement, Stopped> {
    let mut backoff = Backoff::new();

    loop {
        match settle(app, orders).await {
            Ok(settlement) => return Ok(settlement),
            Err(Error::Internal(error)) => {
                tracing::error!(%error, orders = orders.len(), "could not settle a batch; retrying its orders one by one");
                return settle_one_by_one(app, orders, stop).await;
            }
            Err(error) => {
                if !record_database_outage(&error) {
                    tracing::warn!(%error, orders = orders.len(), "could not settle a batch; retrying");
                }
                backoff.wait(stop).await?;
            }
        }
    }
}

/// Settles every order in a transaction of its own, so that one that the database refuses does not hold up the others.
/// That one stays as it is, and the sweeper publishes its settle request again, less and less often.
async fn settle_one_by_one(app: &App, orders: &[OrderId], stop: &CancellationToken) -> Result<Settlement, Stopped> {
    let mut all = Settlement::default();

    for order in orders {
        let mut backoff = Backoff::new();
        loop {
            match settle(app, &[*order]).await {
                Ok(one) => {
                    all.settled.extend(one.settled);
                    all.not_accepted.extend(one.not_accepted);
                    all.unknown.extend(one.unknown);
                    all.low_stock.extend(one.low_stock);
                    break;
                }
                Err(Error::Internal(error)) => {
                    tracing::error!(%error, order_id = %order, "could not settle an order; it is left as it is");
                    break;
                }
                Err(error) => {
                    if !record_database_outage(&error) {
                        tracing::warn!(%error, order_id = %order, "could not settle an order; retrying");
                    }
                    backoff.wait(stop).await?;
                }
            }
        }
    }

    Ok(all)
}

/// One attempt, in one transaction.
async fn settle(app: &App, orders: &[OrderId]) -> Result<Settlement, Error> {
    if orders.is_empty() {
        return Ok(Settlement::default());
    }

    let started = Instant::now();
    let low_stock_at = app.config.catalog.low_stock_at;
    let settle = |txn: Txn| async move { settlement::settle(&txn, app.db.time(), orders, low_stock_at).await };
    let settlement = app.db.timeout(SETTLE_TIMEOUT, app.db.transaction(settle)).await;

    histogram!(SETTLE_DURATION).record(started.elapsed());
    settlement
}
