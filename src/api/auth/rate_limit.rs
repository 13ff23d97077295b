//! A bound on the requests of one user a second, or of one address where the user is not known.

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
use poem::Request;

use crate::{
    domain::UserId,
    http::problem::{Problem, types::TOO_MANY_REQUESTS},
};

/// After so many requests the counts of those who have not called for a while are dropped.
const PRUNE_EVERY: u32 = 10_000;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RateLimitKey {
    User(UserId),
    Address(IpAddr),
}

pub struct RateLimit {
    limiter: RateLimiter<RateLimitKey, DefaultKeyedStateStore<RateLimitKey>, DefaultClock>,
    since_pruned: AtomicU32,
}

impl RateLimit {
    /// At most so many requests a second; no limit for 0.
    pub fn per_second(requests: u32) -> Option<Self> {
        let requests = NonZeroU32::new(requests)?;
        Some(Self {
            limiter: RateLimiter::keyed(Quota::per_second(requests)),
            since_pruned: AtomicU32::new(0),
        })
    }

    /// # Errors
    /// 429 for a request too many, with the time to wait.
    pub fn check(&self, request: &Request, user_id: Option<UserId>) -> Result<(), Problem> {
        let Some(key) = key(request, user_id) else {
            return Ok(());
        };

        if self.since_pruned.fetch_add(1, Ordering::Relaxed) >= PRUNE_EVERY {
            self.since_pruned.store(0, Ordering::Relaxed);
            self.limiter.retain_recent();
        }

        self.limiter.check_key(&key).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            let detail = "too many requests; wait for as long as `Retry-After` says";
            Problem::new(TOO_MANY_REQUESTS, detail).with_retry_after(wait.as_secs() + 1)
        })
    }
}

fn key(request: &Request, user_id: Option<UserId>) -> Option<RateLimitKey> {
    if let Some(user_id) = user_id {
        return Some(RateLimitKey::User(user_id));
    }

    let address = request.remote_addr().as_socket_addr()?.ip();
    Some(RateLimitKey::Address(network(address)))
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
