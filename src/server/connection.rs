//! How far the server has come with one connection: known to the stream that reads it, and set by the server that
//! answers. One task does both, so `Relaxed` is enough.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use futures_util::task::AtomicWaker;
use hyper::{
    body::{Body, Frame, SizeHint},
    http::Version,
};

/// One connection. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Connection(Arc<Shared>);

#[derive(Default)]
struct Shared {
    stage: AtomicU8,
    requests: AtomicUsize,
    interim_responses: AtomicBool,
    conflicting_lengths: AtomicUsize,
    half_closed: AtomicBool,
    reader: AtomicWaker,
}

/// What the server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits for one, or for the rest of its line and headers.
    Waiting,
    /// The answer is being made.
    Handling,
    /// The answer is being sent.
    Answering,
}

/// A request in progress. It ends when this is dropped.
pub(super) struct InProgress {
    connection: Connection,
    number: usize,
}

/// The body of an answer. The request is in progress until it is sent.
pub(super) struct ResponseBody<B> {
    body: B,
    _in_progress: InProgress,
}

impl Connection {
    /// A request has arrived, at least its line and headers.
    pub fn begin(&self, version: Version) -> InProgress {
        self.0.interim_responses.store(version >= Version::HTTP_11, Relaxed);
        self.set_stage(Stage::Handling);
        InProgress {
            connection: self.clone(),
            number: self.0.requests.fetch_add(1, Relaxed) + 1,
        }
    }

    /// The requests whose line and headers have arrived.
    pub fn requests(&self) -> usize {
        self.0.requests.load(Relaxed)
    }

    pub fn stage(&self) -> Stage {
        [Stage::Waiting, Stage::Handling, Stage::Answering][usize::from(self.0.stage.load(Relaxed)) % 3]
    }

    fn set_stage(&self, stage: Stage) {
        self.0.stage.store(stage as u8, Relaxed);
    }

    /// Whether the client of the request in progress understands interim (1xx) responses (RFC 9110, section 15.2).
    pub fn accepts_interim_responses(&self) -> bool {
        self.0.interim_responses.load(Relaxed)
    }

    /// Notes which request was the first with conflicting lengths, counted from 1.
    pub fn set_conflicting_lengths(&self, request: usize) {
        self.0.conflicting_lengths.store(request, Relaxed);
    }

    /// The client sends nothing more. `reader` is woken when the request in progress ends.
    pub fn set_half_closed(&self, reader: &Waker) {
        self.0.half_closed.store(true, Relaxed);
        self.0.reader.register(reader);
    }
}

impl InProgress {
    /// Whether the request has both a `Content-Length` and a `Transfer-Encoding`, of which the library drops the former.
    pub fn has_conflicting_lengths(&self) -> bool {
        self.connection.0.conflicting_lengths.load(Relaxed) == self.number
    }

    /// The answer is made, and `body` is to be sent.
    pub fn answer<B>(self, body: B) -> ResponseBody<B> {
        self.connection.set_stage(Stage::Answering);
        ResponseBody {
            body,
            _in_progress: self,
        }
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.connection.set_stage(Stage::Waiting);
        if self.connection.0.half_closed.load(Relaxed) {
            self.connection.0.reader.wake();
        }
    }
}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
