//! The pages that are served beside the operations of the document: Swagger UI, the document itself, and the metrics.

use std::sync::OnceLock;

use bytes::Bytes;
use poem::{
    IntoEndpoint, Response, RouteMethod,
    endpoint::make_sync,
    http::{HeaderValue, header},
};
use serde_json::Value;

use super::openapi;
use crate::{config::AuthMode, telemetry::metrics};

const HTML: &str = "text/html; charset=utf-8";

/// A page that everybody may read.
pub struct Page {
    pub path: &'static str,
    content_type: &'static str,
    body: Box<dyn Fn() -> Bytes + Send + Sync>,
}

/// The pages of the API.
pub fn api(document: &Value, auth: AuthMode) -> [Page; 3] {
    let json = Bytes::from(document.to_string());
    let yaml = Bytes::from(openapi::to_yaml(document));

    // Made when it is asked for first: most processes never show Swagger UI.
    let docs: OnceLock<Bytes> = OnceLock::new();
    let docs = move || docs.get_or_init(|| openapi::swagger_ui(auth).into()).clone();

    [
        Page::new("/docs", HTML, docs),
        Page::new("/openapi.json", "application/json", move || json.clone()),
        Page::new("/openapi.yaml", "application/yaml", move || yaml.clone()),
    ]
}

/// The page of the management address.
pub fn management() -> [Page; 1] {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    [Page::new("/metrics", content_type, || metrics::text().into())]
}

impl Page {
    fn new(path: &'static str, content_type: &'static str, body: impl Fn() -> Bytes + Send + Sync + 'static) -> Self {
        Self {
            path,
            content_type,
            body: Box::new(body),
        }
    }

    fn respond(&self) -> Response {
        let mut response = Response::builder().content_type(self.content_type).body((self.body)());

        if self.content_type == HTML {
            let headers = response.headers_mut();
            headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        response
    }
}

impl IntoEndpoint for Page {
    type Endpoint = RouteMethod;

    fn into_endpoint(self) -> RouteMethod {
        poem::get(make_sync(move |_| self.respond()))
    }
}
