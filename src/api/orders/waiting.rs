//! Waiting for an order to be settled: `Prefer: wait` (RFC 7240) and server-sent events (WHATWG HTML, section 9.2). The
//! answer is always read from the order's row; events only say when to read it again, for all who wait at once.

use std::{sync::Arc, time::Duration};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use poem::web::sse::Event;
use poem_openapi::payload::EventStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{bodies::OrderBody, load};
use crate::{
    app::App,
    domain::{Caller, Error, OrderId, orders::Order},
    entities::order::{self, OrderStatus},
    http::prefer::{Prefer, wait_applied},
    tasks::order_watch::{OrderWatch, Subscription},
};

/// A stream ends after this; a browser then opens another one by itself.
const MAX_STREAM: Duration = Duration::from_mins(5);
/// A comment is sent as often as this, so that proxies do not close a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

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
        let settled = timeout(self.max_wait, self.subscription.until_settled()).await;
        match settled {
            // The lines of an order never change.
            Ok(Some(row)) => Ok(Order {
                row: order::Model::clone(&row),
                items: pending.items,
            }),
            // It could not be read there, the time is up, or the process stops.
            _ => load(app, caller, self.subscription.id()).await,
        }
    }
}

/// What an open stream has sent, and what it waits for.
struct Following {
    app: Arc<App>,
    caller: Caller,
    subscription: Subscription,
    sent: Option<Order>,
    deadline: Instant,
}

/// The order as it is, then after every change, until it is settled.
pub fn follow(app: Arc<App>, caller: Caller, subscription: Subscription) -> EventStream<BoxStream<'static, OrderBody>> {
    let following = Following {
        app,
        caller,
        subscription,
        sent: None,
        deadline: Instant::now() + MAX_STREAM,
    };

    let orders = stream::unfold(following, |mut following| async move {
        let order = following.next().await?;
        Some((OrderBody::from(order), following))
    });
    EventStream::new(orders.boxed())
        .keep_alive(KEEP_ALIVE)
        .to_event(|order| Event::message(serde_json::to_string(&order).unwrap_or_default()).event_type("order"))
}

impl Following {
    /// The order when it differs from what was sent last; nothing once it is settled, or when the stream ends.
    async fn next(&mut self) -> Option<Order> {
        match &self.sent {
            None => self.subscription.until_listening().await,
            Some(sent) if sent.row.status != OrderStatus::Pending => return None,
            Some(_) => {}
        }

        loop {
            let order = load(&self.app, self.caller, self.subscription.id()).await.ok()?;
            if self.sent.as_ref() != Some(&order) {
                self.sent = Some(order.clone());
                return Some(order);
            }

            timeout_at(self.deadline, self.subscription.changed()).await.ok()??;
        }
    }
}
