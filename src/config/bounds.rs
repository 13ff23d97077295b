//! What a value must be, as functions for `#[serde(deserialize_with = "…")]`, so that every bound stands beside its
//! field. The errors say what is expected, and never repeat a value that may hold a password.
//!
//! Every field is read by one of them: left to itself, the crate `config` takes `true` for 1, 5.7 for 6 and "yes" for
//! `true`.

use std::{fmt::Display, time::Duration};

use config::{Value, ValueKind};
use serde::{Deserialize as _, Deserializer, de::Error};

/// A whole number from `MIN` to `MAX`.
pub(super) fn whole<'de, D, T, const MIN: i64, const MAX: i64>(value: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    let expected = format_args!("a whole number from {MIN} to {MAX}");
    let number = match as_written(value)? {
        ValueKind::I64(number) => i128::from(number),
        ValueKind::U64(number) => i128::from(number),
        ValueKind::I128(number) => number,
        ValueKind::String(text) if !text.is_empty() => {
            return Err(D::Error::custom(format_args!(
                "must be {expected}, in plain digits without quotes"
            )));
        }
        other => return Err(wrong_kind(&other, expected)),
    };

    let in_range = i64::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number));
    in_range
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| D::Error::custom(format_args!("is {number}, but must be {expected}")))
}

/// `true` or `false`.
pub(super) fn boolean<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    const EXPECTED: &str = "`true` or `false`";
    match as_written(value)? {
        ValueKind::Boolean(value) => Ok(value),
        ValueKind::String(text) if !text.is_empty() => Err(D::Error::custom(format_args!(
            "must be {EXPECTED}, in small letters without quotes"
        ))),
        other => Err(wrong_kind(&other, EXPECTED)),
    }
}

/// Any text, also an empty one.
pub(super) fn text<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    match as_written(value)? {
        ValueKind::String(text) => Ok(text),
        other => Err(wrong_kind(&other, "a text in quotes")),
    }
}

/// One of a few words.
pub(super) fn word<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<String, Error: Display>,
{
    T::try_from(text(value)?).map_err(D::Error::custom)
}

/// Whole seconds from `MIN` to `MAX`.
pub(super) fn seconds<'de, D, const MIN: i64, const MAX: i64>(value: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    whole::<D, u64, MIN, MAX>(value).map(Duration::from_secs)
}

/// A URL with one of these schemes. `memory:` is one by itself.
pub(super) fn url<'de, D: Deserializer<'de>>(value: D, schemes: &[&str]) -> Result<String, D::Error> {
    let url = text(value)?;
    match url.split_once(':') {
        Some(("memory", rest)) if schemes.contains(&"memory") && !rest.is_empty() => {
            Err(D::Error::custom("must be `memory:` with nothing behind it"))
        }
        Some((scheme, _)) if schemes.contains(&scheme) => Ok(url),
        _ => Err(D::Error::custom(format_args!(
            "must start with one of {}:",
            schemes.join(": ")
        ))),
    }
}

/// The first part of names in RabbitMQ or Redis.
pub(super) fn prefix<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_prefix = |text: &str| (1..=100).contains(&text.len()) && text.bytes().all(allowed);
    valid(
        value,
        is_prefix,
        "must be 1 to 100 letters, digits, dots, dashes or underscores",
    )
}

/// A currency's code of ISO 4217.
pub(super) fn currency<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let is_code = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
    valid(value, is_code, "must be three capital letters, as in ISO 4217 (USD)")
}

/// A filter of the crate `tracing_subscriber`. A lone word is a level: as the name of a target, which the crate would take it
/// for, it would silence everything else.
pub(super) fn log_filter<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    let filter = text(value)?;
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

/// Values separated by commas, or an empty text for none, each read by `read`; one that comes again counts once. `read`
/// says what is wrong, to follow the value as in "which is not an address".
pub(super) fn list<'de, D: Deserializer<'de>, T: PartialEq>(
    value: D,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, D::Error> {
    let mut values = Vec::new();
    let text = text(value)?;
    if text.trim().is_empty() {
        return Ok(values);
    }

    for part in text.split(',').map(str::trim) {
        if part.is_empty() {
            return Err(D::Error::custom("has a comma with no value before or behind it"));
        }
        let problem = |problem: String| D::Error::custom(format_args!("holds {part:?}, {problem}"));
        let value = read(part).map_err(problem)?;
        if !values.contains(&value) {
            values.push(value);
        }
    }
    Ok(values)
}

fn valid<'de, D: Deserializer<'de>>(
    value: D,
    is_valid: impl FnOnce(&str) -> bool,
    expected: impl Display,
) -> Result<String, D::Error> {
    let text = text(value)?;
    if is_valid(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(expected))
    }
}

fn as_written<'de, D: Deserializer<'de>>(value: D) -> Result<ValueKind, D::Error> {
    Ok(Value::deserialize(value)?.kind)
}

/// Names the kind and not the value, which may be a secret.
fn wrong_kind<E: Error>(found: &ValueKind, expected: impl Display) -> E {
    let found = match found {
        ValueKind::Nil => "empty",
        ValueKind::String(text) if text.is_empty() => "empty",
        ValueKind::String(_) => "a text",
        ValueKind::Boolean(_) => "`true` or `false`",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a whole number",
        ValueKind::Float(_) => "a number with a fraction or an exponent",
        ValueKind::Array(_) => "a list",
        ValueKind::Table(_) => "a table or a time",
    };
    E::custom(format_args!("is {found}, but must be {expected}"))
}
