//! The queue inside the process. What is in it dies with the process; the rows do not, and the sweeper notify_attempts for them
//! at the next start.

use std::sync::Arc;

use tokio::sync::{Mutex, broadcast, mpsc};

use super::{Delivery, Event, MessageBatch, QueueError, SettleRequest};
use crate::domain::OrderId;

/// The most requests that wait; beyond it they are left to the sweeper.
const CAPACITY: usize = 100_000;
/// The most batches of events that wait to be heard; who is slower misses some, and is told so.
const HEARD: usize = 256;

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
            settled: broadcast::Sender::new(HEARD),
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
            body: super::to_body(request.order_id),
            traceparent: Some(request.traceparent),
            message_id: None,
            content_type: None,
            tag: 0,
        };
        MessageBatch {
            messages: requests.into_iter().map(delivery).collect(),
            session: 0,
        }
    }

    pub(super) fn publish_events(&self, events: &[Event]) {
        if self.settled.receiver_count() > 0 {
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
