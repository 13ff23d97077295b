//! Publishes a settle request for every payment that was accepted. It does so after the commit and in batches, so that no
//! client waits for the queue. A request that is lost costs time and no order: the sweeper publishes it again.

use metrics::counter;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::Span;

use crate::{
    app::App,
    failpoints::{self, Failpoint},
    queue::{Queue, QueueError, SettleRequest},
    telemetry::{metrics::SETTLE_REQUESTS_DROPPED, outage::QUEUE, traces},
};

/// The most settle requests that wait for being published. Any further one is left to the sweeper.
const MAX_QUEUED: usize = 10_000;
/// The most settle requests published at once.
const PUBLISH_BATCH: usize = 500;

/// Hands settle requests to the task that publishes them. Clones share it.
#[derive(Clone)]
pub struct Notifier {
    requests: mpsc::Sender<SettleRequest>,
}

impl Notifier {
    /// Starts the task that publishes. It ends when the last clone is dropped and all that was queued is published.
    pub fn start(app: &App) -> (Self, JoinSet<()>) {
        let (requests, queued) = mpsc::channel(MAX_QUEUED);
        let exchange = format!("{}.orders", app.config.queue.prefix);

        let mut publishing = JoinSet::new();
        publishing.spawn(publish_all(app.queue.clone(), exchange, queued));

        (Self { requests }, publishing)
    }

    /// Queues a settle request and returns at once. Where too many are queued it is dropped, and the sweeper publishes
    /// it later.
    pub fn notify(&self, request: SettleRequest) {
        if self.requests.try_send(request).is_err() {
            counter!(SETTLE_REQUESTS_DROPPED).increment(1);
        }
    }
}

async fn publish_all(queue: Queue, exchange: String, mut queued: mpsc::Receiver<SettleRequest>) {
    let mut requests = Vec::new();

    while queued.recv_many(&mut requests, PUBLISH_BATCH).await > 0 {
        if let Err(error) = publish(&queue, &exchange, &mut requests).await {
            QUEUE.record_failure(&error);
            counter!(SETTLE_REQUESTS_DROPPED).increment(requests.len() as u64);
        }
        requests.clear();
    }
}

async fn publish(queue: &Queue, exchange: &str, requests: &mut [SettleRequest]) -> Result<(), QueueError> {
    let spans = publish_spans(requests, exchange);
    let published = queue.publish_settle_requests(requests).await;
    drop(spans);

    failpoints::hit(Failpoint::Published);
    published
}

/// Opens a span for each message and lets the message carry it on; none where traces are off.
fn publish_spans(requests: &mut [SettleRequest], exchange: &str) -> Vec<Span> {
    if !traces::is_enabled() {
        return Vec::new();
    }

    let publish_span = |request: &mut SettleRequest| {
        let span = tracing::info_span!(
            "publish",
            otel.name = format!("publish {exchange}"),
            otel.kind = "producer",
            messaging.operation.r#type = "send",
            messaging.destination.name = exchange,
            messaging.message.id = %request.order_id,
        );
        traces::set_parent(&span, &request.traceparent);
        if let Some(traceparent) = traces::traceparent_of(&span) {
            request.traceparent = traceparent;
        }
        span
    };
    requests.iter_mut().map(publish_span).collect()
}
