//! How requests appear in traces and logs. The order that a request is about is part of both, so that everything about
//! one order can be found by its id.

use poem::{Request, http::StatusCode};
use poem_openapi::Tags as _;
use tracing::{Span, field::Empty};

use super::{
    Tag,
    errors::{CARTS_UNAVAILABLE, DATABASE_UNAVAILABLE},
};
use crate::{
    http::{
        problem::types::ProblemType,
        routes::Route,
        trace::{Failure, RequestLog, client_of},
    },
    telemetry::outage::{self, milliseconds},
};

pub const REQUEST_LOG: RequestLog = RequestLog { span, path, failed };

/// By OpenTelemetry's conventions for HTTP servers.
fn span(request: &Request, route: &Route) -> Span {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let template = route.template();

    tracing::info_span!(
        "request",
        otel.name = format!("{method} {template}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = template,
        http.response.status_code = Empty,
        client.address = client_of(request).map(|address| address.to_string()),
        order_id = order_id(route, path),
    )
}

/// The path, without the id of a cart, which is a secret.
fn path<'a>(path: &'a str, route: &'a Route) -> &'a str {
    const CARTS: &str = "/carts/";

    if route.tag() == Some(Tag::Carts.name()) {
        route.template()
    } else if path.starts_with(CARTS) {
        CARTS
    } else {
        path
    }
}

/// One line for a request that failed by our fault. Of those that an outage makes fail, the first ones; the line at the end
/// of the outage counts the others.
fn failed(failure: &Failure<'_>) {
    let Failure {
        error,
        kind,
        method,
        path,
        route,
        elapsed,
        request_id,
        trace_id,
        ref client,
    } = *failure;
    if is_one_of_many(kind, error) {
        return;
    }

    let (order_id, status) = (order_id(route, path), kind.status.as_u16());
    let (route, duration_ms) = (route.template(), milliseconds(elapsed));
    if kind.status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(
            error,
            method,
            route,
            path,
            status,
            duration_ms,
            request_id,
            order_id,
            trace_id,
            client,
            "answered 500"
        );
    } else {
        tracing::warn!(
            error,
            method,
            route,
            path,
            status,
            duration_ms,
            request_id,
            order_id,
            trace_id,
            client,
            "answered 503"
        );
    }
}

/// Notes an outage that makes requests fail. Returns whether enough of them have been logged.
fn is_one_of_many(kind: ProblemType, error: &str) -> bool {
    if kind == DATABASE_UNAVAILABLE {
        !outage::DATABASE.record_failed_request(&error)
    } else if kind == CARTS_UNAVAILABLE {
        !outage::CACHE.record_failed_request(&error)
    } else {
        false
    }
}

/// The order that the path names.
fn order_id<'a>(route: &Route, path: &'a str) -> Option<&'a str> {
    let is_order = route.tag() == Some(Tag::Orders.name());
    route.parameter(path).filter(|_| is_order)
}
