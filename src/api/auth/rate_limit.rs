//! A bound on the requests of one user a second, or of one address where the user is not known, and the headers that say
//! how much of it is left (draft-ietf-httpapi-ratelimit-headers-11).

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DefaultKeyedStateStore,
};
use poem::{
    Request,
    http::{HeaderName, HeaderValue},
};

use crate::{
    domain::UserId,
    http::{
        problem::{Headers, Problem, types::TOO_MANY_REQUESTS},
        trace::client_of,
    },
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The time in which the whole quota comes back, in seconds.
const WINDOW: u64 = 1;
/// After so many requests the counts of those who have not called for a while are dropped.
const PRUNE_EVERY: u32 = 10_000;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RateLimitKey {
    User(UserId),
    Address(IpAddr),
}

pub struct RateLimit {
    limiter: RateLimiter<RateLimitKey, DefaultKeyedStateStore<RateLimitKey>, DefaultClock, StateInformationMiddleware>,
    policy: HeaderValue,
    since_pruned: AtomicU32,
}

impl RateLimit {
    /// At most so many requests a second; no limit for 0.
    pub fn per_second(requests: u32) -> Option<Self> {
        let quota = Quota::per_second(NonZeroU32::new(requests)?);
        Some(Self {
            limiter: RateLimiter::keyed(quota).with_middleware(),
            policy: HeaderValue::from_str(&format!("\"default\";q={requests};w={WINDOW}")).ok()?,
            since_pruned: AtomicU32::new(0),
        })
    }

    /// What the answer says of the limit.
    ///
    /// # Errors
    /// 429 for a request too many, with the time to wait.
    pub fn check(&self, request: &Request, user_id: Option<UserId>) -> Result<Headers, Problem> {
        let Some(key) = key(request, user_id) else {
            return Ok(Headers::new());
        };

        if self.since_pruned.fetch_add(1, Ordering::Relaxed) >= PRUNE_EVERY {
            self.since_pruned.store(0, Ordering::Relaxed);
            self.limiter.retain_recent();
        }

        match self.limiter.check_key(&key) {
            Ok(state) => Ok(self.headers(state.remaining_burst_capacity(), WINDOW)),
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                let seconds = wait.as_secs() + 1;
                let detail = "too many requests; wait for as long as `Retry-After` says";
                let problem = Problem::new(TOO_MANY_REQUESTS, detail).with_retry_after(seconds);
                Err(problem.with_headers(self.headers(0, seconds)))
            }
        }
    }

    /// `available` requests within the next `window` seconds.
    fn headers(&self, available: u32, window: u64) -> Headers {
        let limit = HeaderValue::from_str(&format!("\"default\";r={available};t={window}"));
        let policy = (POLICY, self.policy.clone());
        limit
            .ok()
            .map(|limit| (LIMIT, limit))
            .into_iter()
            .chain([policy])
            .collect()
    }
}

fn key(request: &Request, user_id: Option<UserId>) -> Option<RateLimitKey> {
    match user_id {
        Some(user_id) => Some(RateLimitKey::User(user_id)),
        None => Some(RateLimitKey::Address(network(client_of(request)?))),
    }
}

/// The addresses that belong to one customer: one of IPv4, a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
