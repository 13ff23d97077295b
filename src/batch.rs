//! Creating orders and accepting payments run in batches. A [`Batcher`] passes the requests that gathered while the last batch
//! ran to one function, which pays for locks, round trips and the commit once. When no batch is running, one starts as soon as
//! the tasks that are already runnable have had two turns, which costs microseconds; while several clients are active, it waits
//! a moment for as many as came the last time (see [`Gathering`]).

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout_at,
};
use tracing::{Instrument as _, Span};

use crate::{domain::Error, gathering::Gathering};

/// A batch starts beside a running one only once this many requests have gathered, or as many as the running one has if
/// that is more. Two small batches cost the database nearly twice as much as one.
const WORTH_A_TRANSACTION: usize = 16;

/// How often the dispatcher yields before it starts a batch. A task that is runnable needs two turns to submit: one to read its
/// socket, one to run its handler.
const READY_ROUNDS: usize = 2;

/// The bounds of a [`Batcher`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most requests in one batch.
    pub batch: usize,
    /// The most weight in one batch, unless a single request has more. What a request weighs, [`Batcher::start`] is given.
    pub batch_weight: usize,
    /// The most requests that wait in the queue; any further one is refused at once.
    pub queued: usize,
    /// The most weight that waits; a further request is refused at once.
    pub queued_weight: usize,
    /// The most batches under way at once.
    pub in_flight: usize,
    /// The longest that a request waits for a batch; after that it is refused, and nothing has been done for it.
    pub max_wait: Duration,
}

/// One answer for each request of a batch, in the same order; or one error for all of them.
pub type Answers<R> = Result<Vec<Result<R, Error>>, Error>;
type Run<T, R> = dyn Fn(Arc<[T]>) -> Pin<Box<dyn Future<Output = Answers<R>> + Send>> + Send + Sync;

struct Request<T, R> {
    item: T,
    weight: Weight,
    submitted: Instant,
    /// The caller's span: a trace shows the batch below it.
    span: Span,
    answer: oneshot::Sender<Result<R, Error>>,
}

/// The weight of a request while it waits for a batch. It is taken off the sum of all when it is dropped.
struct Weight {
    weight: usize,
    waiting: Arc<AtomicUsize>,
}

impl Weight {
    /// Adds `weight` to what waits, unless that would be more than `max`.
    fn add(weight: usize, max: usize, waiting: &Arc<AtomicUsize>) -> Option<Self> {
        let others = waiting.fetch_add(weight, Ordering::Relaxed);
        let added = Self {
            weight,
            waiting: Arc::clone(waiting),
        };
        // A single request is always taken, however heavy.
        (others == 0 || others + weight <= max).then_some(added)
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

/// Gathers single requests into batches. Clones feed the same batches.
pub struct Batcher<T, R> {
    requests: mpsc::Sender<Request<T, R>>,
    weigh: fn(&T) -> usize,
    waiting: Arc<AtomicUsize>,
    queued_weight: usize,
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            weigh: self.weigh,
            waiting: Arc::clone(&self.waiting),
            queued_weight: self.queued_weight,
        }
    }
}

impl<T, R> Batcher<T, R>
where
    T: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    /// Starts a batcher that ends when its last clone is dropped. `weigh` says how much of a batch a request takes.
    pub fn start<F, Answered>(limits: Limits, weigh: fn(&T) -> usize, run: F) -> Self
    where
        F: Fn(Arc<[T]>) -> Answered + Send + Sync + 'static,
        Answered: Future<Output = Answers<R>> + Send + 'static,
    {
        let (requests, queue) = mpsc::channel(limits.queued);
        let run: Arc<Run<T, R>> = Arc::new(move |batch| Box::pin(run(batch)));
        tokio::spawn(dispatch(queue, limits, run));

        Self {
            requests,
            weigh,
            waiting: Arc::default(),
            queued_weight: limits.queued_weight,
        }
    }

    /// Adds `item` to the next batch and waits for its answer. It stays in the batch if the caller stops waiting.
    ///
    /// # Errors
    /// [`Error::Overloaded`] at once when too many or too heavy requests wait, or when this one has waited for longer than
    /// [`Limits::max_wait`]; else whatever the batch answered.
    pub async fn submit(&self, item: T) -> Result<R, Error> {
        let weight = Weight::add((self.weigh)(&item), self.queued_weight, &self.waiting).ok_or(Error::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        let request = Request {
            item,
            weight,
            submitted: Instant::now(),
            span: Span::current(),
            answer,
        };
        self.requests.try_send(request).map_err(|_| Error::Overloaded)?;

        answered
            .await
            .unwrap_or_else(|_| Err(Error::Internal("a batch ended without an answer".to_owned())))
    }
}

/// Starts one batch after another. Requests gather while a batch runs. Another batch may run beside it, up to
/// [`Limits::in_flight`], as soon as enough have gathered to be worth a transaction of their own.
async fn dispatch<T, R>(mut queue: mpsc::Receiver<Request<T, R>>, limits: Limits, run: Arc<Run<T, R>>)
where
    T: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut running: Vec<usize> = Vec::new();
    let mut gathered = Vec::new();
    let mut gathering = Gathering::default();
    let mut is_open = true;

    while is_open || !gathered.is_empty() {
        if is_worth_starting(&gathered, &running, limits) {
            gather_ready(&mut queue, &mut gathered, limits.batch).await;
            gather_more(&mut queue, &mut gathered, limits.batch, &mut gathering).await;
            refuse_expired(&mut gathered, limits.max_wait);
            let batch = take_batch(&mut gathered, limits.batch_weight);
            if !batch.is_empty() {
                let ended = Ended {
                    size: batch.len(),
                    ended: ended.clone(),
                };
                running.push(batch.len());
                tokio::spawn(run_and_answer(batch, Arc::clone(&run), ended));
            }
            continue;
        }

        let has_room = gathered.len() < limits.batch && !is_full(&gathered, limits.batch_weight);
        let may_gather = is_open && running.len() < limits.in_flight && has_room;
        let room = limits.batch - gathered.len();
        tokio::select! {
            biased;
            Some(size) = ends.recv() => {
                let index = running.iter().position(|running| *running == size);
                index.map(|index| running.swap_remove(index));
            }
            received = queue.recv_many(&mut gathered, room), if may_gather => is_open = received > 0,
        }
    }
}

/// Adds the requests that are about to arrive: yields, so that tasks which the runtime knows to be runnable can submit theirs.
async fn gather_ready<T, R>(queue: &mut mpsc::Receiver<Request<T, R>>, gathered: &mut Vec<Request<T, R>>, max: usize) {
    for _ in 0..READY_ROUNDS {
        // A batch that is worth its transaction is not kept waiting for the sake of a larger one.
        if gathered.len() >= WORTH_A_TRANSACTION {
            return;
        }
        tokio::task::yield_now().await;
        while gathered.len() < max
            && let Ok(request) = queue.try_recv()
        {
            gathered.push(request);
        }
    }
}

/// Waits for as many as came the last time, for a moment at most.
async fn gather_more<T, R>(
    queue: &mut mpsc::Receiver<Request<T, R>>,
    gathered: &mut Vec<Request<T, R>>,
    max: usize,
    gathering: &mut Gathering,
) {
    let (goal, deadline) = gathering.goal(gathered.len());
    while gathered.len() < goal.min(max) {
        let room = max - gathered.len();
        match timeout_at(deadline, queue.recv_many(gathered, room)).await {
            Ok(1..) => {}
            // The time is up, or the queue is closed.
            Ok(0) | Err(_) => break,
        }
    }
    gathering.record(gathered.len());
}

/// Whether to start a batch now: yes if none is running. Beside a running one only if as much has gathered as a batch may
/// weigh; or at least [`WORTH_A_TRANSACTION`], and as many as the largest has.
fn is_worth_starting<T, R>(gathered: &[Request<T, R>], running: &[usize], limits: Limits) -> bool {
    match running.iter().max() {
        None => !gathered.is_empty(),
        Some(largest) => {
            let is_large = gathered.len() >= WORTH_A_TRANSACTION.max(*largest);
            running.len() < limits.in_flight && (is_large || is_full(gathered, limits.batch_weight))
        }
    }
}

fn is_full<T, R>(gathered: &[Request<T, R>], max_weight: usize) -> bool {
    let weights = gathered.iter().map(|request| request.weight.weight);
    weights.sum::<usize>() >= max_weight
}

fn refuse_expired<T, R>(gathered: &mut Vec<Request<T, R>>, max_wait: Duration) {
    for expired in gathered.extract_if(.., |request| request.submitted.elapsed() > max_wait) {
        let _ = expired.answer.send(Err(Error::Overloaded));
    }
}

/// Takes the requests that came first, one at least, and leaves those that would make the batch too heavy.
fn take_batch<T, R>(gathered: &mut Vec<Request<T, R>>, max_weight: usize) -> Vec<Request<T, R>> {
    let mut weight = 0;
    let mut fits = |request: &Request<T, R>| {
        weight += request.weight.weight;
        weight <= max_weight
    };

    let count = gathered.iter().take_while(|request| fits(request)).count();
    gathered.drain(..count.max(1).min(gathered.len())).collect()
}

/// Tells the dispatcher, when it is dropped, that a batch has run.
struct Ended {
    size: usize,
    ended: mpsc::UnboundedSender<usize>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.ended.send(self.size);
    }
}

/// Runs a batch and answers its requests. The dispatcher is told as soon as the batch has run, so that the next one starts
/// without waiting for the answers.
async fn run_and_answer<T: Clone, R>(batch: Vec<Request<T, R>>, run: Arc<Run<T, R>>, ended: Ended) {
    // A trace shows the batch below the first of its requests.
    let span = batch.first().map_or_else(Span::none, |request| request.span.clone());
    let (items, waiting): (Vec<T>, Vec<_>) = batch.into_iter().map(|request| (request.item, request.answer)).unzip();
    let items: Arc<[T]> = items.into();

    match run(Arc::clone(&items)).instrument(span).await {
        Ok(answers) => {
            drop(ended);
            assert_eq!(answers.len(), waiting.len(), "a batch answers every request once");
            for (answer, waiting) in answers.into_iter().zip(waiting) {
                let _ = waiting.send(answer);
            }
        }
        // One request may be why the database refused all of them.
        Err(error) if items.len() > 1 && !concerns_all(&error) => run_one_by_one(&items, waiting, &*run).await,
        Err(error) => {
            for waiting in waiting {
                let _ = waiting.send(Err(error.clone()));
            }
        }
    }
}

/// Runs every request as a batch of its own, so that one that fails does so alone. Once the database cannot be reached,
/// the remaining requests get that error without being tried.
async fn run_one_by_one<T: Clone, R>(items: &[T], waiting: Vec<oneshot::Sender<Result<R, Error>>>, run: &Run<T, R>) {
    let mut outage: Option<Error> = None;

    for (item, waiting) in items.iter().zip(waiting) {
        let answer = match &outage {
            Some(error) => Err(error.clone()),
            None => run_alone(item.clone(), run).await,
        };

        if outage.is_none() {
            outage = answer.as_ref().err().filter(|error| concerns_all(error)).cloned();
        }
        let _ = waiting.send(answer);
    }
}

async fn run_alone<T, R>(item: T, run: &Run<T, R>) -> Result<R, Error> {
    let mut answers = run(Arc::from([item])).await?;
    answers
        .pop()
        .unwrap_or_else(|| Err(Error::Internal("a batch of one gave no answer".to_owned())))
}

/// Whether any other request would have failed in the same way at that moment.
fn concerns_all(error: &Error) -> bool {
    matches!(
        error,
        Error::Unavailable(_) | Error::Reconnect(_) | Error::Overloaded | Error::Busy(_)
    )
}

#[cfg(test)]
mod tests;
