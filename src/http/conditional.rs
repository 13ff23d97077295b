//! Conditional requests (RFC 9110, section 13): a client that has the current representation is answered without it, and
//! one that changes another representation than it has read is refused.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use poem::{
    Request,
    http::{HeaderMap, header},
    web::headers::{self, ETag, HeaderMapExt as _},
};

use super::{header::FromHeader, problem::Problem};

/// The entity tag of a representation, made from its content, quotes included: a strong one (RFC 9110, section 8.8.3).
pub fn entity_tag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:x}-{:016x}\"", body.len(), hasher.finish())
}

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

/// The entity tags that a change is meant for, as `If-Match` names them.
#[derive(Clone, Debug, PartialEq)]
pub struct IfMatch {
    is_sent: bool,
    tags: Option<headers::IfMatch>,
}

impl IfMatch {
    pub fn of(headers: &HeaderMap) -> Self {
        Self {
            is_sent: headers.contains_key(header::IF_MATCH),
            tags: headers.typed_get(),
        }
    }

    /// Whether the change depends on what is there.
    pub fn is_condition(&self) -> bool {
        self.is_sent
    }

    /// Whether the change may be made to the representation with this entity tag, quotes included. Weak tags match nothing
    /// (RFC 9110, section 13.1.1), and neither does what cannot be read: to ignore it would drop the condition.
    pub fn allows(&self, etag: &str) -> bool {
        let passes = |tags: &headers::IfMatch| etag.parse::<ETag>().is_ok_and(|etag| tags.precondition_passes(&etag));
        !self.is_sent || self.tags.as_ref().is_some_and(passes)
    }
}

impl FromHeader for IfMatch {
    fn from_request(request: &Request) -> Result<Self, Problem> {
        Ok(Self::of(request.headers()))
    }
}

#[cfg(test)]
mod tests {
    use poem::http::{
        HeaderValue,
        header::{IF_MATCH, IF_NONE_MATCH},
    };

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

    #[test]
    fn if_match_takes_lists_and_a_star_and_compares_strongly() {
        let allows = |lines: &[&'static [u8]]| {
            let line = |line: &&'static [u8]| HeaderValue::from_bytes(line).expect("a header can hold it");
            let lines = lines.iter().map(|bytes| (IF_MATCH, line(bytes)));
            IfMatch::of(&lines.collect()).allows("\"b\"")
        };

        assert!(allows(&[]) && allows(&[b"*"]) && allows(&[b"\"a\", \"b\""]) && allows(&[b"\"a\"", b"\"b\""]));
        for refused in [&b"\"a\""[..], b"W/\"b\"", b"b", b"", b"\"\xff\""] {
            assert!(!allows(&[refused]), "{refused:?}");
        }
    }
}
