//! Lets requests wait until an order is settled, by whichever process. The watch listens to the queue's events, and only
//! while a request waits. An event says no more than that the order's row is worth reading again. While no events can be
//! received, the watch polls the database instead: one query a second for all orders that are waited for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    domain::{OrderId, orders},
    queue::Listener,
};

/// How long a request that is about to wait lets the listener connect.
const LISTEN_TIMEOUT: Duration = Duration::from_millis(500);
/// The listener disconnects after no request has waited for so long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before the listener connects again, and how often it looks whether any request still waits.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often the database is polled while no events are received.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// While events are received, every so many intervals one poll is enough: it finds what was settled between two
/// listeners.
const INTERVALS_PER_POLL: u32 = 10;
/// How long one poll may take.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// How far an order has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    #[default]
    Created,
    Accepted,
    Settled,
}

/// Knows which orders are waited for. Clones share it.
#[derive(Clone)]
pub struct OrderWatch {
    shared: Arc<Shared>,
}

struct Shared {
    /// The orders that are waited for, and nothing else.
    orders: Mutex<HashMap<OrderId, watch::Sender<Progress>>>,
    /// Wakes the listener for the first subscription.
    subscribed: Notify,
    /// Whether events are received now.
    listening: watch::Sender<bool>,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Waits for one order.
pub struct Subscription {
    id: OrderId,
    /// `None` only while it is dropped.
    progress: Option<watch::Receiver<Progress>>,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl OrderWatch {
    /// Allows `max_subscriptions` at once. All of them end when `stop` is cancelled.
    pub fn new(max_subscriptions: usize, stop: CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared {
                orders: Mutex::default(),
                subscribed: Notify::new(),
                listening: watch::Sender::new(false),
                permits: Arc::new(Semaphore::new(max_subscriptions)),
                stop,
            }),
        }
    }

    /// Subscribes to an order. Read the order after [`Subscription::until_listening`], so that no change is missed.
    /// `None` when there are too many subscriptions.
    pub fn subscribe(&self, id: OrderId) -> Option<Subscription> {
        let permit = Arc::clone(&self.shared.permits).try_acquire_owned().ok()?;
        let progress = self.shared.orders().entry(id).or_default().subscribe();
        self.shared.subscribed.notify_one();

        Some(Subscription {
            id,
            progress: Some(progress),
            shared: Arc::clone(&self.shared),
            _permit: permit,
        })
    }

    /// Wakes the subscriptions to this order, unless they know of this progress already.
    pub fn notify(&self, id: OrderId, progress: Progress) {
        if let Some(order) = self.shared.orders().get(&id) {
            order.send_if_modified(|known| {
                let is_news = *known < progress;
                *known = progress.max(*known);
                is_news
            });
        }
    }

    /// Listens and polls while there are subscriptions, until `stop`.
    pub async fn run(self, app: App) {
        let stop = self.shared.stop.clone();
        let work = async { tokio::join!(self.listen(&app), self.poll(&app)) };
        tokio::select! {
            () = stop.cancelled() => {}
            _ = work => {}
        }
    }

    async fn listen(&self, app: &App) {
        loop {
            self.shared.subscribed.notified().await;

            while self.has_subscriptions() {
                match app.queue.listen().await {
                    Ok(listener) => {
                        self.shared.listening.send_replace(true);
                        self.receive(listener).await;
                        self.shared.listening.send_replace(false);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive events; polling the database, reconnecting");
                        sleep(RETRY_DELAY).await;
                    }
                }
            }
        }
    }

    /// Receives until the connection is lost, or until there has been no subscription for [`IDLE_TIMEOUT`]. Events are
    /// also taken while there is none, so that they do not pile up in the queue.
    async fn receive(&self, mut listener: Listener) {
        let mut idle_since = None;

        loop {
            match timeout(RETRY_DELAY, listener.next()).await {
                Ok(Ok(settled)) => settled.into_iter().for_each(|id| self.notify(id, Progress::Settled)),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "lost the connection for events; reconnecting");
                    return;
                }
                Err(_) => {}
            }

            if self.has_subscriptions() {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() > IDLE_TIMEOUT {
                return;
            }
        }
    }

    async fn poll(&self, app: &App) {
        let mut tick = interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);

        for turn in 0_u32.. {
            tick.tick().await;
            if *self.shared.listening.borrow() && turn % INTERVALS_PER_POLL != 0 {
                continue;
            }
            let ids: Vec<OrderId> = self.shared.orders().keys().copied().collect();
            if ids.is_empty() {
                continue;
            }

            let progress = orders::progress(app.db.read(), &ids);
            match app.db.timeout(POLL_TIMEOUT, progress).await {
                Ok(found) => found.into_iter().for_each(|(id, settled)| {
                    let progress = if settled { Progress::Settled } else { Progress::Accepted };
                    self.notify(id, progress);
                }),
                Err(error) => tracing::debug!(%error, "could not poll the orders that are waited for; retrying"),
            }
        }
    }

    fn has_subscriptions(&self) -> bool {
        !self.shared.orders().is_empty()
    }
}

impl Subscription {
    pub fn id(&self) -> OrderId {
        self.id
    }

    /// Waits until events are received, for half a second at most: what is settled after that is not missed.
    pub async fn until_listening(&self) {
        let mut listening = self.shared.listening.subscribe();
        let _ = timeout(LISTEN_TIMEOUT, listening.wait_for(|listening| *listening)).await;
    }

    /// Waits until the order's row is worth reading again. `None` when the process stops.
    pub async fn changed(&mut self) -> Option<()> {
        let progress = self.progress.as_mut()?;
        tokio::select! {
            () = self.shared.stop.cancelled() => None,
            changed = progress.changed() => changed.ok(),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // The receiver is dropped under the lock, so that of several that are dropped at once exactly one finds itself
        // to be the last.
        let mut orders = self.shared.orders();
        self.progress = None;
        if orders.get(&self.id).is_some_and(|order| order.receiver_count() == 0) {
            orders.remove(&self.id);
        }
    }
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<Progress>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
