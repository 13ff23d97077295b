//! Lets requests wait until an order is settled, by whichever process. The watch listens to the queue's events, and only
//! while a request waits. An event says no more than that the order's row is worth reading again, and what the row does not
//! bear out changes nothing. The watch reads the rows of all orders that were settled together at once, and hands each to
//! those who wait for it. While no events can be received, the watch polls the database instead: one query a second for all
//! orders that are waited for. While events are received it still polls every ten seconds, for orders that were settled
//! between two listeners.

use std::{
    collections::{HashMap, HashSet},
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
    entities::order::{self, OrderStatus},
    queue::{Listener, QueueError},
};

/// How long a request that is about to wait waits for the listener to connect.
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
/// How long one poll, or one read of settled orders, may take.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// How far an order has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    #[default]
    Created,
    Accepted,
    Settled,
}

/// What is known of an order that is waited for.
#[derive(Clone, Debug, Default)]
struct State {
    progress: Progress,
    /// The row of the settled order, if the watch has read it.
    settled: Option<Arc<order::Model>>,
    /// How often the watch could not read the row that an event names.
    unread: u32,
}

/// Knows which orders are waited for. Clones share it.
#[derive(Clone)]
pub struct OrderWatch {
    shared: Arc<Shared>,
}

struct Shared {
    /// The orders that are waited for, and nothing else.
    orders: Mutex<HashMap<OrderId, watch::Sender<State>>>,
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
    state: Option<watch::Receiver<State>>,
    /// As in the state when its owner looked last.
    unread: u32,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

/// What ends the waiting for an order to be settled.
pub enum Awaited {
    /// It is, and this is its row.
    Settled(Arc<order::Model>),
    /// It is, and the row has to be read.
    SettledUnread,
    /// It may be: there was an event, and the watch could not read the row.
    Unknown,
    /// The process stops.
    Stopped,
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
        let state = self.shared.orders().entry(id).or_default().subscribe();
        self.shared.subscribed.notify_one();

        let unread = state.borrow().unread;
        Some(Subscription {
            id,
            state: Some(state),
            unread,
            shared: Arc::clone(&self.shared),
            _permit: permit,
        })
    }

    /// Wakes the subscriptions to this order, unless they know of this progress already.
    pub fn notify(&self, id: OrderId, progress: Progress) {
        self.update(id, progress, None);
    }

    fn update(&self, id: OrderId, progress: Progress, settled: Option<Arc<order::Model>>) {
        if let Some(order) = self.shared.orders().get(&id) {
            order.send_if_modified(|known| {
                let is_news = known.progress < progress;
                if is_news {
                    known.progress = progress;
                    known.settled = settled;
                }
                is_news
            });
        }
    }

    /// Lets the subscriptions to this order read the row themselves.
    fn note_unread(&self, id: OrderId) {
        if let Some(order) = self.shared.orders().get(&id) {
            order.send_modify(|known| known.unread = known.unread.wrapping_add(1));
        }
    }

    /// Reads those of the `named` orders that are waited for, all at once, and wakes who waits for one that is settled. That a
    /// named order is settled is only said: anybody may have published the event.
    async fn hand_out(&self, app: &App, named: Vec<OrderId>) {
        let mut awaited: HashSet<OrderId> = {
            let orders = self.shared.orders();
            named.into_iter().filter(|id| orders.contains_key(id)).collect()
        };
        if awaited.is_empty() {
            return;
        }

        let ids: Vec<OrderId> = awaited.iter().copied().collect();
        let read = orders::find_rows(app.db.read(), &ids);
        let rows = app.db.timeout(READ_TIMEOUT, read).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "could not read settled orders; each request reads its own");
            Vec::new()
        });

        for row in rows {
            awaited.remove(&row.id);
            if row.status != OrderStatus::Pending {
                self.update(row.id, Progress::Settled, Some(Arc::new(row)));
            }
        }
        for id in awaited {
            self.note_unread(id);
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
                if let Err(error) = self.receive(app).await {
                    tracing::debug!(%error, "cannot receive events; polling the database, reconnecting");
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Receives until there has been no subscription for [`IDLE_TIMEOUT`].
    async fn receive(&self, app: &App) -> Result<(), QueueError> {
        let listener = app.queue.listen().await?;

        self.shared.listening.send_replace(true);
        let received = self.receive_from(app, listener).await;
        self.shared.listening.send_replace(false);
        received
    }

    /// Events are also taken while there is no subscription, so that they do not pile up in the queue.
    async fn receive_from(&self, app: &App, mut listener: Listener) -> Result<(), QueueError> {
        let mut idle_since = None;

        loop {
            if let Ok(received) = timeout(RETRY_DELAY, listener.next()).await {
                self.hand_out(app, received?).await;
            }

            if self.has_subscriptions() {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() > IDLE_TIMEOUT {
                return Ok(());
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
            match app.db.timeout(READ_TIMEOUT, progress).await {
                Ok(found) => {
                    for (id, _) in &found {
                        self.notify(*id, Progress::Accepted);
                    }
                    let settled = found.into_iter().filter(|(_, is_settled)| *is_settled);
                    self.hand_out(app, settled.map(|(id, _)| id).collect()).await;
                }
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
        let state = self.state.as_mut()?;
        tokio::select! {
            () = self.shared.stop.cancelled() => None,
            changed = state.changed() => changed.ok(),
        }
    }

    /// Waits until the order is settled, or may be.
    pub async fn until_settled(&mut self) -> Awaited {
        let Some(state) = self.state.as_mut() else {
            return Awaited::Stopped;
        };
        let seen = self.unread;
        let is_worth_reading = |state: &State| state.progress == Progress::Settled || state.unread != seen;
        let state = tokio::select! {
            () = self.shared.stop.cancelled() => return Awaited::Stopped,
            state = state.wait_for(is_worth_reading) => state,
        };

        match state {
            Ok(state) if state.progress == Progress::Settled => {
                let row = state.settled.clone();
                row.map_or(Awaited::SettledUnread, Awaited::Settled)
            }
            Ok(state) => {
                self.unread = state.unread;
                Awaited::Unknown
            }
            Err(_) => Awaited::Stopped,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // The receiver is dropped under the lock, so that of several that are dropped at once exactly one finds itself
        // to be the last.
        let mut orders = self.shared.orders();
        self.state = None;
        if orders.get(&self.id).is_some_and(|order| order.receiver_count() == 0) {
            orders.remove(&self.id);
        }
    }
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<State>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
