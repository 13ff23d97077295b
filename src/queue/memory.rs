//! The queue inside the process. What is in it dies with the process; the rows do not, and the sweeper rings for them
//! at the next start.

use std::sync::Arc;

use tokio::sync::{Mutex, broadcast, mpsc};

use super::{Bell, Deliveries, Delivery, Event, QueueError};
use crate::domain::OrderId;

/// The most bells that wait; beyond it they are left to the sweeper.
const CAPACITY: usize = 100_000;
/// The most batches of events that wait to be heard; who is slower misses some, and is told so.
const HEARD: usize = 256;

#[derive(Clone)]
pub(super) struct Queue {
    bells: mpsc::Sender<Bell>,
    waiting: Arc<Mutex<mpsc::Receiver<Bell>>>,
    settled: broadcast::Sender<Arc<[OrderId]>>,
}

pub(super) struct Listener(broadcast::Receiver<Arc<[OrderId]>>);

impl Queue {
    pub(super) fn new() -> Self {
        let (bells, waiting) = mpsc::channel(CAPACITY);
        Self {
            bells,
            waiting: Arc::new(Mutex::new(waiting)),
            settled: broadcast::Sender::new(HEARD),
        }
    }

    pub(super) fn ring(&self, bells: &[Bell]) -> Result<(), QueueError> {
        for bell in bells {
            self.bells
                .try_send(bell.clone())
                .map_err(|_| QueueError("too many orders are waiting".to_owned()))?;
        }
        Ok(())
    }

    pub(super) async fn next(&self, max: usize) -> Deliveries {
        let mut bells = Vec::new();
        self.waiting.lock().await.recv_many(&mut bells, max).await;
        let delivery = |bell: Bell| Delivery {
            order_id: Ok(bell.order_id),
            redelivered: false,
            body: super::to_body(bell.order_id),
            traceparent: Some(bell.traceparent),
            message_id: None,
            content_type: None,
            tag: 0,
        };
        Deliveries {
            deliveries: bells.into_iter().map(delivery).collect(),
            session: 0,
        }
    }

    pub(super) fn announce(&self, events: &[Event]) {
        if self.settled.receiver_count() > 0 {
            let orders = events.iter().filter_map(|event| event.subject.parse().ok());
            let _ = self.settled.send(orders.collect());
        }
    }

    pub(super) fn listen(&self) -> Listener {
        Listener(self.settled.subscribe())
    }

    pub(super) fn depth(&self) -> u64 {
        (self.bells.max_capacity() - self.bells.capacity()) as u64
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
