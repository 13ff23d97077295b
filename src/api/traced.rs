//! A span around every request that has to be worked for, so that whatever is logged on its way names the request and its
//! trace; and, where traces are exported, the server's part of the trace (OpenTelemetry's conventions for HTTP).

use poem::{Endpoint, Request, Response, http::header::HeaderName};
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    queue::new_traceparent,
    telemetry::{figures::route, trace},
};

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
        let (method, path) = (request.method().as_str(), request.uri().path());
        let route = route(path);
        let span = tracing::info_span!(
            "request",
            otel.name = Empty,
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = route,
            http.response.status_code = Empty,
            request_id = request.data::<RequestId>().map_or("", |id| &id.0),
            order_id = order_of(path),
            trace_id = Empty,
        );
        let given = request.header(TRACEPARENT).filter(|given| trace::is_valid(given));
        if let Some(given) = given {
            trace::adopt(&span, given);
        }
        if trace::is_on() {
            span.record("otel.name", format!("{method} {route}"));
        }
        let handed_on = trace::of(&span).or_else(|| given.map(str::to_owned));
        let handed_on = handed_on.unwrap_or_else(new_traceparent);
        span.record("trace_id", trace::trace_id(&handed_on));
        request.set_data(TraceParent(handed_on));
        let answer = self.0.call(request).instrument(span.clone()).await;
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

/// The id in the path of an order.
fn order_of(path: &str) -> Option<&str> {
    path.strip_prefix("/orders/")?.split('/').next()
}
