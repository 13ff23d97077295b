//! A request's place in a trace, where traces are exported (W3C Trace Context, OpenTelemetry's conventions for HTTP);
//! and what is logged of a request that fails by our fault.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use poem::{Endpoint, Request, Response, http::header::HeaderName};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::{
    header::FromHeader,
    problem::{Problem, types::ProblemType},
    routes::{Route, Routes},
};
use crate::telemetry::traces;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken from a caller, in characters.
const MAX_REQUEST_ID: usize = 64;

/// How the service writes its requests into traces and logs. The names of fields are fixed when the program is
/// compiled, so the service, which knows what a request is about, writes them.
#[derive(Clone, Copy)]
pub struct RequestLog {
    /// The span of a request. It declares `http.response.status_code` and `otel.status_code`, which are recorded here.
    pub span: fn(&Request, &Route) -> Span,
    /// What may be written of a path: some hold secrets.
    pub path: for<'a> fn(&'a str, &'a Route) -> &'a str,
    /// Logs why a request was answered by a 5xx.
    pub failed: fn(&Failure<'_>),
}

/// A request that failed by our fault.
pub struct Failure<'a> {
    pub error: &'a str,
    pub kind: ProblemType,
    pub method: &'a str,
    /// As it may be written.
    pub path: &'a str,
    pub route: &'a Route,
    /// How long the request took.
    pub elapsed: Duration,
    pub request_id: &'a str,
    pub trace_id: Option<&'a str>,
    /// The address of the client, beyond trusted proxies.
    pub client: Option<String>,
}

/// The `traceparent` for what a request causes elsewhere: that of its own span where traces are exported, else that of
/// the caller.
#[derive(Clone)]
pub struct TraceParent(pub Option<String>);

impl FromHeader for TraceParent {
    fn from_request(request: &Request) -> Result<Self, Problem> {
        Ok(request.data().cloned().unwrap_or(Self(None)))
    }
}

/// Where the span of a request leaves its `traceparent` for the log.
type Exported = Arc<OnceLock<String>>;

/// What the log says of a request, should it fail.
pub struct RequestLogContext {
    pub request_id: String,
    client: Option<IpAddr>,
    received: Option<String>,
    exported: Option<Exported>,
}

impl RequestLogContext {
    /// Reads what the request brings along.
    pub fn of(request: &mut Request) -> Self {
        let received = request.header(TRACEPARENT).and_then(traces::normalize);
        if received.is_some() {
            request.set_data(TraceParent(received.clone()));
        }

        let exported = traces::is_enabled().then(Exported::default);
        if let Some(exported) = &exported {
            request.set_data(Arc::clone(exported));
        }

        Self {
            request_id: request_id(request),
            client: client_of(request),
            received,
            exported,
        }
    }

    /// The address of the client, beyond trusted proxies.
    pub fn client(&self) -> Option<String> {
        self.client.map(|address| address.to_string())
    }

    /// The id of the trace that the request belongs to.
    pub fn trace_id(&self) -> Option<&str> {
        let exported = self.exported.as_ref().and_then(|exported| exported.get());
        let traceparent = exported.or(self.received.as_ref())?;
        Some(traces::trace_id(traceparent))
    }
}

/// The address of the client, which the server has found behind trusted proxies.
pub fn client_of(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(SocketAddr::ip)
}

/// The caller's `X-Request-Id` if it is a short word, else a new one.
fn request_id(request: &Request) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let given = request
        .header(REQUEST_ID)
        .filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(is_plain));

    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Makes a span for every request while traces are exported.
pub struct Traced<E> {
    pub inner: E,
    pub routes: Arc<Routes>,
    pub log: RequestLog,
}

impl<E: Endpoint<Output = Response>> Endpoint for Traced<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        if !traces::is_enabled() {
            return self.inner.call(request).await;
        }

        let span = (self.log.span)(&request, self.routes.at(request.uri().path()));
        if let Some(TraceParent(Some(received))) = request.data() {
            traces::set_parent(&span, received);
        }
        if let Some(own) = traces::traceparent_of(&span) {
            if let Some(exported) = request.data::<Exported>() {
                let _ = exported.set(own.clone());
            }
            request.set_data(TraceParent(Some(own)));
        }

        let answer = self.inner.call(request).instrument(span.clone()).await;
        record(&span, &answer);
        answer
    }
}

fn record(span: &Span, answer: &poem::Result<Response>) {
    let status = match answer {
        Ok(response) => response.status(),
        Err(error) => error.status(),
    };

    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
