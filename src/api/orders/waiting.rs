//! Waiting for an order to be settled: `Prefer: wait` (RFC 7240) and server-sent events (WHATWG HTML, section 9.2). The
//! answer is always read from the order's row; events only say when to read it again, for all who wait at once.

use std::{sync::Arc, time::Duration};

use futures_util::stream;
use poem::web::sse::Event;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, timeout, timeout_at};

use super::{bodies::OrderBody, load};
use crate::{
    app::App,
    db::Transient as _,
    domain::{Caller, Error, OrderId, orders::Order},
    entities::order::{self, OrderStatus},
    http::{
        event_stream::EventStream,
        prefer::{Prefer, wait_applied},
    },
    tasks::order_watch::{Awaited, OrderWatch, Subscription},
};

/// A stream ends after this; a browser then opens another one by itself.
const MAX_STREAM: Duration = Duration::from_mins(5);
/// The pause before an order that could not be read is read again.
const RELOAD_AFTER: Duration = Duration::from_secs(1);
/// A browser whose stream has ended opens another one after this.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);

/// A request that waits for an order.
pub struct Wait {
    subscription: Subscription,
    max_wait: Duration,
}

impl Wait {
    /// Subscribes to the order, if the request would rather wait and not too many wait already. Whatever happens to the
    /// order after this is not missed.
    pub async fn start(watch: &OrderWatch, id: OrderId, prefer: Prefer) -> Option<Self> {
        let max_wait = prefer.wait?;
        let subscription = watch.subscribe(id)?;
        subscription.until_listening().await;

        Some(Self { subscription, max_wait })
    }

    /// For the header `Preference-Applied`.
    pub fn applied(&self) -> String {
        wait_applied(self.max_wait)
    }

    /// The PENDING order once it is settled, or as it is when the time is up.
    ///
    /// # Errors
    /// As [`load`].
    pub async fn until_settled(mut self, app: &App, caller: Caller, pending: Order) -> Result<Order, Error> {
        let deadline = Instant::now() + self.max_wait;
        loop {
            let awaited = timeout_at(deadline, self.subscription.until_settled()).await;
            if let Ok(Awaited::Settled(row)) = awaited {
                // The lines of an order never change.
                let row = order::Model::clone(&row);
                return Ok(Order {
                    row,
                    items: pending.items,
                });
            }

            let order = load(app, caller, self.subscription.id()).await?;
            if !matches!(awaited, Ok(Awaited::Unknown)) || order.row.status != OrderStatus::Pending {
                return Ok(order);
            }
        }
    }
}

/// What an open stream has sent, and what it waits for.
struct Following {
    app: Arc<App>,
    caller: Caller,
    subscription: Subscription,
    /// The event that the client received last, from this stream or from one before it.
    last_event_id: Option<String>,
    is_listening: bool,
    is_settled: bool,
    deadline: Instant,
}

/// The order as it is, unless the client has just that, then after every change, until it is settled.
pub fn follow(
    app: Arc<App>,
    caller: Caller,
    subscription: Subscription,
    last_event_id: Option<String>,
) -> EventStream<OrderBody> {
    let following = Following {
        app,
        caller,
        subscription,
        last_event_id,
        is_listening: false,
        is_settled: false,
        deadline: Instant::now() + MAX_STREAM,
    };

    let events = stream::unfold(following, |mut following| async move {
        let order = following.next().await?;
        Some((event(order), following))
    });
    EventStream::new(RECONNECT_AFTER, events)
}

fn event(order: Order) -> Event {
    let id = event_id(&order);
    let data = serde_json::to_string(&OrderBody::from(order)).unwrap_or_default();
    Event::message(data).event_type("order").id(id)
}

/// Names the state that the order is in: the same on every replica, and another after every change.
pub fn event_id(order: &Order) -> String {
    let row = &order.row;
    let (state, since) = match (row.status, row.accepted_at) {
        (OrderStatus::Pending, None) => ("pending", Some(row.created_at)),
        (OrderStatus::Pending, accepted_at) => ("accepted", accepted_at),
        (OrderStatus::Paid, _) => ("paid", row.settled_at),
        (OrderStatus::Failed, _) => ("failed", row.settled_at),
        // Of a newer version: the client may not have it yet.
        (OrderStatus::Other(_), _) => ("other", Some(row.updated_at)),
    };
    let since = since.unwrap_or(row.created_at).to_utc().format(&Rfc3339);
    format!("{state}@{}", since.unwrap_or_default())
}

impl Following {
    /// The order when the client does not have it as it is; nothing once it is settled, or when the stream ends.
    async fn next(&mut self) -> Option<Order> {
        if self.is_settled {
            return None;
        }
        if !self.is_listening {
            self.subscription.until_listening().await;
            self.is_listening = true;
        }

        loop {
            let order = self.load().await?;
            let id = event_id(&order);
            self.is_settled = order.row.status != OrderStatus::Pending;
            if self.is_settled || self.last_event_id.as_ref() != Some(&id) {
                self.last_event_id = Some(id);
                return Some(order);
            }

            timeout_at(self.deadline, self.subscription.changed()).await.ok()??;
        }
    }

    /// The order's row, once it can be read: a browser whose stream ended now would be answered 503, and would give up.
    async fn load(&mut self) -> Option<Order> {
        while Instant::now() < self.deadline {
            match load(&self.app, self.caller, self.subscription.id()).await {
                Ok(order) => return Some(order),
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "could not read an order that is followed; retrying");
                }
                Err(_) => return None,
            }

            // An event is not waited for: it may be this one that could not be read.
            if let Ok(None) = timeout(RELOAD_AFTER, self.subscription.changed()).await {
                return None;
            }
        }
        None
    }
}
