//! The pages that are served beside the operations of the document: the front page, Swagger UI, the document itself, and
//! the metrics.

use std::{
    io::Write as _,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use poem::{
    Endpoint, Request, Response,
    error::MethodNotAllowedError,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::openapi;
use crate::{
    config::AuthMode,
    http::{conditional::IfNoneMatch, etag, negotiation::accepts_gzip, problem::Problem},
    telemetry::metrics,
};

const HTML: &str = "text/html; charset=utf-8";
/// How long a page may be used without asking again: it changes with the program.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// The front page has no scripts and loads nothing (W3C Content Security Policy).
const FRONT_PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// Pages that everybody may read.
pub struct Pages(Vec<Page>);

/// Answers the pages, and passes everything else on.
pub struct WithPages<E> {
    pages: Pages,
    inner: E,
}

struct Page {
    path: &'static str,
    content_type: &'static str,
    content: Content,
}

enum Content {
    /// Made when it is asked for first: most processes never show Swagger UI.
    Fixed(Arc<Fixed>),
    /// Made for every request.
    Changing(fn() -> String),
}

/// A page that stays the same as long as the program does.
struct Fixed {
    make: Box<dyn Fn() -> Bytes + Send + Sync>,
    made: OnceLock<Made>,
}

struct Made {
    body: Bytes,
    gzip: Bytes,
    /// The entity tags of both (RFC 9110, section 8.8.3).
    tags: [String; 2],
}

/// The pages of the API.
pub fn api(document: &Value, auth: AuthMode) -> Pages {
    // The only form that is kept; the others are made of it when somebody asks for them.
    let json = Bytes::from(document.to_string().into_boxed_str().into_boxed_bytes());
    let yaml = {
        let json = json.clone();
        move || openapi::to_yaml(&serde_json::from_slice(&json).unwrap_or_default()).into()
    };

    Pages(vec![
        Page::fixed("/", HTML, || Bytes::from_static(FRONT_PAGE.as_bytes())),
        Page::fixed("/docs", HTML, move || openapi::swagger_ui(auth).into()),
        Page::fixed("/openapi.json", "application/json", move || json.clone()),
        Page::fixed("/openapi.yaml", "application/yaml", yaml),
    ])
}

/// The page of the management address.
pub fn management() -> Pages {
    Pages(vec![Page {
        path: "/metrics",
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        content: Content::Changing(metrics::text),
    }])
}

impl Pages {
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|page| page.path)
    }

    /// Answers the pages, and lets `inner` answer everything else.
    pub fn before<E>(self, inner: E) -> WithPages<E> {
        WithPages { pages: self, inner }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for WithPages<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        // The server leaves out the body of an answer to HEAD, so that its headers are those of GET.
        if request.method() == Method::HEAD {
            request.set_method(Method::GET);
        }

        let path = request.uri().path();
        let Some(page) = self.pages.0.iter().find(|page| page.path == path) else {
            return self.inner.call(request).await;
        };
        if request.method() != Method::GET {
            return Err(MethodNotAllowedError.into());
        }
        page.answer(request.headers()).await
    }
}

impl Page {
    fn fixed(path: &'static str, content_type: &'static str, make: impl Fn() -> Bytes + Send + Sync + 'static) -> Self {
        let fixed = Fixed {
            make: Box::new(make),
            made: OnceLock::new(),
        };
        Self {
            path,
            content_type,
            content: Content::Fixed(Arc::new(fixed)),
        }
    }

    async fn answer(&self, asked: &HeaderMap) -> poem::Result<Response> {
        let mut response = match &self.content {
            Content::Changing(make) => Response::builder().body(make()),
            Content::Fixed(fixed) => fixed.answer(asked).await?,
        };

        let is_content = response.status() == StatusCode::OK;
        let headers = response.headers_mut();
        if is_content {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        if self.content_type == HTML {
            headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        if self.path == "/" {
            headers.insert(header::CONTENT_SECURITY_POLICY, FRONT_PAGE_POLICY);
        }
        Ok(response)
    }
}

impl Fixed {
    async fn answer(self: &Arc<Self>, asked: &HeaderMap) -> poem::Result<Response> {
        if self.made.get().is_none() {
            // Compressing Swagger UI takes long enough to hold up other requests.
            let fixed = Arc::clone(self);
            let make = spawn_blocking(move || {
                fixed.made();
            });
            make.await.map_err(|error| Problem::internal(error.to_string()))?;
        }

        let made = self.made();
        let gzip = accepts_gzip(asked);
        let (body, tag) = if gzip {
            (&made.gzip, &made.tags[1])
        } else {
            (&made.body, &made.tags[0])
        };
        let mut response = Response::builder()
            .header(header::ETAG, tag)
            .header(header::CACHE_CONTROL, CACHE_CONTROL)
            .header(header::VARY, "accept-encoding");

        if IfNoneMatch::of(asked).matches(tag) {
            return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
        }
        if gzip {
            response = response.header(header::CONTENT_ENCODING, "gzip");
        }
        Ok(response.body(body.clone()))
    }

    fn made(&self) -> &Made {
        self.made.get_or_init(|| {
            let body = (self.make)();
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            let gzip = encoder.write_all(&body).and_then(|()| encoder.finish());
            let gzip = gzip.map(Bytes::from).unwrap_or_default();

            Made {
                tags: [etag::of(&body), etag::of(&gzip)],
                body,
                gzip,
            }
        })
    }
}

const FRONT_PAGE: &str = concat!(
    "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>shop</title>
<link rel=\"icon\" href=\"data:,\">
<style>body { font: 1rem/1.6 sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }</style>
</head>
<body>
<h1>shop ",
    env!("CARGO_PKG_VERSION"),
    "</h1>
<p>A headless order service. This is its API; the shop front is somewhere else.</p>
<ul>
<li><a href=\"/docs\">Documentation</a>: every operation, to read and to try out</li>
<li><a href=\"/openapi.json\">OpenAPI document</a>, also <a href=\"/openapi.yaml\">as YAML</a></li>
<li><a href=\"/healthz\">Health</a> and <a href=\"/readyz\">readiness</a></li>
</ul>
</body>
</html>
"
);
