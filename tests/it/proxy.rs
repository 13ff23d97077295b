//! A TCP proxy before a server, which can lose answers and silence connections as networks do.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The answer of `PostgreSQL` to a commit (the tag of `CommandComplete`).
const COMMITTED: &[u8] = b"COMMIT\0";

/// Passes everything on, unless a method says otherwise.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Where new connections lead to.
    server: Mutex<String>,
    /// Connections with a lower number pass nothing on any more.
    silent_before: AtomicUsize,
    connections: AtomicUsize,
    /// Whether the server cannot be reached.
    is_cut: watch::Sender<bool>,
    /// Whether the next answer to a commit is dropped, and its connection closed.
    loses_commit: AtomicBool,
}

impl Proxy {
    /// Starts a proxy before the server of `url`, which must have a port.
    pub async fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(State::default());
        tokio::spawn(accept(listener, Arc::clone(&state)));
        let proxy = Self { port, state };
        proxy.lead_to(url);
        proxy
    }

    /// Leads new connections to the server of `url`, and leaves the open ones as they are: an address that is moved.
    pub fn lead_to(&self, url: &str) {
        let mut server = self.state.server.lock().unwrap_or_else(PoisonError::into_inner);
        host(url).clone_into(&mut server);
    }

    /// The same URL, through the proxy.
    pub fn url(&self, url: &str) -> String {
        url.replace(host(url), &format!("127.0.0.1:{}", self.port))
    }

    /// Silences the open connections, as when a firewall drops its state; new ones work.
    pub fn silence(&self) {
        let connections = self.state.connections.load(Ordering::SeqCst);
        self.state.silent_before.store(connections, Ordering::SeqCst);
    }

    /// Closes the open connections and every new one, as when the server is gone, until [`Proxy::heal`].
    pub fn cut(&self) {
        self.state.is_cut.send_replace(true);
    }

    pub fn heal(&self) {
        self.state.is_cut.send_replace(false);
    }

    pub fn lose_next_commit(&self) {
        self.state.loses_commit.store(true, Ordering::SeqCst);
    }

    /// Whether the answer to a commit was dropped since [`Proxy::lose_next_commit`].
    pub fn has_lost_commit(&self) -> bool {
        !self.state.loses_commit.load(Ordering::SeqCst)
    }
}

fn host(url: &str) -> &str {
    let (_, rest) = url.split_once('@').expect("a user");
    rest.split_once('/').expect("a database").0
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = state.connections.fetch_add(1, Ordering::SeqCst);
        let server = state.server.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = Arc::clone(&state);
        let mut is_cut = state.is_cut.subscribe();

        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::select! {
                () = pass_on(from_client, to_server, number, &state, false) => {}
                () = pass_on(from_server, to_client, number, &state, true) => {}
                _ = is_cut.wait_for(|is_cut| *is_cut) => {}
            }
        });
    }
}

/// Passes bytes on until the connection ends.
async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: usize,
    state: &State,
    answers: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if number < state.silent_before.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }

        let bytes = &buffer[..length];
        let committed = answers && bytes.windows(COMMITTED.len()).any(|window| window == COMMITTED);
        if committed && state.loses_commit.swap(false, Ordering::SeqCst) {
            return;
        }

        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
