//! Web origins, as browsers write them in the header `Origin` (RFC 6454, section 6.2; WHATWG HTML, "serialization of an
//! origin"). An origin that is written otherwise would never match, so it is rewritten or refused.

use std::net::{Ipv4Addr, Ipv6Addr};

const EXAMPLE: &str = "which is not an origin such as https://shop.example";

/// The origin in the form that browsers send: in lower case, without a slash at its end and without the port that its
/// scheme implies. The error says what is wrong, to follow the origin.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").ok_or(EXAMPLE)?;
    let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "https" => ("https", 443),
        "http" => ("http", 80),
        _ => return Err("whose scheme is neither https nor http".to_owned()),
    };

    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(after) = authority.chars().find(|letter| "/?#@\\".contains(*letter)) {
        return Err(format!("which holds more than a scheme, a host and a port: {after:?}"));
    }
    let (host, port) = split_port(authority);
    let host = host_of(host)?;

    match port.map(port_of).transpose()? {
        Some(port) if port != default_port => Ok(format!("{scheme}://{host}:{port}")),
        _ => Ok(format!("{scheme}://{host}")),
    }
}

/// The colons in the brackets of an address belong to the host.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn port_of(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits);
    port.ok_or_else(|| "whose port is not a number from 0 to 65535".to_owned())
}

fn host_of(host: &str) -> Result<String, String> {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| EXAMPLE)?;
        return Ok(format!("[{}]", compressed(address)));
    }
    if !host.is_ascii() {
        return Err("whose host browsers send in letters of ASCII: write it so, beginning with xn--".to_owned());
    }

    let host = host.to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_name = name
        .split('.')
        .all(|label| !label.is_empty() && label.bytes().all(is_letter));

    // Browsers read a host whose last label is a number as an address of IPv4, and write it with four numbers.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if !is_name || (is_number && host.parse::<Ipv4Addr>().is_err()) {
        return Err(EXAMPLE.to_owned());
    }
    Ok(host)
}

/// As WHATWG URL serializes it: Rust writes the last 32 bits of some addresses as one of IPv4.
fn compressed(address: Ipv6Addr) -> String {
    let text = address.to_string();
    let Some(v4) = text.rsplit(':').next().and_then(|last| last.parse::<Ipv4Addr>().ok()) else {
        return text;
    };

    let [a, b, c, d] = v4.octets().map(u16::from);
    let front = text.trim_end_matches(&v4.to_string());
    format!("{front}{:x}:{:x}", a << 8 | b, c << 8 | d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for (written, sent) in [
            ("https://shop.example", "https://shop.example"),
            ("HTTPS://Shop.Example", "https://shop.example"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:0080/", "http://a.example"),
            ("https://a.example:80", "https://a.example:80"),
            ("http://localhost:3000/", "http://localhost:3000"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://xn--mller-kva.example.", "https://xn--mller-kva.example."),
            ("http://[2001:DB8:0:0::7]:80", "http://[2001:db8::7]"),
            ("http://[::ffff:1.2.3.4]:81", "http://[::ffff:102:304]:81"),
        ] {
            assert_eq!(origin(written).as_deref(), Ok(sent), "{written}");
        }

        for wrong in [
            "*",
            "null",
            "shop.example",
            "https://",
            "https:///",
            "https://*.example",
            "https://shop.example/path",
            "https://shop.example//",
            "https://shop.example?x",
            "https://shop.example#x",
            "https://user@shop.example",
            "https://shop.example:",
            "https://shop.example:99999",
            "https://shop.example:+443",
            "https://shop..example",
            "https://sh op.example",
            "https://sh%6fp.example",
            "https://müller.example",
            "https://1.2.3",
            "https://0x7f000001",
            "https://[::1",
            "https://::1",
            "ftp://shop.example",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}: {:?}", origin(wrong));
        }
    }
}
