//! The messages of the shop as an AsyncAPI 3.0 document, for those who subscribe to its events.

use serde_json::Value;

/// `asyncapi.yaml`, with the version of the program. Names are those of the default `queue_prefix`.
///
/// # Errors
/// That the file is not YAML, which a test rules out.
pub fn document() -> Result<Value, serde_norway::Error> {
    let mut document: Value = serde_norway::from_str(include_str!("asyncapi.yaml"))?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_yaml_and_has_the_version_of_the_program() {
        let document = document().expect("YAML");
        assert_eq!(document["asyncapi"], "3.0.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
