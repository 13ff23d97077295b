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
        problem::{Headers, Problem},
        routes::{Access, Routes},
    },
};

/// Lets requests pass that their route is open to; of all others it notes the [`Identity`].
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

    /// Who sends the request, and what the answer says of the rate limit, whatever else it says.
    fn admit(&self, request: &Request, access: Access) -> (Result<Identity, Problem>, Headers) {
        let identity = match self.authenticator.identify(request) {
            Err(_) if access == Access::AnyoneReads && is_anonymous_read(request) => Ok(Identity {
                user_id: None,
                // Reading asks for no rights.
                caller: Caller::Anonymous,
            }),
            identity => identity,
        };

        // Requests with a bad token count as well, by address.
        let mut headers = Headers::new();
        if let Some(rate_limit) = &self.rate_limit {
            let user_id = identity.as_ref().ok().and_then(|identity| identity.user_id);
            match rate_limit.check(request, user_id) {
                Ok(left) => headers = left,
                Err(problem) => return (Err(problem), headers),
            }
        }

        (identity, headers)
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for AuthLayer<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let access = self.routes.at(request.uri().path()).access();
        if access == Access::Anyone {
            return self.inner.call(request).await;
        }

        let (identity, headers) = self.admit(&request, access);
        let answer = match identity {
            Ok(identity) => {
                request.set_data(identity);
                self.inner.call(request).await
            }
            Err(problem) => Err(problem.into()),
        };
        if headers.is_empty() {
            return answer;
        }
        with_headers(answer, headers)
    }
}

/// An answer and an error with these headers.
fn with_headers(mut answer: poem::Result<Response>, headers: Headers) -> poem::Result<Response> {
    match &mut answer {
        Ok(response) => response.headers_mut().extend(headers),
        Err(error) => error.set_data(headers),
    }
    answer
}

/// A bad token is refused where none is needed.
fn is_anonymous_read(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && !request.headers().contains_key(AUTHORIZATION)
}
