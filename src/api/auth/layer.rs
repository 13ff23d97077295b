//! Stands before everything that concerns the shop itself: finds out who is calling, and limits how often they may.

use std::sync::Arc;

use poem::{
    Endpoint, Request, Response,
    http::{Method, header::AUTHORIZATION},
};

use super::{
    jwt::{Authenticator, Identity},
    rate_limit::RateLimit,
};
use crate::{
    config::{Config, ConfigError},
    domain::Caller,
    http::{
        problem::Problem,
        routes::{Access, Routes},
    },
};

/// Lets requests pass that their route is open to; of all others it notes the [`Caller`].
pub struct AuthLayer<E> {
    inner: E,
    routes: Arc<Routes>,
    authenticator: Authenticator,
    rate_limit: Option<RateLimit>,
}

impl<E> AuthLayer<E> {
    /// # Errors
    /// When the configured key cannot be used.
    pub fn new(inner: E, routes: Arc<Routes>, config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            inner,
            routes,
            authenticator: Authenticator::new(config)?,
            rate_limit: RateLimit::per_second(config.limits.rate_limit_per_second),
        })
    }

    fn admit(&self, request: &Request, access: Access) -> Result<Caller, Problem> {
        let identity = match self.authenticator.identify(request) {
            Err(_) if access == Access::AnyoneReads && is_anonymous_read(request) => Ok(Identity {
                user_id: None,
                // Reading asks for no rights.
                caller: Caller::Anonymous,
            }),
            identity => identity,
        };

        // Requests with a bad token count as well, by address.
        if let Some(rate_limit) = &self.rate_limit {
            let user_id = identity.as_ref().ok().and_then(|identity| identity.user_id);
            rate_limit.check(request, user_id)?;
        }

        Ok(identity?.caller)
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for AuthLayer<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let access = self.routes.at(request.uri().path()).access();
        if access != Access::Anyone {
            let caller = self.admit(&request, access)?;
            request.set_data(caller);
        }

        self.inner.call(request).await
    }
}

/// A bad token is refused where none is needed.
fn is_anonymous_read(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && !request.headers().contains_key(AUTHORIZATION)
}
