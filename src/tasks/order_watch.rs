//! Lets requests wait until an order is settled, by whichever process. It listens to the events of the queue, and only
//! while somebody waits. An event is a hint to look at the row again; while none can be heard, one question a second
//! to the database for all who wait stands in for them.

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

/// How long a request that is about to wait gives the listener to begin.
const BEGIN: Duration = Duration::from_millis(500);
/// Nobody has waited for so long: the listener ends.
const LINGER: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);
/// How often the database is asked while no event can be heard.
const POLL: Duration = Duration::from_secs(1);
/// While events are heard it is asked this many times more rarely, for what was lost between two listeners.
const RARELY: u32 = 10;
/// The most that one question may take.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// How far an order has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    #[default]
    Made,
    Accepted,
    Settled,
}

/// Knows who waits for what. Clones share it.
#[derive(Clone)]
pub struct OrderWatch {
    shared: Arc<Shared>,
}

struct Shared {
    orders: Mutex<HashMap<OrderId, watch::Sender<Progress>>>,
    /// Somebody has begun to wait.
    wanted: Notify,
    listening: watch::Sender<bool>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Waits for one order.
pub struct Subscription {
    id: OrderId,
    /// Gone only while it is dropped.
    progress: Option<watch::Receiver<Progress>>,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

impl OrderWatch {
    /// At most `places` wait at once. All waiting ends with `stop`.
    #[must_use]
    pub fn new(places: usize, stop: CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared {
                orders: Mutex::default(),
                wanted: Notify::new(),
                listening: watch::Sender::new(false),
                places: Arc::new(Semaphore::new(places)),
                stop,
            }),
        }
    }

    /// Begins to watch an order; read it only after [`Subscription::begun`]. `None` when too many wait.
    #[must_use]
    pub fn on(&self, id: OrderId) -> Option<Subscription> {
        let place = Arc::clone(&self.shared.places).try_acquire_owned().ok()?;
        let progress = Some(self.shared.orders().entry(id).or_default().subscribe());
        self.shared.wanted.notify_one();
        Some(Subscription {
            id,
            progress,
            shared: Arc::clone(&self.shared),
            _place: place,
        })
    }

    /// Tells those who watch this order, if it is news to them.
    pub fn tell(&self, id: OrderId, progress: Progress) {
        if let Some(order) = self.shared.orders().get(&id) {
            order.send_if_modified(|known| {
                let news = *known < progress;
                *known = progress.max(*known);
                news
            });
        }
    }

    /// Listens while anybody waits, until the end.
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
            self.shared.wanted.notified().await;
            while self.somebody_waits() {
                match app.queue.listen().await {
                    Ok(listener) => {
                        self.shared.listening.send_replace(true);
                        self.hear(listener).await;
                        self.shared.listening.send_replace(false);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no events can be heard; asking the database instead");
                        sleep(RETRY).await;
                    }
                }
            }
        }
    }

    /// Until the connection is lost, or nobody has waited for a while. What comes is taken all the time, whether anybody
    /// waits or not, so that it does not pile up.
    async fn hear(&self, mut listener: Listener) {
        let mut idle_since = None;
        loop {
            match timeout(RETRY, listener.next()).await {
                Ok(Ok(settled)) => settled.into_iter().for_each(|id| self.tell(id, Progress::Settled)),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "events are not heard any more");
                    return;
                }
                Err(_) => {}
            }
            if self.somebody_waits() {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() > LINGER {
                return;
            }
        }
    }

    async fn poll(&self, app: &App) {
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in 0_u32.. {
            tick.tick().await;
            if *self.shared.listening.borrow() && turn % RARELY != 0 {
                continue;
            }
            let ids: Vec<OrderId> = self.shared.orders().keys().copied().collect();
            if ids.is_empty() {
                continue;
            }
            match app
                .db
                .timeout(POLL_TIMEOUT, orders::progress(app.db.read(), &ids))
                .await
            {
                Ok(found) => found.into_iter().for_each(|(id, settled)| {
                    let progress = if settled { Progress::Settled } else { Progress::Accepted };
                    self.tell(id, progress);
                }),
                Err(error) => tracing::debug!(%error, "could not look after those who wait"),
            }
        }
    }

    fn somebody_waits(&self) -> bool {
        !self.shared.orders().is_empty()
    }
}

impl Subscription {
    #[must_use]
    pub fn id(&self) -> OrderId {
        self.id
    }

    /// Waits until events are heard, for a moment at most: what is settled after this is not missed.
    pub async fn begun(&self) {
        let mut listening = self.shared.listening.subscribe();
        let _ = timeout(BEGIN, listening.wait_for(|listening| *listening)).await;
    }

    /// Waits until there is something new to read, or the process stops: then `None`.
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
        // Under the lock, so that of several who leave at once one is the last.
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
