//! The layers around every request: a bound on how many run, a bound on how long each runs, a request id, a problem
//! document for every error, headers that every answer has, metrics, and a line in the log.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use poem::{
    Body, Endpoint, Request, Response,
    http::{HeaderValue, Method, StatusCode, Uri, header},
};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    head,
    prefer::Prefer,
    problem::{
        Problem, of_path,
        types::{INTERNAL, OVERLOADED, TIMEOUT},
    },
    routes::{Route, Routes},
    trace::{Failure, REQUEST_ID, RequestLog, RequestLogContext},
};
use crate::telemetry::{http_metrics::OpenStream, outage::milliseconds};

/// The time limit of a request. `Prefer: wait=N` extends it by N.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// An endpoint with all layers around it.
pub struct Layers<E> {
    inner: E,
    routes: Arc<Routes>,
    log: RequestLog,
    permits: Semaphore,
}

impl<E> Layers<E> {
    /// At most `max_in_flight` requests run at once.
    pub fn new(inner: E, routes: Arc<Routes>, log: RequestLog, max_in_flight: usize) -> Self {
        Self {
            inner,
            routes,
            log,
            permits: Semaphore::new(max_in_flight),
        }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Layers<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let started = Instant::now();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let path = uri.path();
        let route = self.routes.at(path);
        let wait = waiting_time(&request, route);
        let in_flight = route.meters().begin(method.as_str(), wait.is_some() || route.streams());
        let context = RequestLogContext::of(&mut request);

        let limit = REQUEST_TIMEOUT + wait.unwrap_or_default();
        let mut response = match self.handle(request, &uri, route, limit).await {
            Ok(response) => response,
            Err(problem) => {
                let request = Answered {
                    method: &method,
                    path,
                    route,
                    started,
                };
                self.log_failure(&problem, &context, &request);
                problem.respond(path)
            }
        };
        set_headers(&mut response, route, &context.request_id);

        let (status, elapsed) = (response.status().as_u16(), started.elapsed());
        if is_event_stream(&response) {
            response = until_sent(response, in_flight.streaming(status, started));
        } else {
            in_flight.answered(status, elapsed);
        }
        tracing::debug!(
            %method,
            route = route.template(),
            path = (self.log.path)(path, route),
            status,
            duration_ms = milliseconds(elapsed),
            request_id = context.request_id,
            client = context.client(),
            "answered"
        );
        Ok(response)
    }
}

impl<E: Endpoint<Output = Response>> Layers<E> {
    async fn handle(&self, request: Request, uri: &Uri, route: &Route, limit: Duration) -> Result<Response, Problem> {
        let Ok(_permit) = self.permits.try_acquire() else {
            let detail = "too many requests are waiting; try again in a moment";
            return Err(Problem::new(OVERLOADED, detail));
        };
        head::check(&request)?;
        if let Some(location) = self.routes.without_slash(route, uri) {
            return Ok(moved_to(&location));
        }

        let call = AssertUnwindSafe(self.inner.call(request)).catch_unwind();

        match timeout(limit, call).await {
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Ok(Err(error))) => Err(of_path(&error, route).unwrap_or_else(|| Problem::of(&error))),
            // The panic hook has logged it.
            Ok(Err(_)) => Err(Problem::new(INTERNAL, "the cause has been logged")),
            Err(_) => {
                let detail = format!("the request was given up after {} seconds", limit.as_secs());
                Err(Problem::new(TIMEOUT, detail))
            }
        }
    }

    /// Logs what the answer does not say.
    fn log_failure(&self, problem: &Problem, context: &RequestLogContext, request: &Answered<'_>) {
        let Some(error) = problem.cause() else { return };

        (self.log.failed)(&Failure {
            error,
            kind: problem.kind(),
            method: request.method.as_str(),
            path: (self.log.path)(request.path, request.route),
            route: request.route,
            elapsed: request.started.elapsed(),
            request_id: &context.request_id,
            trace_id: context.trace_id(),
            client: context.client(),
        });
    }
}

/// What the log says of every request that is answered.
struct Answered<'a> {
    method: &'a Method,
    path: &'a str,
    route: &'a Route,
    started: Instant,
}

/// Sends the client to where it meant to go, with the same method and body (RFC 9110, section 15.4.9).
fn moved_to(location: &str) -> Response {
    Response::builder()
        .status(StatusCode::PERMANENT_REDIRECT)
        .header(header::LOCATION, location)
        .finish()
}

/// By how much `Prefer: wait` extends the time limit, if the request asks to wait.
fn waiting_time(request: &Request, route: &Route) -> Option<Duration> {
    if !route.can_wait() {
        return None;
    }
    Prefer::of(request.headers()).wait
}

fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// The same response, which keeps `open` until its body has been sent or its client has gone.
fn until_sent(mut response: Response, open: OpenStream) -> Response {
    let sent = (Box::pin(response.take_body().into_bytes_stream()), open);
    let bytes = stream::unfold(sent, |(mut bytes, open)| async move {
        let next = bytes.next().await?;
        Some((next, (bytes, open)))
    });
    response.set_body(Body::from_bytes_stream(bytes));
    response
}

/// Sets what every answer says. Unless a handler says otherwise, no cache may store it: it may belong to somebody.
fn set_headers(response: &mut Response, route: &Route, request_id: &str) {
    let not_allowed = response.status() == StatusCode::METHOD_NOT_ALLOWED;
    let headers = response.headers_mut();

    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(allow) = route.allow().filter(|_| not_allowed) {
        headers.insert(header::ALLOW, allow.clone());
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}
