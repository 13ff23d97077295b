//! What is wrong with a configuration.

use std::fmt::Display;

/// A configuration that cannot be used, in one sentence: where the value was set, its key, and what is wrong with it.
/// It never repeats a value that may be secret.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(problem: impl Display) -> Self {
        Self(problem.to_string())
    }
}
