//! Server-sent events (WHATWG HTML, section 9.2). The document gives a stream no schema: some generated clients read it to
//! its end as one text, others hand out the data of each event, and a schema of either would make the others throw.

use std::{marker::PhantomData, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use poem::{
    IntoResponse, Request, Response,
    http::{HeaderValue, header},
    web::sse::{Event, SSE},
};
use poem_openapi::{
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::Type,
};

use super::{header::FromHeader, problem::Problem};

const NAME: &str = "Last-Event-ID";
/// A comment is sent as often as this, so that proxies do not close a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An answer of events whose data is a `T` in JSON.
pub struct EventStream<T> {
    sse: SSE,
    of: PhantomData<fn() -> T>,
}

impl<T> EventStream<T> {
    /// First says after how long a client whose stream has ended opens another one, then sends the events.
    pub fn new(reconnect_after: Duration, events: impl Stream<Item = Event> + Send + 'static) -> Self {
        let milliseconds = u64::try_from(reconnect_after.as_millis()).unwrap_or(u64::MAX);
        let retry = stream::iter([Event::retry(milliseconds)]);

        Self {
            sse: SSE::new(retry.chain(events)).keep_alive(KEEP_ALIVE),
            of: PhantomData,
        }
    }
}

impl<T: Type> Payload for EventStream<T> {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::ANY))
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Send> IntoResponse for EventStream<T> {
    fn into_response(self) -> Response {
        // What the events say belongs to somebody, as all answers do.
        let mut response = self.sse.into_response();
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The id of the event that the client received last, if it was one that a server can have sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastEventId(pub Option<String>);

impl FromHeader for LastEventId {
    fn from_request(request: &Request) -> Result<Self, Problem> {
        Ok(Self(request.header(NAME).map(str::to_owned)))
    }
}
