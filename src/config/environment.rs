//! The variables that are the shop's own.

use std::ffi::OsString;

use config::Map;

use super::ConfigError;

/// The `SHOP_` variables, less those that Kubernetes sets by itself in every pod for services named `shop` or `shop-…`:
/// `SHOP_SERVICE_HOST`, `SHOP_DB_SERVICE_PORT_HTTP`, `SHOP_PORT=tcp://10.0.0.1:80`, `SHOP_PORT_80_TCP_ADDR`.
pub(super) fn read() -> Result<Map<String, String>, ConfigError> {
    let of_kubernetes = |key: &str, value: &str| {
        let is_link = ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|scheme| value.starts_with(scheme));
        key.ends_with("_SERVICE_HOST")
            || key.contains("_SERVICE_PORT")
            || key.contains("_PORT_")
            || (key.ends_with("_PORT") && is_link)
    };
    let text = |(key, value): (OsString, OsString)| {
        let key = key.to_string_lossy().into_owned();
        let ours = key.starts_with("SHOP_") && !of_kubernetes(&key, &value.to_string_lossy());
        ours.then(|| match value.into_string() {
            Ok(value) => Ok((key, value)),
            Err(_) => Err(ConfigError::Unreadable(format!(
                "{key} in the environment is not UTF-8"
            ))),
        })
    };
    std::env::vars_os().filter_map(text).collect()
}
