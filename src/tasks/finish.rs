//! What follows the commit of a settlement: invalidate the cached pages, publish dead letters and events, acknowledge.
//! The acknowledgement comes last, because it is what keeps the messages from being redelivered.

use std::collections::HashSet;

use metrics::{counter, histogram};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::backoff::{Backoff, Stopped};
use crate::{
    app::App,
    domain::{OrderId, settlement::Settlement},
    entities::order::{FailureReason, OrderStatus},
    failpoints::{self, Failpoint},
    queue::{Delivery, MessageBatch, QueueError},
    telemetry::{
        metrics::{BATCH_SIZE, DEAD_LETTERS, ORDERS_FAILED, ORDERS_PAID, REDELIVERIES, SETTLEMENT_LAG},
        outage::QUEUE,
    },
};

/// A batch whose settlement is committed, and which is not acknowledged yet.
pub(super) struct SettledBatch {
    pub received: MessageBatch,
    pub settlement: Settlement,
    pub span: Span,
}

/// Publishes until the queue has taken everything, then acknowledges.
///
/// # Errors
/// [`Stopped`] if `stop` is cancelled while it waits for the queue. The batch is then redelivered.
pub(super) async fn finish(app: &App, batch: &SettledBatch, stop: &CancellationToken) -> Result<(), Stopped> {
    // Also for orders that an earlier attempt settled: it may have ended before it invalidated the pages.
    let settled = &batch.settlement.settled;
    if settled.iter().any(|order| order.status == OrderStatus::Paid) {
        app.cache.invalidate_pages_soon();
    }
    failpoints::hit(Failpoint::Invalidated);
    report(batch);

    publish_dead_letters(app, batch, stop).await?;
    let events = batch.settlement.events();
    retry_until_published(stop, "events", || app.queue.publish_events(&events)).await?;
    failpoints::hit(Failpoint::EventsPublished);

    if let Err(error) = app.queue.acknowledge(&batch.received).await {
        tracing::warn!(%error, "could not acknowledge a settled batch; it will be redelivered");
    }
    failpoints::hit(Failpoint::Acknowledged);
    Ok(())
}

async fn publish_dead_letters(app: &App, batch: &SettledBatch, stop: &CancellationToken) -> Result<(), Stopped> {
    let dead_letters = dead_letters(batch);
    retry_until_published(stop, "dead letters", || app.queue.dead_letter(&dead_letters)).await?;

    counter!(DEAD_LETTERS).increment(dead_letters.len() as u64);
    for (delivery, reason) in &dead_letters {
        let order_id = delivery.order_id.as_ref().ok().map(ToString::to_string);
        tracing::warn!(reason, order_id, "dead-lettered a message");
    }
    Ok(())
}

/// The messages that can never be processed, each with the reason.
fn dead_letters(batch: &SettledBatch) -> Vec<(&Delivery, String)> {
    let unknown: HashSet<OrderId> = batch.settlement.unknown.iter().copied().collect();
    let reason = |delivery: &Delivery| match &delivery.order_id {
        Err(reason) => Some(reason.clone()),
        Ok(id) if unknown.contains(id) => Some("no such order".to_owned()),
        Ok(_) => None,
    };

    let deliveries = batch.received.messages.iter();
    deliveries
        .filter_map(|delivery| Some((delivery, reason(delivery)?)))
        .collect()
}

/// Counts and logs what became of a batch.
#[expect(clippy::cast_precision_loss, reason = "batches are small")]
fn report(batch: &SettledBatch) {
    let (deliveries, settlement) = (&batch.received.messages, &batch.settlement);
    let newly_settled = || settlement.settled.iter().filter(|order| order.newly_settled);
    let count = |status| newly_settled().filter(|order| order.status == status).count();
    let (paid, failed) = (count(OrderStatus::Paid), count(OrderStatus::Failed));
    let redelivered = deliveries.iter().filter(|delivery| delivery.redelivered).count();

    counter!(ORDERS_PAID).increment(paid as u64);
    counter!(ORDERS_FAILED, "reason" => FailureReason::InsufficientStock.as_str()).increment(failed as u64);
    counter!(REDELIVERIES).increment(redelivered as u64);
    histogram!(BATCH_SIZE, "batch" => "settle").record(deliveries.len() as f64);
    let lag = histogram!(SETTLEMENT_LAG);
    for (order, accepted_at) in newly_settled().filter_map(|order| Some((order, order.accepted_at?))) {
        lag.record(accepted_at.age_at(order.settled_at));
    }

    for order in &settlement.not_accepted {
        tracing::warn!(order_id = %order, "skipped a settle request: the order's payment was never accepted");
    }
    tracing::debug!(
        messages = deliveries.len(),
        redelivered,
        paid,
        failed,
        settled_before = settlement.settled.len() - newly_settled().count(),
        "settled a batch"
    );
}

/// Publishes until the queue has confirmed it. Meanwhile the batch stays unacknowledged, so that nothing is lost.
async fn retry_until_published<F, Published>(
    stop: &CancellationToken,
    what: &'static str,
    publish: F,
) -> Result<(), Stopped>
where
    F: Fn() -> Published,
    Published: Future<Output = Result<(), QueueError>>,
{
    let mut backoff = Backoff::new();

    loop {
        match publish().await {
            Ok(()) => return Ok(()),
            Err(error) => {
                QUEUE.record_failure(&error);
                tracing::debug!(what, "could not publish; retrying");
                backoff.wait(stop).await?;
            }
        }
    }
}
