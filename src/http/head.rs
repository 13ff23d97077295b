//! What the head of a request must be before anything else is looked at: the host, the framing of the body, and what the
//! client expects (RFC 9110, sections 7.2 and 10.1.1; RFC 9112, sections 3.2 and 6).

use std::net::Ipv6Addr;

use poem::{
    Request,
    http::{HeaderName, HeaderValue, Version, header},
};

use super::{
    negotiation::parts,
    problem::{
        Problem,
        types::{EXPECTATION_FAILED, NOT_IMPLEMENTED},
    },
};

/// Marks a request that had both a `Content-Length` and a `Transfer-Encoding`.
#[derive(Clone, Copy)]
pub struct TwoLengths;

/// # Errors
/// What is wrong with the head of the request. Only the first fault: after it nothing of the request can be believed.
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    let (mut hosts, mut host) = (0, None);
    for (name, value) in request.headers() {
        if name == header::HOST {
            (hosts, host) = (hosts + 1, Some(value));
        } else if name == header::TRANSFER_ENCODING {
            check_transfer_coding(request)?;
        } else if name == header::EXPECT {
            check_expectation(request)?;
        }
    }

    check_host(request, hosts, host)
}

fn check_host(request: &Request, count: usize, host: Option<&HeaderValue>) -> Result<(), Problem> {
    let invalid = |detail| Err(Problem::invalid_field("/header/Host", detail));
    match (count, host) {
        (0, _) if request.version() == Version::HTTP_11 => return invalid("a request of HTTP/1.1 has a `Host` header"),
        (2.., _) => return invalid("a request has one `Host` header"),
        (_, Some(host)) if !is_host(host.as_bytes()) => {
            return invalid("`Host` must be a name or an address, with a port or without");
        }
        _ => {}
    }

    let target = request.uri().authority();
    if target.is_some_and(|target| target.as_str().contains('@')) {
        return Err(Problem::invalid_field(
            "",
            "the target of the request holds a user's name",
        ));
    }
    Ok(())
}

/// `uri-host [ ":" port ]`, where the host of an `http` URI is not empty (RFC 9110, section 4.2.1; RFC 3986, section
/// 3.2.2).
fn is_host(value: &[u8]) -> bool {
    let Ok(value) = str::from_utf8(value) else { return false };

    let (is_valid, port) = match value.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => (address.parse::<Ipv6Addr>().is_ok(), port),
        Some(None) => return false,
        None => {
            let (name, port) = value.split_at(value.find(':').unwrap_or(value.len()));
            (!name.is_empty() && is_registered_name(name.as_bytes()), port)
        }
    };

    let digits = port.strip_prefix(':').unwrap_or(port);
    let has_colon = port.is_empty() || digits.len() < port.len();
    is_valid && has_colon && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (byte, after) if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => after,
            _ => return false,
        };
    }
    true
}

/// A request may be sent in chunks, and coded in no other way. Two lengths are how requests are smuggled past a proxy
/// that believes the other one.
fn check_transfer_coding(request: &Request) -> Result<(), Problem> {
    if request.data::<TwoLengths>().is_some() {
        let detail = "a request has a `Content-Length` or a `Transfer-Encoding`, not both";
        return Err(Problem::invalid_field("/header/Content-Length", detail));
    }

    let codings = members(request, &header::TRANSFER_ENCODING);
    if !codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let detail = "`Transfer-Encoding: chunked` is the only transfer coding that is understood";
        return Err(Problem::new(NOT_IMPLEMENTED, detail));
    }
    if codings.len() > 1 {
        let detail = "a request is sent in chunks once";
        return Err(Problem::invalid_field("/header/Transfer-Encoding", detail));
    }
    Ok(())
}

fn check_expectation(request: &Request) -> Result<(), Problem> {
    let expected = members(request, &header::EXPECT);
    if expected
        .iter()
        .all(|expected| expected.eq_ignore_ascii_case("100-continue"))
    {
        return Ok(());
    }
    let detail = "`Expect: 100-continue` is the only expectation that is understood";
    Err(Problem::new(EXPECTATION_FAILED, detail))
}

/// The members of all lines of a header. A line that is not ASCII is one that nobody understands.
fn members<'a>(request: &'a Request, name: &HeaderName) -> Vec<&'a str> {
    let lines = request.headers().get_all(name).iter();
    lines
        .flat_map(|line| parts(line.to_str().unwrap_or("?"), ','))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_without() {
        for valid in [
            "x",
            "Shop.Example:8080",
            "shop.example.",
            "x:",
            "127.0.0.1:1",
            "[::1]",
            "[2001:DB8::7]:443",
            "a%20b",
            "_dmarc.x-y~z",
        ] {
            assert!(is_host(valid.as_bytes()), "{valid}");
        }
        for invalid in [
            "",
            ":8080",
            "a b",
            "a@b",
            "a:b@c",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a:80:80",
            "a:8o",
            "::1",
            "[::1",
            "[::1]x",
            "[x]",
            "[::1%25eth0]",
            "a%2",
            "a%zz",
            "http://a",
            "a\t",
            "\u{fc}",
        ] {
            assert!(!is_host(invalid.as_bytes()), "{invalid}");
        }
        assert!(!is_host(b"\xff"));
    }
}
