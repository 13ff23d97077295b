//! Every write runs in a batch. A [`Batcher`] passes the requests that gathered while the last batch ran to one function,
//! which pays for locks, round trips and the commit once. It has no timer: a request that finds no batch running is a batch
//! of one, at once.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument as _, Span};

use crate::domain::Error;

/// A batch starts beside a running one only once this many requests have gathered, or as many as the running one has if
/// that is more. Two small batches cost the database nearly twice as much as one.
const WORTH_A_TRANSACTION: usize = 16;

/// How often tasks that are ready may run before a batch starts: once to read their sockets, once to submit.
const READY_ROUNDS: usize = 2;

/// The bounds of a [`Batcher`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most requests in one batch.
    pub batch: usize,
    /// The most requests that wait in the queue; any further one is refused at once.
    pub queued: usize,
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
    submitted: Instant,
    /// The caller's span: a trace shows the batch below it.
    span: Span,
    answer: oneshot::Sender<Result<R, Error>>,
}

/// Gathers single requests into batches. Clones feed the same batches.
pub struct Batcher<T, R> {
    requests: mpsc::Sender<Request<T, R>>,
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self {
            requests: self.requests.clone(),
        }
    }
}

impl<T, R> Batcher<T, R>
where
    T: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    /// Starts a batcher that ends when its last clone is dropped.
    pub fn start<F, Answered>(limits: Limits, run: F) -> Self
    where
        F: Fn(Arc<[T]>) -> Answered + Send + Sync + 'static,
        Answered: Future<Output = Answers<R>> + Send + 'static,
    {
        let (requests, queue) = mpsc::channel(limits.queued);
        let run: Arc<Run<T, R>> = Arc::new(move |batch| Box::pin(run(batch)));
        tokio::spawn(dispatch(queue, limits, run));
        Self { requests }
    }

    /// Adds `item` to the next batch and waits for its answer. It stays in the batch if the caller stops waiting.
    ///
    /// # Errors
    /// [`Error::Overloaded`] at once when too many requests wait, or when this one has waited for longer than
    /// [`Limits::max_wait`]; else whatever the batch answered.
    pub async fn submit(&self, item: T) -> Result<R, Error> {
        let (answer, answered) = oneshot::channel();
        let request = Request {
            item,
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
    let mut is_open = true;

    while is_open || !gathered.is_empty() {
        if is_worth_starting(gathered.len(), &running, limits) {
            gather_ready(&mut queue, &mut gathered, limits.batch).await;
            let batch = without_expired(mem::take(&mut gathered), limits.max_wait);
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

        let may_gather = is_open && running.len() < limits.in_flight && gathered.len() < limits.batch;
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

/// Adds the requests that are about to arrive: those of connections that the runtime knows to be ready, and has not come to.
/// It lets them run first, which costs microseconds where there are none.
async fn gather_ready<T, R>(queue: &mut mpsc::Receiver<Request<T, R>>, gathered: &mut Vec<Request<T, R>>, max: usize) {
    for _ in 0..READY_ROUNDS {
        tokio::task::yield_now().await;
        while gathered.len() < max
            && let Ok(request) = queue.try_recv()
        {
            gathered.push(request);
        }
    }
}

/// A request that finds no batch running never waits. One that does waits for that batch to end, unless so many gather that
/// a second one beside it does not make both too small.
fn is_worth_starting(gathered: usize, running: &[usize], limits: Limits) -> bool {
    match running.iter().max() {
        None => gathered > 0,
        Some(largest) => running.len() < limits.in_flight && gathered >= WORTH_A_TRANSACTION.max(*largest),
    }
}

fn without_expired<T, R>(mut batch: Vec<Request<T, R>>, max_wait: Duration) -> Vec<Request<T, R>> {
    for expired in batch.extract_if(.., |request| request.submitted.elapsed() > max_wait) {
        let _ = expired.answer.send(Err(Error::Overloaded));
    }
    batch
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
    matches!(error, Error::Unavailable(_) | Error::Overloaded | Error::Busy(_))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Notify;

    use super::*;

    const LIMITS: Limits = Limits {
        batch: 100,
        queued: 10,
        in_flight: 1,
        max_wait: Duration::from_millis(200),
    };

    #[tokio::test]
    async fn what_arrives_while_a_batch_runs_becomes_the_next_batch() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Notify::new());
        let started = Arc::new(Notify::new());
        let batcher = {
            let (sizes, gate, started) = (Arc::clone(&sizes), Arc::clone(&gate), Arc::clone(&started));
            Batcher::start(LIMITS, move |batch: Arc<[u32]>| {
                let (sizes, gate, started) = (Arc::clone(&sizes), Arc::clone(&gate), Arc::clone(&started));
                async move {
                    let first = {
                        let mut sizes = sizes.lock().expect("not poisoned");
                        sizes.push(batch.len());
                        sizes.len() == 1
                    };
                    if first {
                        started.notify_one();
                        gate.notified().await;
                    }
                    Ok(batch.iter().map(|item| Ok(item * 2)).collect())
                }
            })
        };
        let submit = |item| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(item).await })
        };

        let mut answers = vec![submit(0)];
        started.notified().await;
        answers.extend((1..=5).map(submit));
        while batcher.requests.capacity() > LIMITS.queued - 5 {
            tokio::task::yield_now().await;
        }
        gate.notify_one();

        for (item, answer) in (0..).zip(answers) {
            assert_eq!(answer.await.expect("runs").ok(), Some(item * 2));
        }
        assert_eq!(*sizes.lock().expect("not poisoned"), [1, 5]);
    }

    #[tokio::test]
    async fn a_second_batch_runs_beside_the_first_only_once_it_is_worth_a_transaction() {
        let limits = Limits {
            in_flight: 2,
            queued: 100,
            ..LIMITS
        };
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::new(Notify::new());
        let batcher: Batcher<(), ()> = {
            let (sizes, started) = (Arc::clone(&sizes), Arc::clone(&started));
            Batcher::start(limits, move |batch: Arc<[()]>| {
                sizes.lock().expect("not poisoned").push(batch.len());
                started.notify_one();
                std::future::pending()
            })
        };
        let submit = || {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(()).await })
        };

        let mut requests = vec![submit()];
        started.notified().await;
        requests.extend((1..WORTH_A_TRANSACTION).map(|_| submit()));
        // One too few: they have gathered, and wait.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*sizes.lock().expect("not poisoned"), [1]);

        requests.push(submit());
        started.notified().await;
        assert_eq!(*sizes.lock().expect("not poisoned"), [1, WORTH_A_TRANSACTION]);
        requests.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn one_poisoned_request_does_not_fail_its_neighbours() {
        let batcher = Batcher::start(LIMITS, |batch: Arc<[i32]>| async move {
            if batch.iter().any(|item| *item < 0) {
                return Err(Error::Internal("refused".to_owned()));
            }
            Ok(batch.iter().map(|item| Ok(*item)).collect())
        });

        let submits = [1, -1, 3].map(|item| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(item).await })
        });

        let mut answers = Vec::new();
        for submit in submits {
            answers.push(submit.await.expect("runs").ok());
        }
        assert_eq!(answers, [Some(1), None, Some(3)]);
    }

    #[tokio::test]
    async fn a_request_that_waited_too_long_is_refused_and_never_run() {
        let (started, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let ran = Arc::new(Mutex::new(Vec::new()));
        let batcher = {
            let (started, gate, ran) = (Arc::clone(&started), Arc::clone(&gate), Arc::clone(&ran));
            Batcher::start(LIMITS, move |batch: Arc<[i32]>| {
                ran.lock().expect("not poisoned").extend(batch.iter().copied());
                let (started, gate) = (Arc::clone(&started), Arc::clone(&gate));
                async move {
                    started.notify_one();
                    gate.notified().await;
                    Ok(batch.iter().map(|_| Ok(())).collect())
                }
            })
        };
        let submit = |item| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(item).await })
        };

        let first = submit(1);
        started.notified().await;
        let expired = submit(2);
        tokio::time::sleep(LIMITS.max_wait * 2).await;
        gate.notify_one();

        assert!(first.await.expect("runs").is_ok());
        assert!(matches!(expired.await.expect("runs"), Err(Error::Overloaded)));
        assert_eq!(*ran.lock().expect("not poisoned"), [1]);
    }

    #[tokio::test]
    async fn beyond_the_bound_requests_are_refused_at_once() {
        let started = Arc::new(Notify::new());
        let starting = Arc::clone(&started);
        let batcher: Batcher<(), ()> = Batcher::start(LIMITS, move |_| {
            starting.notify_one();
            std::future::pending()
        });
        let submit = || {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(()).await })
        };

        let mut busy = vec![submit()];
        started.notified().await;
        busy.extend((0..LIMITS.queued).map(|_| submit()));
        while batcher.requests.capacity() > 0 {
            tokio::task::yield_now().await;
        }

        assert!(matches!(batcher.submit(()).await, Err(Error::Overloaded)));
        busy.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
