//! The HTTP/1.1 servers: they take connections up to a bound, cut off clients that send or read too slowly or stay
//! idle, and finish the running requests when the process stops. The framework's own server does not bound the time for
//! headers.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper::{
    Request as HyperRequest, Response as HyperResponse, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
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

mod client_address;
mod connection;
mod framing;
mod timeout_stream;

use connection::Connection;
use timeout_stream::TimeoutStream;

use crate::{
    config::{Config, Network},
    http::head::TwoLengths,
};

/// How long a connection may be idle between two requests: longer than most proxies keep theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// The largest request line and headers, in bytes; more is answered by 431.
const MAX_HEADERS: usize = 64 * 1024;
/// How long running requests may take when the process stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(7);
/// The pause after a connection could not be accepted, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A server that has its port and does not answer yet.
pub struct Bound {
    listener: TcpListener,
    pub address: SocketAddr,
}

/// How a server treats its clients.
#[derive(Clone)]
pub struct Settings {
    max_connections: usize,
    trusted_proxies: Vec<Network>,
}

/// What answers the requests of all connections.
struct Service {
    endpoint: BoxEndpoint<'static, Response>,
    trusted_proxies: Vec<Network>,
}

/// A connection, and its share of the bound on connections.
struct Accepted {
    stream: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Settings {
    pub fn of(config: &Config) -> Self {
        Self {
            max_connections: config.limits.max_connections,
            trusted_proxies: config.server.trusted_proxies.clone(),
        }
    }
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

/// Serves until `stop`, then finishes the running requests, for [`DRAIN_TIMEOUT`] at most.
pub async fn run(bound: Bound, endpoint: BoxEndpoint<'static, Response>, settings: Settings, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(settings.max_connections));
    let service = Arc::new(Service {
        endpoint,
        trusted_proxies: settings.trusted_proxies,
    });
    let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());

    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&bound, &permits) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                connections.spawn(serve(accepted, Arc::clone(&service), graceful.watcher()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; retrying");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    drop(bound.listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "some requests timed out while the process stops and are cut off"
        );
    }
}

async fn accept(bound: &Bound, permits: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, remote) = bound.listener.accept().await?;
    let _ = stream.set_nodelay(true);

    Ok(Accepted {
        stream,
        local: bound.address,
        remote,
        _permit: permit,
    })
}

/// Answers the requests of one connection, until the client closes it or the process stops.
async fn serve(accepted: Accepted, service: Arc<Service>, watcher: Watcher) {
    let Accepted {
        stream,
        local,
        remote,
        _permit,
    } = accepted;
    let progress = Connection::default();
    let stream = TimeoutStream::new(stream, progress.clone());

    let answer = service_fn(move |mut request: HyperRequest<Incoming>| {
        let service = Arc::clone(&service);
        let in_progress = progress.begin(request.version());
        if in_progress.has_conflicting_lengths() {
            request.extensions_mut().insert(TwoLengths);
        }

        async move {
            let client = client_address::of(remote, request.headers(), &service.trusted_proxies);
            let (local, client) = (LocalAddr(local.into()), RemoteAddr(client.into()));
            let request = Request::from((request, local, client, Scheme::HTTP));
            let response: HyperResponse<_> = service.endpoint.get_response(request).await.into();
            Ok::<_, Infallible>(response.map(|body| in_progress.answer(body)))
        }
    });

    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(MAX_HEADERS)
        // Head and body of an answer are a few KiB: one copy costs less than a gathering write.
        .writev(false)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
