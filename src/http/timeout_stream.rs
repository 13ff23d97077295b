//! A connection that fails when a client sends the headers of a request too slowly, or does not read the answer. The
//! server itself bounds how long a connection may be idle between two requests.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// How long a request's line and headers may take from their first byte.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may read nothing while there is something to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How far the server has come with a connection.
#[derive(Default)]
pub struct Progress {
    /// The requests whose headers have been read.
    pub requests: AtomicUsize,
    /// Whether a request is being handled.
    pub handling: AtomicBool,
}

/// A stream that fails when the headers of one request take longer than [`HEADER_TIMEOUT`], or when nothing can be
/// written for longer than [`WRITE_TIMEOUT`].
pub struct TimeoutStream {
    stream: TcpStream,
    progress: Arc<Progress>,
    /// [`Progress::requests`] at the last read.
    requests_seen: usize,
    /// Whether a part of the next request's headers has arrived, perhaps all of it. Most arrive in one piece, so the
    /// timer starts only when more is waited for.
    headers_started: bool,
    header_deadline: Option<Pin<Box<Sleep>>>,
    write_deadline: Option<Pin<Box<Sleep>>>,
}

impl TimeoutStream {
    pub fn new(stream: TcpStream, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            progress,
            requests_seen: 0,
            headers_started: false,
            header_deadline: None,
            write_deadline: None,
        }
    }

    /// Fails once headers that have started take longer than [`HEADER_TIMEOUT`].
    fn poll_header_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.headers_started || self.progress.handling.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        poll_deadline(&mut self.header_deadline, HEADER_TIMEOUT, context)
    }

    /// Fails once nothing could be written for [`WRITE_TIMEOUT`].
    fn check_written<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            return poll_deadline(&mut self.write_deadline, WRITE_TIMEOUT, context).map(Err);
        }
        self.write_deadline = None;
        written
    }
}

/// Pending until `limit` after the first call, then an error.
fn poll_deadline(
    deadline: &mut Option<Pin<Box<Sleep>>>,
    limit: Duration,
    context: &mut Context<'_>,
) -> Poll<io::Error> {
    let deadline = deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
    deadline.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
}

impl AsyncRead for TimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let requests = self.progress.requests.load(Ordering::Relaxed);
        if requests != self.requests_seen {
            self.requests_seen = requests;
            self.headers_started = false;
            self.header_deadline = None;
        }

        let read = Pin::new(&mut self.stream).poll_read(context, buffer);

        // The deadline also applies when bytes keep trickling in.
        if !matches!(read, Poll::Ready(Err(_)))
            && let Poll::Ready(timed_out) = self.poll_header_deadline(context)
        {
            return Poll::Ready(Err(timed_out));
        }
        if read.is_ready() {
            self.headers_started |= !self.progress.handling.load(Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_written(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
