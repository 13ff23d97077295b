//! The HTTP/1.1 servers: takes connections up to a bound, cuts off those who send their headers too slowly or nothing at
//! all, and lets go of them in order when told to stop. The framework's own server does not bound the time for headers.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hyper::{Request as HyperRequest, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use poem::{
    Endpoint as _, Request, Response,
    endpoint::BoxEndpoint,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a connection may be idle between two requests: longer than most proxies keep theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a request's line and headers may take from their first byte.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest request line and headers, in bytes; more is answered by 431.
const MAX_HEADERS: usize = 64 * 1024;
/// How long requests in hand may take when the process is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);
/// Rest after a connection could not be taken, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection is about.
#[derive(Default)]
struct Progress {
    requests: AtomicUsize,
    at_work: AtomicBool,
}

/// A stream that fails when the headers of one request come in drops for longer than [`HEADER_TIMEOUT`]. Silence is the
/// server's own business.
struct Impatient {
    stream: TcpStream,
    progress: Arc<Progress>,
    /// How many requests there had been when `since` was set.
    seen: usize,
    /// When the headers that are on their way came in a second piece: most come in one, and cost no look at the clock.
    since: Option<Instant>,
    in_pieces: bool,
}

impl Impatient {
    fn new(stream: TcpStream, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            progress,
            seen: 0,
            since: None,
            in_pieces: false,
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.progress.at_work.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let requests = self.progress.requests.load(Ordering::Relaxed);
        if requests != self.seen {
            (self.seen, self.since, self.in_pieces) = (requests, None, false);
        }
        if !std::mem::replace(&mut self.in_pieces, true) {
            return Poll::Ready(Ok(()));
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() > HEADER_TIMEOUT {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }
}

/// A server that has its port and has not begun to answer.
pub struct Bound {
    listener: TcpListener,
    pub address: SocketAddr,
}

/// Takes the port, so that a port in use is known before anything else starts.
///
/// # Errors
/// When the address cannot be bound, in a sentence that names the key.
pub async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<Bound> {
    let failed = || format!("cannot listen on {address}: choose another `{key}`");
    let listener = TcpListener::bind(address).await.with_context(failed)?;
    let address = listener.local_addr().with_context(failed)?;
    Ok(Bound { listener, address })
}

/// Serves until `stop`, then finishes what is in hand, for [`DRAIN_TIMEOUT`] at most.
pub async fn run(
    bound: Bound,
    endpoint: BoxEndpoint<'static, Response>,
    max_connections: usize,
    stop: CancellationToken,
) {
    let endpoint = Arc::new(endpoint);
    let places = Arc::new(Semaphore::new(max_connections));
    let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&bound.listener, &places) => accepted,
        };
        let Ok((stream, remote, place)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (endpoint, local) = (Arc::clone(&endpoint), bound.address);
        let progress = Arc::new(Progress::default());
        let serving = Arc::clone(&progress);
        let service = service_fn(move |request: HyperRequest<Incoming>| {
            let (endpoint, serving) = (Arc::clone(&endpoint), Arc::clone(&serving));
            serving.requests.fetch_add(1, Ordering::Relaxed);
            serving.at_work.store(true, Ordering::Relaxed);
            async move {
                let request = Request::from((
                    request,
                    LocalAddr(local.into()),
                    RemoteAddr(remote.into()),
                    Scheme::HTTP,
                ));
                let response = endpoint.get_response(request).await;
                serving.at_work.store(false, Ordering::Relaxed);
                Ok::<hyper::Response<_>, std::convert::Infallible>(response.into())
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .max_buf_size(MAX_HEADERS)
            .serve_connection(TokioIo::new(Impatient::new(stream, progress)), service);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(bound.listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "some requests did not end in time and are cut off"
        );
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> anyhow::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await?;
    let (stream, remote) = listener
        .accept()
        .await
        .inspect_err(|error| tracing::warn!(%error, "a connection could not be taken"))?;
    let _ = stream.set_nodelay(true);
    Ok((stream, remote, place))
}
