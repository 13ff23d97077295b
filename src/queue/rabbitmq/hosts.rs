//! The hosts of one cluster. The URL may name several, which lapin's own type does not:
//! `amqp://user:password@one:5672,two:5672/vhost?heartbeat=10`.

use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::uri::AMQPUri;

use crate::queue::QueueError;

/// After so much silence a broker counts as unreachable, unless the URL says otherwise.
const HEARTBEAT_SECONDS: u16 = 10;

/// One URI for each host, which are tried in turn.
pub(super) struct Hosts {
    uris: Vec<AMQPUri>,
    next: AtomicUsize,
}

impl Hosts {
    /// # Errors
    /// That the URL is malformed, without quoting it: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, QueueError> {
        let malformed = || QueueError("the URL is not of the form amqp://user:password@host:5672/vhost".to_owned());

        let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
        let (authority, path_and_query) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let at = if credentials.is_empty() { "" } else { "@" };

        let parse_one = |host: &str| {
            let uri = format!("{scheme}://{credentials}{at}{host}{path_and_query}");
            let mut uri: AMQPUri = uri.parse().map_err(|_| malformed())?;
            uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
            Ok(uri)
        };
        Ok(Self {
            uris: hosts.split(',').map(parse_one).collect::<Result<_, QueueError>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// Every host once, starting with another one at each call. `frame_max` is the largest frame in bytes, unless the
    /// URL says otherwise.
    pub(super) fn in_turn(&self, frame_max: u32) -> impl Iterator<Item = AMQPUri> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.uris.len()).map(move |offset| {
            let mut uri = self.uris[start.wrapping_add(offset) % self.uris.len()].clone();
            uri.query.frame_max.get_or_insert(frame_max);
            uri
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<String> {
        let hosts = Hosts::parse(url).expect("well formed");
        hosts.in_turn(16_384).map(|uri| uri.to_string()).collect()
    }

    #[test]
    fn a_url_with_several_hosts_becomes_one_url_a_host() {
        assert_eq!(
            hosts("amqp://u:p@one:5672,two:5673/shop?frame_max=8192"),
            [
                "amqp://u:p@one:5672/shop?frame_max=8192&heartbeat=10",
                "amqp://u:p@two:5673/shop?frame_max=8192&heartbeat=10",
            ]
        );
        assert_eq!(
            hosts("amqps://one?heartbeat=7"),
            ["amqps://guest:guest@one:5671/%2F?frame_max=16384&heartbeat=7"]
        );
        assert_eq!(
            hosts("amqp://u:a%40b@one/%2fshop"),
            ["amqp://u:a%40b@one:5672/%2Fshop?frame_max=16384&heartbeat=10"]
        );
    }

    #[test]
    fn each_call_starts_with_another_host() {
        let hosts = Hosts::parse("amqp://one,two,three").expect("well formed");
        let order = || {
            let uris = hosts.in_turn(16_384);
            uris.map(|uri| uri.authority.host).collect::<Vec<_>>()
        };
        assert_eq!(order(), ["one", "two", "three"]);
        assert_eq!(order(), ["two", "three", "one"]);
    }

    #[test]
    fn an_error_quotes_no_password() {
        for malformed in ["amqp://u:hunter2@host:port", "http://u:hunter2@host", "u:hunter2@host"] {
            let error = Hosts::parse(malformed).err().expect("malformed").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
