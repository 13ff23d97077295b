//! Whose request it is behind proxies. `Forwarded` (RFC 7239) and `X-Forwarded-For` are believed as far as trusted proxies
//! wrote them, and of nobody else.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use poem::http::HeaderMap;

use crate::{
    config::Network,
    http::negotiation::{elements, parameter, parts},
};

/// The address of the client of a request that came from `peer`: the last one before it that is not a trusted proxy.
pub(super) fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[Network]) -> SocketAddr {
    let address = peer.ip().to_canonical();
    if !is_trusted(address, trusted) {
        return SocketAddr::new(address, peer.port());
    }

    let nodes = |name, node: fn(&str) -> Option<IpAddr>| {
        let mut nodes: Vec<Option<IpAddr>> = elements(headers, name).map(node).collect();
        nodes.reverse();
        (!nodes.is_empty()).then(|| last_untrusted(address, &nodes, trusted))
    };
    let client = match (nodes("forwarded", forwarded_node), nodes("x-forwarded-for", parse_node)) {
        // A proxy writes one of the two and hands on the other as the client sent it, so the client could choose an address.
        (Some(one), Some(other)) if one != other => address,
        (one, other) => one.or(other).unwrap_or(address),
    };

    let port = if client == address { peer.port() } else { 0 };
    SocketAddr::new(client, port)
}

fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Goes back from the peer, from trusted proxy to trusted proxy. An element that is no address, such as `unknown`, ends the
/// walk: the last address before it is the client.
fn last_untrusted(peer: IpAddr, nodes_before: &[Option<IpAddr>], trusted: &[Network]) -> IpAddr {
    let mut client = peer;
    for node in nodes_before {
        let Some(node) = node else { break };
        client = *node;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// The address in `for=` of one element of `Forwarded`.
fn forwarded_node(element: &str) -> Option<IpAddr> {
    let node = parts(element, ';').find_map(|pair| parameter(pair, "for"))?;
    parse_node(node)
}

/// An address, with a port or without. Of IPv6 it stands in brackets, except where proxies have always written it without.
fn parse_node(node: &str) -> Option<IpAddr> {
    let node = node.trim();
    let address = match node.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0.parse::<Ipv6Addr>().ok()?.into(),
        None => match node.split_once(':') {
            Some((v4, port)) if !port.contains(':') => v4.parse().ok()?,
            _ => node.parse::<IpAddr>().ok()?,
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use poem::http::{HeaderName, HeaderValue};

    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &'static str)]) -> String {
        let trusted = ["10.0.0.0/8", "::1"].map(|network| network.parse().expect("a network"));
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let peer = peer.parse().expect("an address and a port");
        of(peer, &headers.collect(), &trusted).ip().to_string()
    }

    #[test]
    fn the_client_is_the_last_one_before_the_trusted_proxies() {
        const XFF: &str = "x-forwarded-for";
        for (value, expected) in [
            ("203.0.113.7", "203.0.113.7"),
            ("198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
            ("10.9.9.9, 10.0.0.2", "10.9.9.9"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, unknown", "10.0.0.1"),
            ("203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1:80", &[(XFF, value)]), expected, "{value}");
            assert_eq!(client("192.0.2.9:80", &[(XFF, value)]), "192.0.2.9", "{value}");
        }

        let lines = [(XFF, "198.51.100.1"), (XFF, "203.0.113.7")];
        assert_eq!(client("[::1]:80", &lines), "203.0.113.7");
        assert_eq!(client("[::ffff:10.0.0.1]:80", &lines), "203.0.113.7");
        assert_eq!(client("[::ffff:192.0.2.9]:80", &lines), "192.0.2.9");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        const FORWARDED: &str = "forwarded";
        for (value, expected) in [
            ("for=203.0.113.7", "203.0.113.7"),
            ("proto=http;For=\"203.0.113.7:4711\";by=10.0.0.1", "203.0.113.7"),
            (
                "for=198.51.100.1, FOR=\"[2001:db8::7]:80\", for=10.0.0.2",
                "2001:db8::7",
            ),
            ("for=203.0.113.7, for=_hidden", "10.0.0.1"),
            ("for=203.0.113.7, proto=https", "10.0.0.1"),
            ("for=\"a, for=203.0.113.7", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1:80", &[(FORWARDED, value)]), expected, "{value}");
            assert_eq!(client("192.0.2.9:80", &[(FORWARDED, value)]), "192.0.2.9", "{value}");
        }
    }

    #[test]
    fn two_headers_that_disagree_are_not_believed() {
        let both = |forwarded, xff| client("10.0.0.1:80", &[("forwarded", forwarded), ("x-forwarded-for", xff)]);
        assert_eq!(both("for=203.0.113.7", "198.51.100.1, 203.0.113.7"), "203.0.113.7");
        assert_eq!(both("for=198.51.100.1", "203.0.113.7"), "10.0.0.1");
    }
}
