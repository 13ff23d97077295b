//! What is told of a request that has to be worked for: a line in the log when it fails by our fault, which names the
//! request, its order and its trace; and, where traces are exported, the server's part of the trace (OpenTelemetry's
//! conventions for HTTP).

use poem::{
    Endpoint, Request, Response,
    http::{HeaderValue, StatusCode, Uri, header::HeaderName},
};
use tracing::{Instrument as _, Span, field::Empty};

use super::problem;
use crate::telemetry::{figures::route, trace};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id under which a request is answered and logged.
#[derive(Clone)]
pub struct RequestId(pub String);

/// The `traceparent` to hand on from a request.
#[derive(Clone)]
pub struct TraceParent(pub String);

pub struct Traced<E>(pub E);

impl<E: Endpoint<Output = Response>> Endpoint for Traced<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let told = Told {
            id: request.data::<RequestId>().cloned(),
            uri: request.uri().clone(),
            traceparent: request.headers().get(TRACEPARENT).cloned(),
        };
        let given = told.traceparent().map(str::to_owned);
        if !trace::is_on() {
            if let Some(given) = given {
                request.set_data(TraceParent(given));
            }
            let answer = self.0.call(request).await;
            told.log(&answer, told.traceparent());
            return answer;
        }
        let span = told.span(&request);
        if let Some(given) = &given {
            trace::adopt(&span, given);
        }
        let own = trace::of(&span).or(given);
        if let Some(own) = &own {
            request.set_data(TraceParent(own.clone()));
        }
        let answer = self.0.call(request).instrument(span.clone()).await;
        record(&span, &answer);
        told.log(&answer, own.as_deref());
        answer
    }
}

/// What the log says of a request.
struct Told {
    id: Option<RequestId>,
    uri: Uri,
    traceparent: Option<HeaderValue>,
}

impl Told {
    fn traceparent(&self) -> Option<&str> {
        let given = self.traceparent.as_ref()?.to_str().ok()?;
        trace::is_valid(given).then_some(given)
    }

    /// The id in the path of an order.
    fn order_id(&self) -> Option<&str> {
        self.uri.path().strip_prefix("/orders/")?.split('/').next()
    }

    fn span(&self, request: &Request) -> Span {
        let (method, route) = (request.method().as_str(), route(self.uri.path()));
        tracing::info_span!(
            "request",
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = route,
            http.response.status_code = Empty,
            order_id = self.order_id(),
        )
    }

    fn log(&self, answer: &poem::Result<Response>, traceparent: Option<&str>) {
        let Err(error) = answer else { return };
        let problem = problem::of(error);
        let Some((error, status)) = problem.cause() else { return };
        let (request_id, order_id) = (self.id.as_ref().map(|id| id.0.as_str()), self.order_id());
        let (path, trace_id) = (self.uri.path(), traceparent.map(trace::trace_id));
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error, path, request_id, order_id, trace_id, "answered 500");
        } else {
            tracing::warn!(error, path, request_id, order_id, trace_id, "answered 503");
        }
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
