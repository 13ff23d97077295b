//! Conditional requests (RFC 9110, section 13): a client that has the current representation is answered without it.

use poem::{
    Request,
    http::HeaderMap,
    web::headers::{self, ETag, HeaderMapExt as _},
};

use super::{header::FromHeader, problem::Problem};

/// The entity tags that the client has, as `If-None-Match` names them.
#[derive(Clone, Debug, PartialEq)]
pub struct IfNoneMatch(Option<headers::IfNoneMatch>);

impl IfNoneMatch {
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.typed_get())
    }

    /// Whether the client has the representation with this entity tag, quotes included.
    pub fn matches(&self, etag: &str) -> bool {
        let Self(Some(known)) = self else { return false };
        etag.parse::<ETag>().is_ok_and(|etag| !known.precondition_passes(&etag))
    }
}

impl FromHeader for IfNoneMatch {
    fn from_request(request: &Request) -> Result<Self, Problem> {
        Ok(Self::of(request.headers()))
    }
}

#[cfg(test)]
mod tests {
    use poem::http::{HeaderValue, header::IF_NONE_MATCH};

    use super::*;

    #[test]
    fn if_none_match_takes_lists_weak_tags_several_lines_and_a_star() {
        let matches = |lines: &[&'static str]| {
            let lines = lines.iter().map(|line| (IF_NONE_MATCH, HeaderValue::from_static(line)));
            IfNoneMatch::of(&lines.collect()).matches("\"b\"")
        };

        assert!(matches(&["\"a\", W/\"b\""]) && matches(&["*"]) && matches(&["\"a\"", "\"b\""]));
        assert!(!matches(&["\"a\""]) && !matches(&[]));
    }
}
