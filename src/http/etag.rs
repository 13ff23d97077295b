//! Entity tags that are made from the content (RFC 9110, section 8.8.3).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A strong tag, quotes included.
pub fn of(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:x}-{:016x}\"", body.len(), hasher.finish())
}
