//! The one table of what is served, made from the OpenAPI document and from the pages beside it. It finds the route of
//! a request before the framework has routed it: the in-flight gauge, the name of the span, authentication and the time
//! limit need it by then.

use std::collections::HashMap;

use poem::http::{HeaderValue, Uri};
use serde_json::Value;

use crate::telemetry::http_metrics::RouteMeters;

/// The template of whatever is not served.
const OTHER: &str = "other";

/// Who may send a request to a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Anyone,
    /// Everybody may read (GET and HEAD); anything else needs to be authenticated.
    AnyoneReads,
    /// Only who is authenticated.
    #[default]
    Authenticated,
}

/// One path that is served. All paths that are not share one route.
pub struct Route {
    /// As the document writes it, such as `/things/{id}`.
    template: String,
    /// The tag of its operations in the document.
    tag: Option<String>,
    operation_ids: Vec<String>,
    access: Access,
    /// Whether the document lets a request wait (`Prefer: wait`, RFC 7240).
    can_wait: bool,
    /// Whether it answers with an event stream.
    streams: bool,
    /// The methods it knows, for the header `Allow` of a 405 (RFC 9110, section 15.5.6).
    allow: Option<HeaderValue>,
    meters: RouteMeters,
}

/// All routes of one server.
pub struct Routes {
    /// Those without a parameter in their path, by their path.
    literal: HashMap<String, Route>,
    /// Those with a parameter, each with the parts of its template.
    patterns: Vec<(Vec<Part>, Route)>,
    other: Route,
}

enum Part {
    Literal(String),
    Parameter,
}

impl Routes {
    /// The routes of an OpenAPI document, and pages that answer GET to everybody. `access` says by the tag of an
    /// operation who may call it.
    pub fn new<'a>(
        document: &Value,
        pages: impl IntoIterator<Item = &'a str>,
        access: impl Fn(&str) -> Access,
    ) -> Self {
        let mut routes = Self {
            literal: HashMap::new(),
            patterns: Vec::new(),
            other: Route::new(OTHER),
        };
        for (template, operations) in document["paths"].as_object().into_iter().flatten() {
            routes.add(Route::documented(template, operations, &access));
        }
        for path in pages {
            routes.add(Route::page(path));
        }

        routes
    }

    fn add(&mut self, route: Route) {
        if !route.template.contains('{') {
            self.literal.insert(route.template.clone(), route);
            return;
        }

        let parts = route.template.split('/').map(|part| {
            if part.starts_with('{') {
                Part::Parameter
            } else {
                Part::Literal(part.to_owned())
            }
        });
        self.patterns.push((parts.collect(), route));
    }

    /// The route of a path, as the client sent it.
    pub fn at(&self, path: &str) -> &Route {
        if let Some(route) = self.literal.get(path) {
            return route;
        }

        let found = self.patterns.iter().find(|(parts, _)| fits(parts, path));
        found.map_or(&self.other, |(_, route)| route)
    }

    /// Where a path leads that nothing is served at, but for a slash at its end, with its query. It cannot lead to another
    /// server: a path that is served begins with one slash.
    pub fn without_slash(&self, route: &Route, uri: &Uri) -> Option<String> {
        if self.is_served(route) {
            return None;
        }

        let path = uri.path().strip_suffix('/')?;
        let query = uri.query().map(|query| format!("?{query}"));
        self.is_served(self.at(path))
            .then(|| format!("{path}{}", query.unwrap_or_default()))
    }

    fn is_served(&self, route: &Route) -> bool {
        !std::ptr::eq(route, &raw const self.other)
    }

    /// The route of an operation, by its id in the document.
    pub fn of_operation(&self, id: &str) -> Option<&Route> {
        let patterns = self.patterns.iter().map(|(_, route)| route);
        let mut routes = self.literal.values().chain(patterns);
        routes.find(|route| route.operation_ids.iter().any(|known| known == id))
    }
}

fn fits(parts: &[Part], path: &str) -> bool {
    let mut given = path.split('/');
    let all_fit = parts.iter().all(|part| match (part, given.next()) {
        (Part::Literal(literal), Some(given)) => literal == given,
        (Part::Parameter, Some(given)) => !given.is_empty(),
        (_, None) => false,
    });
    all_fit && given.next().is_none()
}

impl Route {
    fn new(template: &str) -> Self {
        Self {
            template: template.to_owned(),
            tag: None,
            operation_ids: Vec::new(),
            access: Access::default(),
            can_wait: false,
            streams: false,
            allow: None,
            meters: RouteMeters::new(template),
        }
    }

    fn documented(template: &str, operations: &Value, access: impl Fn(&str) -> Access) -> Self {
        let operations: Vec<(&String, &Value)> = operations.as_object().into_iter().flatten().collect();
        let methods: Vec<String> = operations.iter().map(|(method, _)| allowed(method)).collect();
        let ids = operations
            .iter()
            .filter_map(|(_, operation)| operation["operationId"].as_str());
        let tag = operations
            .iter()
            .find_map(|(_, operation)| operation["tags"][0].as_str());
        let mut parameters = operations
            .iter()
            .flat_map(|(_, operation)| operation["parameters"].as_array().into_iter().flatten());

        Self {
            tag: tag.map(str::to_owned),
            operation_ids: ids.map(str::to_owned).collect(),
            access: tag.map(access).unwrap_or_default(),
            can_wait: parameters.any(|parameter| parameter["name"] == "Prefer"),
            streams: operations.iter().any(|(_, operation)| answers_with_events(operation)),
            allow: HeaderValue::from_str(&methods.join(", ")).ok(),
            ..Self::new(template)
        }
    }

    fn page(path: &str) -> Self {
        Self {
            access: Access::Anyone,
            allow: HeaderValue::from_str(&allowed("get")).ok(),
            ..Self::new(path)
        }
    }

    /// A label for metrics: one of a fixed number of texts, whatever path the client sends.
    pub fn template(&self) -> &str {
        &self.template
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn access(&self) -> Access {
        self.access
    }

    pub fn can_wait(&self) -> bool {
        self.can_wait
    }

    pub fn streams(&self) -> bool {
        self.streams
    }

    pub fn allow(&self) -> Option<&HeaderValue> {
        self.allow.as_ref()
    }

    pub fn meters(&self) -> &RouteMeters {
        &self.meters
    }

    /// The name of a parameter of the template, counted from 0.
    pub fn parameter_name(&self, index: usize) -> Option<&str> {
        let parameters = self.template.split('/').filter_map(|part| part.strip_prefix('{'));
        parameters.map(|name| name.trim_end_matches('}')).nth(index)
    }

    /// What stands in a path of this route where the template has its first parameter.
    pub fn parameter<'a>(&self, path: &'a str) -> Option<&'a str> {
        let mut pairs = self.template.split('/').zip(path.split('/'));
        pairs.find_map(|(part, given)| part.starts_with('{').then_some(given))
    }
}

fn answers_with_events(operation: &Value) -> bool {
    let content = operation["responses"]["200"]["content"].as_object();
    let mut media_types = content.into_iter().flatten().map(|(media_type, _)| media_type);
    media_types.any(|media_type| media_type.starts_with("text/event-stream"))
}

/// A method of the document as the header `Allow` names it. A path that answers GET answers HEAD too.
fn allowed(method: &str) -> String {
    match method {
        "get" => "GET, HEAD".to_owned(),
        other => other.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn routes() -> Routes {
        let document = json!({ "paths": {
            "/things": { "get": { "operationId": "list", "tags": ["Things"] }, "post": { "tags": ["Things"] } },
            "/things/{id}": { "get": { "parameters": [{ "name": "Prefer", "in": "header" }] } },
            "/things/{id}/parts": { "patch": {} },
            "/things/{id}/events": { "get": { "responses": { "200": { "content": { "text/event-stream": {} } } } } },
        } });
        let access = |tag: &str| {
            if tag == "Things" {
                Access::AnyoneReads
            } else {
                Access::default()
            }
        };
        Routes::new(&document, ["/page"], access)
    }

    #[test]
    fn a_path_becomes_one_of_few_templates() {
        let routes = routes();
        for (path, template) in [
            ("/things", "/things"),
            ("/things/7", "/things/{id}"),
            ("/things/x/parts", "/things/{id}/parts"),
            ("/page", "/page"),
            ("/things/", OTHER),
            ("/things/x/", OTHER),
            ("/things//parts", OTHER),
            ("/things/x/parts/y", OTHER),
            ("/wp-login.php", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(routes.at(path).template(), template, "{path}");
        }
    }

    #[test]
    fn a_slash_at_the_end_leads_to_what_is_served_without_it_and_nowhere_else() {
        let routes = routes();
        let leads = |target: &'static str| {
            let uri = Uri::from_static(target);
            routes.without_slash(routes.at(uri.path()), &uri)
        };

        for (target, location) in [
            ("/things/", "/things"),
            ("/things/7/parts/?a=/&b", "/things/7/parts?a=/&b"),
            ("/page/", "/page"),
        ] {
            assert_eq!(leads(target).as_deref(), Some(location), "{target}");
        }
        for nowhere in ["/things", "/things//", "//things/", "//evil.example/", "/nowhere/", "/"] {
            assert_eq!(leads(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn a_route_knows_its_methods_its_parameter_and_who_may_call() {
        let routes = routes();
        let allow = |path| routes.at(path).allow().and_then(|allow| allow.to_str().ok());
        assert_eq!(allow("/things"), Some("GET, HEAD, POST"));
        assert_eq!(allow("/things/7/parts"), Some("PATCH"));
        assert_eq!((allow("/page"), allow("/nowhere")), (Some("GET, HEAD"), None));

        let access = ["/things", "/things/7", "/page", "/nowhere"].map(|path| routes.at(path).access());
        assert_eq!(
            access,
            [
                Access::AnyoneReads,
                Access::Authenticated,
                Access::Anyone,
                Access::Authenticated
            ]
        );
        assert!(routes.at("/things/7").can_wait() && !routes.at("/things").can_wait());
        assert!(routes.at("/things/7/events").streams() && !routes.at("/things/7").streams());
        let parts = routes.at("/things/7/parts");
        assert_eq!(parts.parameter("/things/7/parts"), Some("7"));
        assert_eq!((parts.parameter_name(0), parts.parameter_name(1)), (Some("id"), None));
        assert_eq!(routes.of_operation("list").map(Route::template), Some("/things"));
    }
}
