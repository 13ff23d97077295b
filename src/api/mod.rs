//! HTTP: routes, the layers around them, and the servers. The only place that names the web framework.

use std::{
    panic::AssertUnwindSafe,
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use poem::{
    Endpoint, EndpointExt as _, IntoResponse, Request, Response, Route,
    endpoint::{BoxEndpoint, make_sync},
    http::{HeaderValue, StatusCode, Uri, Version, header},
};
use poem_openapi::{OpenApiService, Tags, error::ParseParamError};
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};
use uuid::Uuid;

use crate::{
    app::App,
    config::{AuthMode, ConfigError},
    domain::Error,
    http::{
        cors::Cors,
        problem::{self, Kind, Problem},
        query::Parameters,
        trace::{RequestLogContext, Traced},
    },
    intake::OrderIntake,
    tasks::order_watch::OrderWatch,
    telemetry::{self, metrics::InFlight},
};
use auth::layer::AuthLayer;
use health::{HealthApi, Role};
use openapi::Allowed;
use orders::OrdersApi;
use products::{CachedPages, ProductsApi};

pub mod auth;
pub mod health;
pub mod openapi;
pub mod orders;
pub mod products;

/// No request runs longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Reading from the database takes no longer, or the database counts as away.
const READ_TIMEOUT: Duration = Duration::from_millis(2_500);

#[derive(Tags)]
pub enum Tag {
    /// What the shop sells.
    Catalogue,
    /// From the basket to PAID or FAILED.
    Orders,
    /// Whether the server lives and can work.
    Health,
}

/// The API with everything around it.
///
/// # Errors
/// When the configuration of who may call cannot be used.
pub fn routes(app: &App, desk: OrderIntake, watch: OrderWatch) -> Result<BoxEndpoint<'static, Response>, ConfigError> {
    let service = openapi::service((
        ProductsApi { app: Some(app.clone()) },
        OrdersApi {
            app: Some(app.clone()),
            desk: Some(desk),
            watch: Some(watch),
        },
        HealthApi {
            app: Some(app.clone()),
            role: Role::Serve,
        },
    ));
    let document = openapi::document(&service, app.config.auth.mode);
    let (json, yaml) = (document.to_string(), to_yaml(&document));
    let auth = app.config.auth.mode;
    let swagger_ui = move || openapi::swagger_ui(auth);
    let route = Route::new()
        .at("/docs", when_asked("text/html; charset=utf-8", swagger_ui))
        .at("/openapi.json", when_asked("application/json", move || json.clone()))
        .at("/openapi.yaml", when_asked("application/yaml", move || yaml.clone()))
        .nest_no_strip("/", service);
    let near_pages = CachedPages {
        inner: Traced(route),
        app: app.clone(),
    };
    let guard = AuthLayer::new(near_pages, &app.config)?;
    let api = layered(guard, app.config.limits.max_in_flight, &document);
    let origins = &app.config.server.cors_origins;
    // A layer less for every request, where nobody else may call.
    if origins.is_empty() {
        return Ok(api);
    }
    Ok(Cors::new(api, origins).boxed())
}

/// What the management address answers.
#[must_use]
pub fn management_routes(app: &App, role: Role) -> BoxEndpoint<'static, Response> {
    let health = HealthApi {
        app: Some(app.clone()),
        role,
    };
    let service = OpenApiService::new(health, "shop management", env!("CARGO_PKG_VERSION"));
    let document: serde_json::Value = serde_json::from_str(&service.spec()).unwrap_or_default();
    let metrics = poem::get(make_sync(|_| {
        telemetry::metrics::text().with_content_type("text/plain; version=0.0.4; charset=utf-8")
    }));
    let route = Route::new().at("/metrics", metrics).nest_no_strip("/", service);
    layered(route, app.config.limits.max_in_flight, &document)
}

/// The OpenAPI document without any back end.
#[must_use]
pub fn openapi_document() -> serde_json::Value {
    openapi::document(&openapi::unconnected(), AuthMode::None)
}

#[must_use]
pub fn to_yaml(document: &serde_json::Value) -> String {
    serde_norway::to_string(document).unwrap_or_default()
}

/// Around every request: a bound on how many run, a bound on how long each runs, a request id, a problem document for
/// every error, and a line in the log.
fn layered(
    inner: impl Endpoint<Output = Response> + 'static,
    max_in_flight: usize,
    document: &serde_json::Value,
) -> BoxEndpoint<'static, Response> {
    Layered {
        inner,
        places: Semaphore::new(max_in_flight),
        allowed: Allowed::new(document),
        parameters: Parameters::new(document),
    }
    .boxed()
}

struct Layered<E> {
    inner: E,
    places: Semaphore,
    allowed: Allowed,
    parameters: Parameters,
}

impl<E: Endpoint<Output = Response>> Endpoint for Layered<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let uri = request.uri().clone();
        let mut response = self.handle(request, &uri).await;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Some(methods) = self.allowed.at(uri.path())
            && let Ok(methods) = HeaderValue::from_str(methods)
        {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        Ok(response)
    }
}

impl<E: Endpoint<Output = Response>> Layered<E> {
    async fn handle(&self, mut request: Request, uri: &Uri) -> Response {
        let path = uri.path();
        let started = Instant::now();
        let method = request.method().clone();
        let in_flight = InFlight::begin(method.as_str(), path);
        let request_id = request_id(&request);
        let told = RequestLogContext::of(&mut request);
        let answered = async {
            let Ok(_place) = self.places.try_acquire() else {
                return Problem::from(Error::Overloaded).respond(path);
            };
            if request.version() == Version::HTTP_11 && request.headers().get_all(header::HOST).iter().count() != 1 {
                let detail = "a request of HTTP/1.1 has one `Host` header";
                return Problem::fault("/header/Host", detail).respond(path);
            }
            let limit = REQUEST_TIMEOUT + waiting_time(&request, path);
            let call = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
            match timeout(limit, call).await {
                Ok(Ok(Ok(response))) => response,
                Ok(Ok(Err(error))) => {
                    let problem = self.problem(&error, uri);
                    told.log(&problem, path, &request_id);
                    problem.respond(path)
                }
                // The panic hook has logged it.
                Ok(Err(_)) => Problem::new(Kind::Internal, "the cause has been logged").respond(path),
                Err(_) => Problem::new(Kind::Timeout, "the request was given up after 10 seconds").respond(path),
            }
        };
        let mut response = answered.await;
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert("x-request-id", id);
        }
        secure(&mut response, path);
        let status = response.status().as_u16();
        in_flight.answered(status, started.elapsed());
        tracing::debug!(%method, path, status, request_id, elapsed = ?started.elapsed(), "answered");
        response
    }

    /// The problem that a request ended in, with every fault of its query.
    fn problem(&self, error: &poem::Error, uri: &Uri) -> Problem {
        let faults = if error.is::<ParseParamError>() {
            self.parameters.faults(uri)
        } else {
            Vec::new()
        };
        if faults.is_empty() {
            problem::of(error)
        } else {
            Problem::faults(faults)
        }
    }
}

/// What browsers are to be told of every answer. What belongs to somebody is kept by nobody else.
fn secure(response: &mut Response, path: &str) {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The only page.
    if path == "/docs" {
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

/// How much longer a request may run because it would rather wait; only an order can be waited for.
fn waiting_time(request: &Request, path: &str) -> Duration {
    let wait = path
        .starts_with("/orders/")
        .then(|| orders::preferred_wait(request.headers()));
    wait.flatten().unwrap_or_default()
}

/// The caller's `X-Request-Id` if it is a short word, else a new one.
fn request_id(request: &Request) -> String {
    let given = request.header("x-request-id").filter(|id| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    });
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// A body that never changes, made when it is asked for first: most processes never show Swagger UI.
fn when_asked(content_type: &'static str, make: impl Fn() -> String + Send + Sync + 'static) -> impl Endpoint {
    let body: OnceLock<Bytes> = OnceLock::new();
    poem::get(make_sync(move |_| {
        let bytes = body.get_or_init(|| make().into());
        bytes.clone().with_content_type(content_type)
    }))
}

/// What the handlers need; absent only where the document alone is wanted.
fn wired<T>(part: Option<&T>) -> Result<&T, Error> {
    part.ok_or_else(|| Error::Internal("not connected".to_owned()))
}

fn to_json(body: &impl Serialize) -> Result<Bytes, Error> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Error::Internal(error.to_string()))
}
