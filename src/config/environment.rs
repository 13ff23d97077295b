//! The `SHOP_` variables of the environment, and how their names relate to the keys.

use std::ffi::OsString;

use super::error::ConfigError;

const PREFIX: &str = "SHOP_";

/// The variables that are settings, sorted by name. A value that is not UTF-8 is an error.
pub(super) fn read() -> Result<Vec<(String, String)>, ConfigError> {
    let is_setting = |name: &str, value: &str| name.starts_with(PREFIX) && !is_set_by_kubernetes(name, value);
    let text = |(name, value): (OsString, OsString)| {
        let name = name.to_string_lossy().into_owned();
        is_setting(&name, &value.to_string_lossy()).then(|| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError::new(format_args!("{name} in the environment is not UTF-8"))),
        })
    };

    let mut variables: Vec<(String, String)> = std::env::vars_os().filter_map(text).collect::<Result<_, _>>()?;
    variables.sort();
    Ok(variables)
}

/// The key that a variable sets: `SHOP_DATABASE_URL` sets `database_url`.
pub(super) fn key_of(variable: &str) -> String {
    variable.strip_prefix(PREFIX).unwrap_or(variable).to_ascii_lowercase()
}

/// The variable that sets a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

/// Kubernetes sets variables in every pod for services that are named `shop` or `shop-…`: `SHOP_SERVICE_HOST`,
/// `SHOP_DB_SERVICE_PORT_HTTP`, `SHOP_PORT=tcp://10.0.0.1:80`, `SHOP_PORT_80_TCP_ADDR`.
fn is_set_by_kubernetes(name: &str, value: &str) -> bool {
    let is_link = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || (name.ends_with("_PORT") && is_link)
}
