//! JSON Pointers (RFC 6901), which say where in a request a fault is.

/// A name as a part of a pointer (section 3).
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
