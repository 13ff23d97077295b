//! The layers of the configuration: built-in defaults, a file, the environment, flags. A later layer overrides an
//! earlier one. For every key it is known where its value was set, so that an error can name the place.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use config::{Map, Value, ValueKind};
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::{environment, error::ConfigError};

/// How alike a key and a mistyped one must be for the key to be suggested, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.75;

/// Where the value of a key was set.
#[derive(Clone, Debug)]
enum Source {
    /// `config/default.toml`.
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    /// By the name of the variable.
    Environment(String),
    Flag,
}

/// Where the value of each key was set.
#[derive(Clone, Debug)]
pub(super) struct Sources(BTreeMap<String, Source>);

/// The values in force.
pub(super) struct Layers {
    /// They show which kind of value each key takes.
    defaults: Map<String, Value>,
    values: Map<String, Value>,
    sources: Sources,
}

impl Layers {
    /// Begins with the built-in defaults, which name every key that there is.
    pub(super) fn new(defaults: &str) -> Result<Self, ConfigError> {
        let mut layers = Self {
            defaults: Map::new(),
            values: Map::new(),
            sources: Sources(BTreeMap::new()),
        };
        for (key, value) in parse(Path::new("config/default.toml"), defaults)? {
            layers.sources.0.insert(key.get_ref().clone(), Source::Default);
            layers.defaults.insert(key.into_inner(), value);
        }
        layers.values.clone_from(&layers.defaults);
        Ok(layers)
    }

    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            ConfigError::new(format_args!(
                "the file {path} named by --config cannot be read: {error}"
            ))
        })?;
        for (key, value) in parse(path, &text)? {
            let source = Source::File {
                path: path.to_owned(),
                line: line_at(&text, key.span().start),
            };
            self.set(key.get_ref(), value, source)?;
        }
        Ok(())
    }

    /// Variables with their full names.
    pub(super) fn add_environment(&mut self, variables: Vec<(String, String)>) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let key = environment::key_of(&name);
            let is_exact = environment::variable_of(&key) == name;
            let source = Source::Environment(name);
            if !is_exact {
                return Err(self.unknown(&key, &source));
            }
            self.set(&key, self.read(&key, value), source)?;
        }
        Ok(())
    }

    pub(super) fn add_flags(&mut self, flags: &[(&'static str, String)]) -> Result<(), ConfigError> {
        for (key, value) in flags {
            self.set(key, self.read(key, value.clone()), Source::Flag)?;
        }
        Ok(())
    }

    /// The value of a source that has nothing but text, as the file would spell it. What is not spelled so stays a
    /// text, which the bounds of the key refuse.
    fn read(&self, key: &str, text: String) -> Value {
        match self.defaults.get(key).map(|default| &default.kind) {
            Some(ValueKind::Boolean(_)) if text == "true" => true.into(),
            Some(ValueKind::Boolean(_)) if text == "false" => false.into(),
            Some(ValueKind::I64(_)) => match text.parse::<i128>() {
                // Neither a plus nor zeros in front: some read those as octal, and TOML refuses them.
                Ok(number) if number.to_string() == text => number.into(),
                _ => text.into(),
            },
            _ => text.into(),
        }
    }

    fn set(&mut self, key: &str, value: Value, source: Source) -> Result<(), ConfigError> {
        let Some(current) = self.values.get_mut(key) else {
            return Err(self.unknown(key, &source));
        };
        *current = value;
        self.sources.0.insert(key.to_owned(), source);
        Ok(())
    }

    fn unknown(&self, key: &str, source: &Source) -> ConfigError {
        // Whoever mistyped a variable did not write a key.
        let (setting, is_variable) = match source {
            Source::Environment(name) => (name.clone(), true),
            Source::Default | Source::File { .. } | Source::Flag => (source.setting(key).to_string(), false),
        };

        let hint = match self.nearest(key) {
            Some(nearest) if is_variable => format!("; did you mean {}?", environment::variable_of(nearest)),
            Some(nearest) => format!("; did you mean `{nearest}`?"),
            None => ": config/default.toml lists all of them".to_owned(),
        };
        ConfigError::new(format_args!("{setting} is not a setting{hint}"))
    }

    /// The key that the mistyped `key` most likely stands for: one that it is the beginning of, else the most similar
    /// one.
    fn nearest(&self, key: &str) -> Option<&str> {
        let candidates = self.sources.0.keys().map(String::as_str);
        candidates
            .map(|known| (known.starts_with(key), strsim::jaro_winkler(key, known), known))
            .filter(|(_, similarity, _)| *similarity >= MIN_SIMILARITY)
            .max_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)))
            .map(|(_, _, known)| known)
    }

    /// Reads the fields of one section and checks their bounds.
    pub(super) fn section<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let all = Value::new(None, ValueKind::Table(self.values.clone()));
        all.try_deserialize().map_err(|error| match error {
            config::ConfigError::At {
                key: Some(key), error, ..
            } => self.sources.invalid(&key, error),
            other => ConfigError::new(other),
        })
    }

    pub(super) fn into_sources(self) -> Sources {
        self.sources
    }
}

impl Sources {
    /// The error for a value that cannot be used: where it was set, its key, and the problem, which follows the name as
    /// in "is 0, but must be 1 or more".
    pub(super) fn invalid(&self, key: &str, problem: impl fmt::Display) -> ConfigError {
        let source = self.0.get(key).unwrap_or(&Source::Default);
        ConfigError::new(format_args!("{} {problem}", source.setting(key)))
    }
}

impl Source {
    /// `key` by the name that it was set by.
    fn setting(&self, key: &str) -> impl fmt::Display {
        fmt::from_fn(move |formatter| match self {
            Self::Default => write!(formatter, "`{key}`"),
            Self::File { path, line } => write!(formatter, "{}, line {line}: `{key}`", path.display()),
            Self::Environment(name) => write!(formatter, "{name} (`{key}`)"),
            Self::Flag => write!(formatter, "--{} (`{key}`)", key.replace('_', "-")),
        })
    }
}

/// The top-level keys of a TOML document, with their places and values.
fn parse(path: &Path, text: &str) -> Result<BTreeMap<Spanned<String>, Value>, ConfigError> {
    toml::from_str(text).map_err(|error| {
        // The message alone: the whole error also shows the line, and with it what may be a secret.
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        ConfigError::new(format_args!("{}, line {line}: {}", path.display(), error.message()))
    })
}

/// The number of the line that holds the byte at `offset`, from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.matches('\n').count() + 1
}
