//! Headers that hold lists, as RFC 9110 writes them (section 5.6.1): over several lines, with quoted commas.

use poem::http::HeaderMap;

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

/// Name and value of a parameter such as `q=0.5`, the name in any case, the value without quotes.
pub fn parameter<'a>(part: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = part.split_once('=')?;
    let named = found.trim().eq_ignore_ascii_case(name);
    named.then(|| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_comma_separates_nothing() {
        let found: Vec<&str> = parts(r#"a, "b, \"c", , W/"d";x="1,2""#, ',').collect();
        assert_eq!(found, ["a", r#""b, \"c""#, r#"W/"d";x="1,2""#]);
        assert_eq!(parameter("Q = \"0.5\"", "q"), Some("0.5"));
        assert_eq!(parameter("quality=1", "q"), None);
    }
}
