//! The HTTP/1.1 servers: takes connections up to a bound, cuts off those who send or read too slowly or do nothing at all,
//! and lets go of them in order when told to stop. The framework's own server does not bound the time for headers.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
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
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::timeout_stream::{Progress, TimeoutStream};

/// How long a connection may be idle between two requests: longer than most proxies keep theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The largest request line and headers, in bytes; more is answered by 431.
const MAX_HEADERS: usize = 64 * 1024;
/// How long requests in hand may take when the process is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);
/// Rest after a connection could not be taken, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
            .serve_connection(TokioIo::new(TimeoutStream::new(stream, progress)), service);
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
