//! The shop's endpoints: what is served, who may call it, and what stands around it.

use std::{sync::Arc, time::Duration};

use poem::{Endpoint, EndpointExt as _, IntoEndpoint as _, Response, endpoint::BoxEndpoint};
use poem_openapi::{OpenApiService, Tags};
use serde_json::Value;

use crate::{
    app::App,
    config::{AuthMode, Config, ConfigError},
    http::{
        cors::Cors,
        layers::Layers,
        query::CheckedQuery,
        routes::{Access, Routes},
        trace::Traced,
    },
    intake::OrderIntake,
    tasks::order_watch::OrderWatch,
};
use auth::layer::AuthLayer;
use health::{HealthApi, Role, Started};
use orders::CachedOrders;
use products::CachedPages;
use request_log::REQUEST_LOG;

pub mod auth;
pub mod carts;
pub mod errors;
pub mod failure;
pub mod health;
pub mod openapi;
pub mod orders;
mod pages;
pub mod products;
pub mod refunds;
mod refused;
mod request_log;
pub mod stock;

/// Reading from the database takes no longer, or the database counts as unavailable.
const READ_TIMEOUT: Duration = Duration::from_millis(2_500);

#[derive(Tags)]
pub enum Tag {
    /// What the shop sells.
    Catalogue,
    /// What a customer puts together before ordering it.
    Carts,
    /// How many units there are, and how that came about.
    Stock,
    /// From creating an order to PAID or FAILED.
    Orders,
    /// Whether the server runs and can work.
    Health,
}

/// The API with everything around it.
///
/// # Errors
/// When the configuration of who may call cannot be used.
pub fn routes(
    app: &App,
    intake: OrderIntake,
    watch: OrderWatch,
) -> Result<BoxEndpoint<'static, Response>, ConfigError> {
    let document = openapi::document(app.config.auth.mode);
    let pages = pages::api(&document, app.config.auth.mode);
    let catalogue_public = app.config.auth.catalogue_public;
    let routes = Arc::new(Routes::new(&document, pages.paths(), |tag| {
        access(tag, catalogue_public)
    }));

    let handlers = pages
        .before(openapi::service().into_endpoint())
        .data(Arc::new(app.clone()))
        .data(intake)
        .data(watch)
        .data(Started::from(app.clone()))
        .data(Role::Serve);

    let traced = Traced {
        inner: handlers,
        routes: Arc::clone(&routes),
        log: REQUEST_LOG,
    };
    let cached = CachedOrders::new(traced, app.cache.clone());
    let cached = CachedPages::new(cached, app.cache.clone(), &routes);
    let checked = CheckedQuery::new(cached, Arc::clone(&routes), &document);
    let authenticated = AuthLayer::new(checked, Arc::clone(&routes), &app.config)?;
    let api = layered(authenticated, routes, &app.config);

    // Where no other origin may call, requests are spared the layer.
    let origins = &app.config.server.cors_origins;
    if origins.is_empty() {
        return Ok(api);
    }
    Ok(Cors::new(api, origins).boxed())
}

/// What the management address answers, from before the process has connected to its database.
pub fn management_routes(config: &Config, started: Started, role: Role) -> BoxEndpoint<'static, Response> {
    let service = OpenApiService::new(HealthApi, "shop management", env!("CARGO_PKG_VERSION"));
    let document: Value = serde_json::from_str(&service.spec()).unwrap_or_default();
    let pages = pages::management();
    let routes = Arc::new(Routes::new(&document, pages.paths(), |_| Access::Anyone));

    let handlers = pages.before(service.into_endpoint()).data(started).data(role);

    layered(handlers, routes, config)
}

/// Who may call the operations with this tag.
fn access(tag: &str, catalogue_public: bool) -> Access {
    if tag == Tag::Health.name() {
        Access::Anyone
    } else if tag == Tag::Catalogue.name() && catalogue_public {
        Access::AnyoneReads
    } else {
        Access::Authenticated
    }
}

fn layered(
    inner: impl Endpoint<Output = Response> + 'static,
    routes: Arc<Routes>,
    config: &Config,
) -> BoxEndpoint<'static, Response> {
    Layers::new(inner, routes, REQUEST_LOG, config.limits.max_in_flight).boxed()
}

/// The OpenAPI document as `shop openapi` prints it.
pub fn openapi_document() -> Value {
    openapi::document(AuthMode::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{query, routes::Route, schema};

    #[test]
    fn every_schema_of_a_parameter_is_valid_with_the_components_it_names() {
        let document = openapi_document();
        let operations = document["paths"].as_object().expect("paths").values();
        let operations = operations.flat_map(|path| path.as_object().expect("operations").values());
        let parameters = operations.flat_map(|operation| operation["parameters"].as_array().into_iter().flatten());
        let mut made = 0;
        for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
            let schema = schema::with_components(&parameter["schema"], &document["components"]["schemas"]);
            query::validator(&schema);
            assert!(schema.to_string().len() < 4_096, "{schema}");
            made += 1;
        }
        assert!(made > 10, "{made}");
    }

    #[test]
    fn every_path_has_one_template_and_what_is_open_is_open() {
        let routes = |catalogue_public| {
            let document = openapi_document();
            Routes::new(&document, ["/docs"], |tag| access(tag, catalogue_public))
        };
        let order = "/orders/019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11";
        let routes = [routes(false), routes(true)];

        for (path, template, access) in [
            ("/products", "/products", Access::AnyoneReads),
            ("/products/7", "/products/{id}", Access::AnyoneReads),
            ("/products/7/stock", "/products/{id}/stock", Access::Authenticated),
            (
                "/products/7/movements",
                "/products/{id}/movements",
                Access::Authenticated,
            ),
            ("/orders", "/orders", Access::Authenticated),
            (order, "/orders/{id}", Access::Authenticated),
            ("/carts", "/carts", Access::Authenticated),
            ("/docs", "/docs", Access::Anyone),
            ("/readyz", "/readyz", Access::Anyone),
            ("/wp-login.php", "other", Access::Authenticated),
        ] {
            let [private, public] = routes.each_ref().map(|routes| routes.at(path));
            assert_eq!((public.template(), public.access()), (template, access), "{path}");
            assert_eq!(private.access() == Access::Anyone, access == Access::Anyone, "{path}");
            assert_ne!(private.access(), Access::AnyoneReads, "{path}");
        }
        assert!(routes[0].at(order).can_wait() && !routes[0].at("/orders").can_wait());
        assert_eq!(
            routes[0].of_operation("listProducts").map(Route::template),
            Some("/products")
        );
    }
}
