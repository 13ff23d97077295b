//! What a client accepts, and headers that hold lists as RFC 9110 writes them (section 5.6.1): over several lines, with
//! quoted commas.

use poem::http::{HeaderMap, header};

/// Whether the client takes an answer that is compressed by gzip (RFC 9110, section 12.5.3): it names gzip, or takes
/// anything, and not with a weight of 0.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return false;
    }

    let weight_of = |name: &str| {
        elements(headers, "accept-encoding").find_map(|coding| {
            let mut parts = parts(coding, ';');
            let named = parts.next()?.eq_ignore_ascii_case(name);
            let weight = parts.find_map(|part| parameter(part, "q"));
            named.then(|| weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
        })
    };

    weight_of("gzip")
        .or_else(|| weight_of("*"))
        .is_some_and(|weight: f64| weight > 0.0)
}

/// The elements of all lines of a header, without the space around them. Lines that are not ASCII are passed over.
pub fn elements<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| parts(line, ','))
}

/// What stands between separators that are not quoted, without the space around it.
pub fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let outside = move |letter: char| {
        let is_separator = letter == separator && !quoted;
        (quoted, escaped) = match letter {
            _ if escaped => (quoted, false),
            '"' => (!quoted, false),
            '\\' => (quoted, quoted),
            _ => (quoted, false),
        };
        is_separator
    };

    text.split(outside).map(str::trim).filter(|part| !part.is_empty())
}

/// The value of the parameter `name` if `part` is one, such as `q=0.5`: the name in any case, the value without quotes.
pub fn parameter<'a>(part: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = part.split_once('=')?;
    let named = found.trim().eq_ignore_ascii_case(name);
    named.then(|| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    #[test]
    fn a_quoted_comma_separates_nothing() {
        let found: Vec<&str> = parts(r#"a, "b, \"c", , W/"d";x="1,2""#, ',').collect();
        assert_eq!(found, ["a", r#""b, \"c""#, r#"W/"d";x="1,2""#]);
        assert_eq!(parameter("Q = \"0.5\"", "q"), Some("0.5"));
        assert_eq!(parameter("quality=1", "q"), None);
    }

    #[test]
    fn gzip_is_taken_where_it_is_named_or_anything_is_and_not_refused() {
        let takes = |lines: &[&'static str]| {
            let line = |line: &&'static str| (header::ACCEPT_ENCODING, HeaderValue::from_static(line));
            accepts_gzip(&lines.iter().map(line).collect())
        };

        for taken in [&["br, GZip;q=0.5"][..], &["br", "gzip"], &["*"], &["gzip;foo=1"]] {
            assert!(takes(taken), "{taken:?}");
        }
        for refused in [
            &["gzip;Q=0"][..],
            &["gzip;foo=1;q=0.000"],
            &["*;q=0"],
            &["gzip;q=0, *"],
            &["br"],
            &[],
        ] {
            assert!(!takes(refused), "{refused:?}");
        }
    }
}
