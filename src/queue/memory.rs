//! The queue inside the process. What is in it dies with the process; the rows do not, and the sweeper rings for them
//! at the next start.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Mutex, mpsc};

use super::{Bell, Deliveries, Delivery, QueueError};
use crate::domain::OrderId;

/// The most bells that wait; beyond it they are left to the sweeper.
const CAPACITY: usize = 100_000;

#[derive(Clone)]
pub(super) struct Queue {
    bells: mpsc::Sender<OrderId>,
    waiting: Arc<Mutex<mpsc::Receiver<OrderId>>>,
    buried: Arc<AtomicUsize>,
}

impl Queue {
    pub(super) fn new() -> Self {
        let (bells, waiting) = mpsc::channel(CAPACITY);
        Self {
            bells,
            waiting: Arc::new(Mutex::new(waiting)),
            buried: Arc::default(),
        }
    }

    pub(super) fn ring(&self, bells: &[Bell]) -> Result<(), QueueError> {
        for bell in bells {
            self.bells
                .try_send(bell.order_id)
                .map_err(|_| QueueError("too many orders are waiting".to_owned()))?;
        }
        Ok(())
    }

    pub(super) async fn next(&self, max: usize) -> Deliveries {
        let mut orders = Vec::new();
        self.waiting.lock().await.recv_many(&mut orders, max).await;
        let delivery = |order_id| Delivery {
            order_id: Ok(order_id),
            redelivered: false,
            body: super::to_body(order_id),
            tag: 0,
        };
        Deliveries {
            deliveries: orders.into_iter().map(delivery).collect(),
            session: 0,
        }
    }

    /// Only this process rings here, so nothing unreadable ever arrives; what is buried is counted and logged.
    pub(super) fn bury(&self, dead: &[(&Delivery, String)]) {
        self.buried.fetch_add(dead.len(), Ordering::Relaxed);
    }

    pub(super) fn depth(&self) -> u64 {
        (self.bells.max_capacity() - self.bells.capacity()) as u64
    }
}
