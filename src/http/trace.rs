//! The server's part of a trace, where traces are exported (OpenTelemetry's conventions for HTTP); and what is logged of a
//! request that fails by our fault: its cause, its id, its order and its trace.

use std::sync::{Arc, OnceLock};

use poem::{
    Endpoint, Request, Response,
    http::{StatusCode, header::HeaderName},
};
use tracing::{Instrument as _, Span, field::Empty};

use super::problem::Problem;
use crate::telemetry::{metrics::route, traces as trace};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The `traceparent` to hand on from a request.
#[derive(Clone)]
pub struct TraceParent(pub String);

/// What the log says of a request, should it fail.
pub struct RequestLogContext {
    /// That of the caller, or of the span that is exported, once it is known.
    traceparent: Arc<OnceLock<String>>,
}

impl RequestLogContext {
    /// Notes what the request brings along.
    #[must_use]
    pub fn of(request: &mut Request) -> Self {
        let told = Self {
            traceparent: Arc::default(),
        };
        let given = request.header(TRACEPARENT).and_then(trace::normalize);
        if let Some(given) = given {
            if trace::is_enabled() {
                request.set_data(Arc::clone(&told.traceparent));
            } else {
                let _ = told.traceparent.set(given.clone());
            }
            request.set_data(TraceParent(given));
        } else if trace::is_enabled() {
            request.set_data(Arc::clone(&told.traceparent));
        }
        told
    }

    /// Logs what the answer does not tell.
    pub fn log(&self, problem: &Problem, path: &str, request_id: &str) {
        let Some((error, status)) = problem.cause() else { return };
        let trace_id = self.traceparent.get().map(|traceparent| trace::trace_id(traceparent));
        let order_id = order_of(path);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error, path, request_id, order_id, trace_id, "answered 500");
        } else {
            tracing::warn!(error, path, request_id, order_id, trace_id, "answered 503");
        }
    }
}

pub struct Traced<E>(pub E);

impl<E: Endpoint<Output = Response>> Endpoint for Traced<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        if !trace::is_enabled() {
            return self.0.call(request).await;
        }
        let (method, path) = (request.method().as_str(), request.uri().path());
        let route = route(path);
        let span = tracing::info_span!(
            "request",
            otel.name = format!("{method} {route}"),
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = route,
            http.response.status_code = Empty,
            order_id = order_of(path),
        );
        if let Some(given) = request.data::<TraceParent>() {
            trace::set_parent(&span, &given.0);
        }
        if let Some(own) = trace::traceparent_of(&span) {
            if let Some(told) = request.data::<Arc<OnceLock<String>>>() {
                let _ = told.set(own.clone());
            }
            request.set_data(TraceParent(own));
        }
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
