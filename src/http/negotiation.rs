//! What a client accepts, and headers that hold lists as RFC 9110 writes them (section 5.6.1): over several lines, with
//! quoted commas.

use poem::http::{HeaderMap, header};

/// Whether the client would rather have an answer that is compressed by gzip (RFC 9110, section 12.5.3): it names gzip,
/// or takes anything, with a weight that is not 0 and not less than that of the answer as it is.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return false;
    }

    let weight_of = |is_named: fn(&str) -> bool| {
        elements(headers, "accept-encoding").find_map(|coding| {
            let mut parts = parts(coding, ';');
            let named = is_named(parts.next()?);
            let weight = parts.find_map(|part| parameter(part, "q"));
            named.then(|| weight.map_or(MAX_WEIGHT, parse_weight))
        })
    };

    // A recipient should take x-gzip for gzip (section 8.4.1.3).
    let gzip = weight_of(|name| name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip"));
    let gzip = gzip.or_else(|| weight_of(|name| name == "*")).unwrap_or(0);
    let identity = weight_of(|name| name.eq_ignore_ascii_case("identity")).unwrap_or(0);
    gzip > 0 && gzip >= identity
}

/// The weight 1, in thousandths.
const MAX_WEIGHT: u16 = 1_000;

/// A weight in thousandths (RFC 9110, section 12.4.2). What is none counts as 0.
fn parse_weight(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_fraction = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = format!("{fraction:0<3}").parse().unwrap_or(0);
    match whole {
        "0" if is_fraction => thousandths,
        "1" if is_fraction && thousandths == 0 => MAX_WEIGHT,
        _ => 0,
    }
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

        for taken in [
            &["br, GZip;q=0.5"][..],
            &["br", "gzip"],
            &["*"],
            &["gzip;foo=1"],
            &["x-gzip"],
            &["gzip;q=0.001"],
            &["gzip;q=1.000, identity;q=1"],
            &["identity;q=0.5, *;q=0.8"],
        ] {
            assert!(takes(taken), "{taken:?}");
        }
        for refused in [
            &["gzip;Q=0"][..],
            &["gzip;foo=1;q=0.000"],
            &["*;q=0"],
            &["gzip;q=0, *"],
            &["gzip;q=0.5, identity;q=0.501"],
            &["*;q=0.1, identity"],
            &["gzip;q=2"],
            &["gzip;q=inf"],
            &["gzip;q=0.0005"],
            &["gzip;q=-1"],
            &["br"],
            &[],
        ] {
            assert!(!takes(refused), "{refused:?}");
        }
    }
}
