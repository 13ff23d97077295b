//! The queue inside the process. Its messages are lost with the process; the orders' rows are not, and at the next start
//! the sweeper publishes the requests again.

use std::sync::Arc;

use tokio::sync::{Mutex, broadcast, mpsc};

use super::message::{Delivery, MessageBatch, QueueError, SettleRequest, to_body};
use crate::domain::{OrderId, event::Event};

/// The most settle requests that wait; any further one is left to the sweeper.
const CAPACITY: usize = 100_000;
/// The most batches of events that wait for a listener. One that is slower misses the oldest, and gets an error.
const EVENTS_CAPACITY: usize = 256;

#[derive(Clone)]
pub(super) struct Queue {
    requests: mpsc::Sender<SettleRequest>,
    waiting: Arc<Mutex<mpsc::Receiver<SettleRequest>>>,
    settled: broadcast::Sender<Arc<[OrderId]>>,
}

pub(super) struct Listener(broadcast::Receiver<Arc<[OrderId]>>);

impl Queue {
    pub(super) fn new() -> Self {
        let (requests, waiting) = mpsc::channel(CAPACITY);
        Self {
            requests,
            waiting: Arc::new(Mutex::new(waiting)),
            settled: broadcast::Sender::new(EVENTS_CAPACITY),
        }
    }

    pub(super) fn publish_settle_requests(&self, requests: &[SettleRequest]) -> Result<(), QueueError> {
        for request in requests {
            self.requests
                .try_send(request.clone())
                .map_err(|_| QueueError("too many orders are waiting".to_owned()))?;
        }
        Ok(())
    }

    pub(super) async fn next(&self, max: usize) -> MessageBatch {
        let mut requests = Vec::new();
        self.waiting.lock().await.recv_many(&mut requests, max).await;

        let delivery = |request: SettleRequest| Delivery {
            order_id: Ok(request.order_id),
            redelivered: false,
            body: to_body(request.order_id),
            traceparent: Some(request.traceparent),
            message_id: None,
            content_type: None,
            replayed: None,
            tag: 0,
        };
        MessageBatch {
            messages: requests.into_iter().map(delivery).collect(),
            consumer_id: 0,
        }
    }

    pub(super) fn publish_events(&self, events: &[Event]) {
        if self.settled.receiver_count() > 0 {
            // Events about products have no order for a subject.
            let orders = events.iter().filter_map(|event| event.subject.parse().ok());
            let _ = self.settled.send(orders.collect());
        }
    }

    pub(super) fn listen(&self) -> Listener {
        Listener(self.settled.subscribe())
    }

    pub(super) fn depth(&self) -> u64 {
        (self.requests.max_capacity() - self.requests.capacity()) as u64
    }
}

impl Listener {
    pub(super) async fn next(&mut self) -> Result<Vec<OrderId>, QueueError> {
        let settled = self.0.recv().await;
        settled
            .map(|orders| orders.to_vec())
            .map_err(|error| QueueError(error.to_string()))
    }
}
