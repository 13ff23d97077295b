//! Stands before everything that concerns the shop itself: says who is calling, and how often they may.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    state::keyed::DefaultKeyedStateStore,
};
use poem::{Endpoint, Request, Response, http::Method};

use super::jwt::{Authenticator, Identity};
use crate::{
    config::{Config, ConfigError},
    domain::{Caller, Error, UserId},
    http::problem::{Kind, Problem},
};

/// After so many requests those who have not come for a while are forgotten.
const FORGET_EVERY: u32 = 10_000;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RateLimitKey {
    User(UserId),
    Address(IpAddr),
}

type Limiter = RateLimiter<RateLimitKey, DefaultKeyedStateStore<RateLimitKey>, DefaultClock>;

pub struct AuthLayer<E> {
    inner: E,
    gate: Authenticator,
    limiter: Option<Limiter>,
    since_forgetting: AtomicU32,
    catalogue_public: bool,
}

impl<E> AuthLayer<E> {
    /// # Errors
    /// When the configured key cannot be used.
    pub fn new(inner: E, config: &Config) -> Result<Self, ConfigError> {
        let per_second = NonZeroU32::new(config.limits.rate_limit_per_second);
        Ok(Self {
            inner,
            gate: Authenticator::new(config)?,
            limiter: per_second.map(|rate| RateLimiter::keyed(Quota::per_second(rate))),
            since_forgetting: AtomicU32::new(0),
            catalogue_public: config.auth.catalogue_public,
        })
    }

    fn admit(&self, request: &Request) -> Result<Identity, Problem> {
        let anybody = self.catalogue_public
            && matches!(*request.method(), Method::GET | Method::HEAD)
            && (request.uri().path() == "/products" || request.uri().path().starts_with("/products/"));
        let identified = match self.gate.identify(request) {
            Err(_) if anybody && !request.headers().contains_key("authorization") => Ok(Identity {
                user_id: None,
                // Reading products asks for no rights.
                caller: Caller::Anonymous,
            }),
            identified => identified,
        };
        // Who tries tokens is counted as well, by address.
        let user_id = identified.as_ref().ok().and_then(|identity| identity.user_id);
        self.limit(request, user_id)?;
        identified
    }

    fn limit(&self, request: &Request, user_id: Option<UserId>) -> Result<(), Problem> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let address = || {
            request
                .remote_addr()
                .as_socket_addr()
                .map(|address| one_client(address.ip()))
        };
        let Some(counted) = user_id
            .map(RateLimitKey::User)
            .or_else(|| address().map(RateLimitKey::Address))
        else {
            return Ok(());
        };
        if self.since_forgetting.fetch_add(1, Ordering::Relaxed) >= FORGET_EVERY {
            self.since_forgetting.store(0, Ordering::Relaxed);
            limiter.retain_recent();
        }
        limiter.check_key(&counted).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            Problem::new(
                Kind::TooManyRequests,
                "too many requests; wait for as long as `Retry-After` says",
            )
            .retry_after(wait.as_secs() + 1)
        })
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for AuthLayer<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        if !is_open(request.uri().path()) {
            let identity = self.admit(&request)?;
            request.set_data(identity.caller);
        }
        self.inner.call(request).await
    }
}

/// What tells nothing of the shop's own is there for everybody.
fn is_open(path: &str) -> bool {
    matches!(
        path,
        "/" | "/docs" | "/openapi.json" | "/openapi.yaml" | "/healthz" | "/readyz"
    )
}

/// An IPv6 customer has a whole /64.
fn one_client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Who sent this request, as the guard found.
///
/// # Errors
/// A fault of ours: the guard has not seen the request.
pub fn caller(request: &Request) -> Result<Caller, Error> {
    let caller = request.data::<Caller>().copied();
    caller.ok_or_else(|| Error::Internal("a request came past the guard".to_owned()))
}
