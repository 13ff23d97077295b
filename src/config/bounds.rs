//! What a value must be, as functions for `#[serde(deserialize_with = "…")]`, so that every bound stands beside its
//! field. The errors say what is expected, and never repeat a value that may hold a password.

use std::{fmt::Display, time::Duration};

use serde::{Deserialize as _, Deserializer, de::Error};

/// A whole number from `MIN` to `MAX`.
pub(super) fn whole<'de, D, T, const MIN: i64, const MAX: i64>(value: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    let expected = || {
        if MAX == i64::MAX {
            format!("must be a whole number of {MIN} or more")
        } else {
            format!("must be a whole number from {MIN} to {MAX}")
        }
    };
    let number = i64::deserialize(value).map_err(|_| D::Error::custom(expected()))?;

    let in_range = (MIN..=MAX).contains(&number).then_some(number);
    in_range
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| D::Error::custom(format!("is {number}, but {}", expected())))
}

/// Whole seconds from `MIN` to `MAX`.
pub(super) fn seconds<'de, D, const MIN: i64, const MAX: i64>(value: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    whole::<D, u64, MIN, MAX>(value).map(Duration::from_secs)
}

/// A URL with one of these schemes.
pub(super) fn url<'de, D: Deserializer<'de>>(value: D, schemes: &[&str]) -> Result<String, D::Error> {
    let is_known = |url: &str| url.split_once(':').is_some_and(|(scheme, _)| schemes.contains(&scheme));
    text(
        value,
        is_known,
        format_args!("must start with one of {}:", schemes.join(": ")),
    )
}

/// The first part of names in RabbitMQ or Redis.
pub(super) fn prefix<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_prefix = |text: &str| (1..=100).contains(&text.len()) && text.bytes().all(allowed);
    text(
        value,
        is_prefix,
        "must be 1 to 100 letters, digits, dots, dashes or underscores",
    )
}

/// A currency's code of ISO 4217.
pub(super) fn currency<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let is_code = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    text(value, is_code, "must be three capital letters, as in ISO 4217 (USD)")
}

/// A filter of the crate `tracing_subscriber`. A lone word is a level: as the name of a target, which the crate would take it
/// for, it would silence everything else.
pub(super) fn log_filter<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    let filter = String::deserialize(value)?;
    let invalid =
        |problem: String| D::Error::custom(format!("is not a filter such as `info` or `shop=debug`: {problem}"));
    for directive in filter.split(',').map(str::trim) {
        let is_level = LEVELS.iter().any(|level| directive.eq_ignore_ascii_case(level));
        if !is_level && !directive.contains('=') {
            return Err(invalid(format!("`{directive}` is none of {}", LEVELS.join(", "))));
        }
    }
    tracing_subscriber::EnvFilter::try_new(&filter).map_err(|error| invalid(error.to_string()))?;
    Ok(filter)
}

/// Values separated by commas, each read by `read`; one that comes again counts once. `read` says what is wrong, to
/// follow the value as in "which is not an address".
pub(super) fn list<'de, D: Deserializer<'de>, T: PartialEq>(
    value: D,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, D::Error> {
    let mut values = Vec::new();
    let text = String::deserialize(value)?;

    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let problem = |problem: String| D::Error::custom(format_args!("holds {part:?}, {problem}"));
        let value = read(part).map_err(problem)?;
        if !values.contains(&value) {
            values.push(value);
        }
    }
    Ok(values)
}

fn text<'de, D: Deserializer<'de>>(
    value: D,
    is_valid: impl FnOnce(&str) -> bool,
    expected: impl Display,
) -> Result<String, D::Error> {
    let text = String::deserialize(value)?;
    if is_valid(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(expected))
    }
}
