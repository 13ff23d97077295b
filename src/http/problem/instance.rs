//! The `instance` of a problem document: a path, whatever its bytes, as a URI reference (RFC 3986, section 4.2).

use std::fmt::Write as _;

/// The path with everything encoded that may not stand in one.
pub(super) fn reference(path: &str) -> String {
    let mut reference = String::with_capacity(path.len());
    for (index, byte) in path.bytes().enumerate() {
        let is_encoded = byte == b'%' && is_hex(path.as_bytes().get(index + 1..index + 3));
        // Two slashes at the beginning would begin the name of another server.
        let names_server = byte == b'/' && index == 1 && path.starts_with('/');

        if (is_encoded || is_path(byte)) && !names_server {
            reference.push(byte.into());
        } else {
            let _ = write!(reference, "%{byte:02X}");
        }
    }

    // The target of a request need not be a path (RFC 9112, section 3.2).
    if !reference.starts_with('/') {
        reference.insert(0, '/');
    }
    reference
}

fn is_hex(digits: Option<&[u8]>) -> bool {
    digits.is_some_and(|digits| digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Slashes, and the characters of a segment (RFC 3986, section 3.3).
fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_uri_reference_whatever_the_path() {
        for (path, instance) in [
            ("/orders/1", "/orders/1"),
            ("/a%20b/%2F", "/a%20b/%2F"),
            ("/a%2/%zz%", "/a%252/%25zz%25"),
            ("/a|b\\\"<>^`{}[]", "/a%7Cb%5C%22%3C%3E%5E%60%7B%7D%5B%5D"),
            ("/é", "/%C3%A9"),
            ("//evil.example/x//y", "/%2Fevil.example/x//y"),
            ("*", "/*"),
            ("", "/"),
        ] {
            assert_eq!(reference(path), instance, "{path}");
        }
    }
}
