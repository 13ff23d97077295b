//! The queue on RabbitMQ. Publishing, consuming and listening have a connection each, which is opened by the first call
//! that needs it and reopened by the next one after it is lost.

use std::sync::Arc;

use lapin::types::ShortString;

mod consume;
mod dead_letters;
mod headers;
mod hosts;
mod listen;
mod publish;
mod session;
mod topology;

pub(super) use listen::Listener;

use super::message::{DeadLetters, Delivery, MessageBatch, QueueError, SettleRequest, to_body, to_cloud_event};
use crate::domain::event::Event;
use consume::Consumer;
use headers::header;
use publish::{Message, Publisher, properties};
use session::Broker;
use topology::SETTLE;

#[derive(Clone)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    broker: Arc<Broker>,
    publisher: Publisher,
    consumer: Consumer,
}

impl Queue {
    pub(super) fn new(url: &str, prefix: &str, prefetch: u16) -> Result<Self, QueueError> {
        let broker = Arc::new(Broker::new(url, prefix)?);
        let publisher = Publisher::new(Arc::clone(&broker));
        let consumer = Consumer::new(Arc::clone(&broker), prefetch, Arc::clone(&publisher.requests_published));
        Ok(Self {
            shared: Arc::new(Shared {
                broker,
                publisher,
                consumer,
            }),
        })
    }

    pub(super) async fn publish_settle_requests(&self, requests: &[SettleRequest]) -> Result<(), QueueError> {
        let messages = requests.iter().map(|request| Message {
            exchange: self.shared.broker.topology.orders.clone(),
            routing_key: SETTLE.into(),
            mandatory: true,
            body: to_body(request.order_id),
            properties: properties(&request.order_id.to_string(), "application/json")
                .with_headers(header("traceparent", &request.traceparent)),
        });
        self.shared.publisher.publish_settle_requests(messages.collect()).await
    }

    pub(super) async fn dead_letter(&self, dead: &[(&Delivery, String)]) -> Result<(), QueueError> {
        let messages = dead.iter().map(|(delivery, reason)| Message {
            exchange: ShortString::default(),
            routing_key: self.shared.broker.topology.dead.clone(),
            mandatory: true,
            body: delivery.body.clone(),
            properties: dead_letters::properties(delivery, reason),
        });
        self.shared.publisher.publish(messages.collect()).await
    }

    /// Not mandatory: an event without a subscriber is published all the same.
    pub(super) async fn publish_events(&self, events: &[Event]) -> Result<(), QueueError> {
        let messages = events.iter().map(|event| Message {
            exchange: self.shared.broker.topology.events.clone(),
            routing_key: event.kind.as_ref().into(),
            mandatory: false,
            body: to_cloud_event(event),
            properties: properties(&event.id, "application/cloudevents+json; charset=utf-8"),
        });
        self.shared.publisher.publish(messages.collect()).await
    }

    pub(super) async fn next(&self, max: usize) -> Result<MessageBatch, QueueError> {
        self.shared.consumer.next(max).await
    }

    pub(super) async fn acknowledge(&self, batch: &MessageBatch) -> Result<(), QueueError> {
        self.shared.consumer.acknowledge(batch).await
    }

    pub(super) async fn listen(&self) -> Result<Listener, QueueError> {
        Listener::open(&self.shared.broker).await
    }

    pub(super) async fn depth(&self) -> Result<u64, QueueError> {
        self.depth_of(&self.shared.broker.topology.settle).await
    }

    pub(super) async fn dead_letter_depth(&self) -> Result<u64, QueueError> {
        self.depth_of(&self.shared.broker.topology.dead).await
    }

    async fn depth_of(&self, queue: &ShortString) -> Result<u64, QueueError> {
        let status = self.shared.publisher.queue_status(queue).await?;
        Ok(u64::from(status.message_count()))
    }

    pub(super) async fn dead_letters(&self, limit: usize) -> Result<DeadLetters, QueueError> {
        dead_letters::list(&self.shared.broker, limit).await
    }

    pub(super) async fn replay_dead_letters(&self, ids: Option<&[String]>) -> Result<Vec<String>, QueueError> {
        dead_letters::replay(&self.shared.broker, ids).await
    }

    pub(super) async fn purge_dead_letters(&self) -> Result<u32, QueueError> {
        dead_letters::purge(&self.shared.broker).await
    }

    pub(super) async fn close(&self) {
        self.shared.publisher.close().await;
        self.shared.consumer.close().await;
    }
}
