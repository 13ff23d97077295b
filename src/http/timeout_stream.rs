//! A connection that does not wait for ever for a client who sends the headers of a request in drops, or does not read
//! the answer. Silence between two requests is the server's own business.

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

/// What a connection is about.
#[derive(Default)]
pub struct Progress {
    pub requests: AtomicUsize,
    pub at_work: AtomicBool,
}

/// A stream that fails when the headers of one request take longer than [`HEADER_TIMEOUT`], or when nothing can be
/// written for longer than [`WRITE_TIMEOUT`].
pub struct TimeoutStream {
    stream: TcpStream,
    progress: Arc<Progress>,
    /// How many requests there had been when their headers were last looked at.
    seen: usize,
    /// A part of the next request's headers has come, and perhaps all: most come in one piece, and cost no timer.
    begun: bool,
    headers_due: Option<Pin<Box<Sleep>>>,
    write_due: Option<Pin<Box<Sleep>>>,
}

impl TimeoutStream {
    pub fn new(stream: TcpStream, progress: Arc<Progress>) -> Self {
        Self {
            stream,
            progress,
            seen: 0,
            begun: false,
            headers_due: None,
            write_due: None,
        }
    }

    /// Ends the wait for headers that have begun and do not come to an end.
    fn wait_for_headers(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.begun || self.progress.at_work.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        late(&mut self.headers_due, HEADER_TIMEOUT, context)
    }

    fn written<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            return late(&mut self.write_due, WRITE_TIMEOUT, context).map(|late| late.and(Err(timed_out())));
        }
        self.write_due = None;
        written
    }
}

/// Pending until `limit` after this was first asked, then an error.
fn late(due: &mut Option<Pin<Box<Sleep>>>, limit: Duration, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    let due = due.get_or_insert_with(|| Box::pin(sleep(limit)));
    due.as_mut().poll(context).map(|()| Err(timed_out()))
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl AsyncRead for TimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let requests = self.progress.requests.load(Ordering::Relaxed);
        if requests != self.seen {
            (self.seen, self.begun, self.headers_due) = (requests, false, None);
        }
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.wait_for_headers(context),
            // Drops that come faster than anybody waits for them are late all the same.
            Poll::Ready(Ok(())) if self.wait_for_headers(context).is_ready() => Poll::Ready(Err(timed_out())),
            read @ Poll::Ready(_) => {
                self.begun |= !self.progress.at_work.load(Ordering::Relaxed);
                read
            }
        }
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written, context)
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.written(written, context)
    }
}
