//! `Prefer: wait=N` (RFC 7240): a request that would rather wait for a result than ask again.

use std::time::Duration;

use poem::{Request, http::HeaderMap};

use super::{
    header::FromHeader,
    negotiation::{elements, parameter, parts},
    problem::Problem,
};

/// The longest that a request may wait.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The preferences of a request that this server heeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// How long the request would rather wait: at least one second, [`MAX_WAIT`] at most.
    pub wait: Option<Duration>,
}

impl Prefer {
    /// Reads the first `wait=N` of all `Prefer` headers. What is not understood is no preference.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut preferences = elements(headers, "prefer").filter_map(|preference| parts(preference, ';').next());
        let seconds = preferences.find_map(|preference| parameter(preference, "wait"));

        Self {
            wait: seconds.and_then(parse_wait),
        }
    }
}

fn parse_wait(seconds: &str) -> Option<Duration> {
    if seconds.is_empty() || !seconds.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }

    // Digits that do not fit 64 bits are more than the maximum.
    let wait = Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)).min(MAX_WAIT);
    (!wait.is_zero()).then_some(wait)
}

/// The value of `Preference-Applied` after waiting for up to `wait`.
pub fn wait_applied(wait: Duration) -> String {
    format!("wait={}", wait.as_secs())
}

impl FromHeader for Prefer {
    fn from_request(request: &Request) -> Result<Self, Problem> {
        Ok(Self::of(request.headers()))
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    #[test]
    fn a_preference_to_wait_is_understood_as_rfc_7240_writes_it() {
        let wait = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("prefer", HeaderValue::from_static(value));
            }
            Prefer::of(&headers).wait.map(|wait| wait.as_secs())
        };

        assert_eq!(wait(&["wait=10"]), Some(10));
        assert_eq!(wait(&["respond-async, Wait = \"20\"; foo=bar"]), Some(20));
        assert_eq!(wait(&["return=minimal", "wait=99999"]), Some(30));
        assert_eq!(wait(&["wait=99999999999999999999999"]), Some(30));
        assert_eq!(wait(&["wait=2", "wait=5"]), Some(2), "the first");

        for none in [
            "",
            "wait",
            "wait=",
            "wait=-1",
            "wait=1.5",
            "wait=0",
            "waits=3",
            "foo; wait=3",
            "foo=\"a, wait=3\"",
            "wait=+3",
            "wait=x, wait=3",
        ] {
            assert_eq!(wait(&[none]), None, "{none}");
        }
    }
}
