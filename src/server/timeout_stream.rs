//! A connection that fails when a client sends the headers of a request too slowly, does not read the answer, or is gone
//! while its answer is made. The server itself bounds how long a connection may be idle between two requests.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{
    connection::{Connection, Stage},
    framing::Framing,
};

/// How long a request's line and headers may take from their first byte.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may read nothing while there is something to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a client that has closed its sending side is checked for being gone.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// After so many checks such a client is sent something: most answers are out by then.
const CHECKS_BEFORE_PROBE: u32 = 6;
/// What it is sent. Clients pass over it (RFC 9110, section 15.2); the system of one that is gone resets the connection.
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A stream that fails when the headers of one request take longer than [`HEADER_TIMEOUT`], or when nothing can be
/// written for longer than [`WRITE_TIMEOUT`].
pub(super) struct TimeoutStream {
    stream: TcpStream,
    connection: Connection,
    framing: Framing,
    /// The requests that were handed on, at the last read.
    requests_seen: usize,
    header_deadline: Option<Pin<Box<Sleep>>>,
    write_deadline: Option<Pin<Box<Sleep>>>,
    next_check: Option<Pin<Box<Sleep>>>,
    checks: u32,
}

impl TimeoutStream {
    pub fn new(stream: TcpStream, connection: Connection) -> Self {
        Self {
            stream,
            connection,
            framing: Framing::default(),
            requests_seen: 0,
            header_deadline: None,
            write_deadline: None,
            next_check: None,
            checks: 0,
        }
    }

    /// Fails once headers that have started take longer than [`HEADER_TIMEOUT`].
    fn poll_header_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.framing.is_in_head() || self.connection.stage() != Stage::Waiting {
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

    /// The client has closed its sending side after a whole request (RFC 9112, section 9.6), so its answer is made all
    /// the same. Pending until the answer is out, or an error once the client is found to be gone: closing one side and
    /// closing both look the same until something is sent.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.set_half_closed(context.waker());

        loop {
            let check = self.next_check.get_or_insert_with(|| Box::pin(sleep(CHECK_EVERY)));
            ready!(check.as_mut().poll(context));
            self.next_check = None;
            self.checks += 1;

            if let Some(error) = self.stream.take_error()? {
                return Poll::Ready(Err(error));
            }
            if self.checks == CHECKS_BEFORE_PROBE {
                self.probe()?;
            }
        }
    }

    /// Sends [`PROBE`] where nothing else is being sent, to those who know it.
    fn probe(&self) -> io::Result<()> {
        let is_writing = self.write_deadline.is_some() || self.connection.stage() != Stage::Handling;
        if is_writing || !self.connection.accepts_interim_responses() {
            return Ok(());
        }

        match self.stream.try_write(PROBE) {
            Ok(length) if length < PROBE.len() => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
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
        let requests = self.connection.requests();
        if requests != self.requests_seen {
            self.requests_seen = requests;
            self.header_deadline = None;
            self.checks = 0;
        }

        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = &buffer.filled()[before..];
        let has_ended = matches!(read, Poll::Ready(Ok(()))) && bytes.is_empty();
        self.framing.read(bytes);
        if let Some(request) = self.framing.conflicting_lengths() {
            self.connection.set_conflicting_lengths(request);
        }

        if has_ended && self.framing.is_between_requests() && self.connection.stage() != Stage::Waiting {
            return self.poll_gone(context);
        }
        // The deadline also applies when bytes keep trickling in.
        if !matches!(read, Poll::Ready(Err(_)))
            && let Poll::Ready(timed_out) = self.poll_header_deadline(context)
        {
            return Poll::Ready(Err(timed_out));
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
