//! Carries settle requests to the workers, and events to whoever subscribes: through RabbitMQ, or through channels inside
//! the process. A settle request says which order's row to read and nothing more, so a lost one costs time and no order.

pub mod asyncapi;
mod memory;
mod message;
mod rabbitmq;

pub use message::{DeadLetter, DeadLetters, Delivery, MessageBatch, QueueError, SettleRequest};

use crate::domain::{OrderId, event::Event};

/// The queue of one process. Clones share its connections.
#[derive(Clone)]
pub struct Queue {
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Memory(memory::Queue),
    RabbitMq(rabbitmq::Queue),
}

impl Queue {
    /// Chooses the back end by the URL. It connects on first use, and reconnects whenever that is needed. `prefix` is the
    /// first part of the names of exchanges and queues; `prefetch` bounds the messages that are delivered and not yet
    /// acknowledged.
    ///
    /// # Errors
    /// Why the URL is not understood, without the URL, which may hold a password.
    pub fn new(url: &str, prefix: &str, prefetch: u16) -> Result<Self, QueueError> {
        let backend = if url == "memory:" {
            Backend::Memory(memory::Queue::new())
        } else {
            Backend::RabbitMq(rabbitmq::Queue::new(url, prefix, prefetch)?)
        };
        Ok(Self { backend })
    }

    /// Whether messages stay inside this process.
    pub fn is_memory(&self) -> bool {
        matches!(self.backend, Backend::Memory(_))
    }

    /// Publishes settle requests, and returns when the queue has confirmed all of them.
    ///
    /// # Errors
    /// When it has not, or not in time. Some of them may have been published all the same.
    pub async fn publish_settle_requests(&self, requests: &[SettleRequest]) -> Result<(), QueueError> {
        match &self.backend {
            Backend::Memory(queue) => queue.publish_settle_requests(requests),
            Backend::RabbitMq(queue) => queue.publish_settle_requests(requests).await,
        }
    }

    /// Waits for at least one message, and takes the others that have arrived with it, `max` in all.
    ///
    /// # Errors
    /// When the connection is lost. The next call reconnects.
    pub async fn next(&self, max: usize) -> Result<MessageBatch, QueueError> {
        match &self.backend {
            Backend::Memory(queue) => Ok(queue.next(max).await),
            Backend::RabbitMq(queue) => queue.next(max).await,
        }
    }

    /// Acknowledges the messages, so that the queue removes them.
    ///
    /// # Errors
    /// When their connection is lost. They are redelivered.
    pub async fn acknowledge(&self, batch: &MessageBatch) -> Result<(), QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(()),
            Backend::RabbitMq(queue) => queue.acknowledge(batch).await,
        }
    }

    /// Publishes messages that can never be processed to the dead letters, each with the reason.
    ///
    /// # Errors
    /// When the queue has not confirmed all of them. Do not acknowledge them then.
    pub async fn dead_letter(&self, dead: &[(&Delivery, String)]) -> Result<(), QueueError> {
        match &self.backend {
            // Only this process publishes there, so every message is readable; what it does not keep is in the log.
            Backend::Memory(_) => Ok(()),
            Backend::RabbitMq(queue) => queue.dead_letter(dead).await,
        }
    }

    /// Publishes events to whoever subscribes.
    ///
    /// # Errors
    /// When the queue has not confirmed all of them. Publish them again then, under the same ids.
    pub async fn publish_events(&self, events: &[Event]) -> Result<(), QueueError> {
        match &self.backend {
            Backend::Memory(queue) => {
                queue.publish_events(events);
                Ok(())
            }
            Backend::RabbitMq(queue) => queue.publish_events(events).await,
        }
    }

    /// Receives from now on which orders are settled, by whichever process.
    ///
    /// # Errors
    /// When the queue is unreachable.
    pub async fn listen(&self) -> Result<Listener, QueueError> {
        Ok(Listener(match &self.backend {
            Backend::Memory(queue) => ListenerBackend::Memory(queue.listen()),
            Backend::RabbitMq(queue) => ListenerBackend::RabbitMq(Box::new(Box::pin(queue.listen()).await?)),
        }))
    }

    /// How many messages wait to be delivered.
    ///
    /// # Errors
    /// When the queue is unreachable.
    pub async fn depth(&self) -> Result<u64, QueueError> {
        match &self.backend {
            Backend::Memory(queue) => Ok(queue.depth()),
            Backend::RabbitMq(queue) => queue.depth().await,
        }
    }

    /// How many dead letters there are; `None` where they are not kept.
    ///
    /// # Errors
    /// When the queue is unreachable.
    pub async fn dead_letter_depth(&self) -> Result<Option<u64>, QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(None),
            Backend::RabbitMq(queue) => queue.dead_letter_depth().await.map(Some),
        }
    }

    /// Connects if that is needed, and tells whether the queue can be used.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn ping(&self) -> Result<(), QueueError> {
        self.depth().await.map(drop)
    }

    /// The dead letters, oldest first, `limit` at most; with 0 they are only counted. They stay in the queue; of two callers at the same time each may
    /// see a part of them. The queue inside the process keeps none.
    ///
    /// # Errors
    /// When the queue is unreachable.
    pub async fn dead_letters(&self, limit: usize) -> Result<DeadLetters, QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(DeadLetters::default()),
            Backend::RabbitMq(queue) => queue.dead_letters(limit).await,
        }
    }

    /// Publishes the present dead letters as requests again, all of them or those with these ids, and returns their ids.
    ///
    /// # Errors
    /// When the connection is lost. What was not published again is still a dead letter.
    pub async fn replay_dead_letters(&self, ids: Option<&[String]>) -> Result<Vec<String>, QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(Vec::new()),
            Backend::RabbitMq(queue) => queue.replay_dead_letters(ids).await,
        }
    }

    /// Drops the dead letters, and returns how many.
    ///
    /// # Errors
    /// When the queue is unreachable.
    pub async fn purge_dead_letters(&self) -> Result<u32, QueueError> {
        match &self.backend {
            Backend::Memory(_) => Ok(0),
            Backend::RabbitMq(queue) => queue.purge_dead_letters().await,
        }
    }

    /// Closes the connections. Messages that are delivered and not acknowledged go back to the queue.
    pub async fn close(&self) {
        if let Backend::RabbitMq(queue) = &self.backend {
            queue.close().await;
        }
    }
}

/// Receives which orders have been settled since it was made.
pub struct Listener(ListenerBackend);

enum ListenerBackend {
    Memory(memory::Listener),
    RabbitMq(Box<rabbitmq::Listener>),
}

impl Listener {
    /// Waits for at least one settled order, and takes the others that have arrived with it.
    ///
    /// # Errors
    /// When events may have been missed. Listen anew, and read again what matters.
    pub async fn next(&mut self) -> Result<Vec<OrderId>, QueueError> {
        match &mut self.0 {
            ListenerBackend::Memory(listener) => listener.next().await,
            ListenerBackend::RabbitMq(listener) => listener.next().await,
        }
    }
}
