//! Configuration in layers: built-in defaults, then the file, then the environment, then flags. All layers are read
//! by one deserializer, so a key means the same wherever it stands, and an unknown one is refused wherever it stands.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use config::{Config as Layers, Environment, File, FileFormat};
use serde::Deserialize;

mod environment;

/// `config/default.toml`, which documents every key.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// A configuration that cannot be used: which key, what is wrong with it, what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration: {0}")]
    Unreadable(String),
    #[error("configuration: `{key}` {problem}")]
    Value { key: &'static str, problem: String },
}

/// What the command line said; keys left out come from the layers below.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub file: Option<PathBuf>,
    /// Key and value, as in the file.
    pub flags: Vec<(&'static str, String)>,
}

/// The configuration of any role, checked.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub database_url: String,
    pub database_pool: u32,
    pub database_statement_cache: usize,
    pub database_wait_seconds: u64,
    pub queue_url: String,
    pub queue_prefix: String,
    pub cache_url: String,
    pub cache_prefix: String,
    pub cache_ttl_seconds: u64,
    pub bind: String,
    pub management_bind: String,
    pub log: String,
    pub log_format: LogFormat,
    pub currency: String,
    pub auth: Auth,
    pub allow_anonymous: bool,
    pub jwt_secret: String,
    pub jwt_public_key_file: String,
    pub jwt_audience: String,
    pub jwt_issuer: String,
    pub catalogue_public: bool,
    pub rate_limit_per_second: u32,
    pub cors_origins: String,
    pub batch_max: usize,
    pub batch_queued: usize,
    pub max_in_flight: usize,
    pub max_waiting: usize,
    pub max_connections: usize,
    pub low_stock_at: i64,
    pub books_every_seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogFormat {
    Text,
    Json,
    /// Text on a terminal, else JSON.
    Auto,
}

impl TryFrom<String> for LogFormat {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "" => Ok(Self::Auto),
            _ => Err("`text` or `json` is expected"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Auth {
    None,
    /// Bearer tokens.
    Jwt,
}

impl TryFrom<String> for Auth {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "none" => Ok(Self::None),
            "jwt" => Ok(Self::Jwt),
            _ => Err("`none` or `jwt` is expected"),
        }
    }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    Off,
    At(SocketAddr),
}

impl Config {
    /// Reads all layers and checks every value.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key. It never repeats a URL, since that may hold a password.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::from_layers(
            overrides,
            Environment::with_prefix("SHOP").source(Some(environment::read()?)),
        )
    }

    fn from_layers(overrides: &Overrides, environment: Environment) -> Result<Self, ConfigError> {
        let unreadable = |error: config::ConfigError| ConfigError::Unreadable(explain(&error));
        let mut layers = Layers::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(file) = &overrides.file {
            let text = fs::read_to_string(file).map_err(|error| {
                let problem = format!("the file {} named by --config cannot be read: {error}", file.display());
                ConfigError::Unreadable(problem)
            })?;
            layers = layers.add_source(File::from_str(&text, FileFormat::Toml));
        }
        layers = layers.add_source(environment.prefix_separator("_"));
        for (key, value) in &overrides.flags {
            layers = layers.set_override(*key, value.as_str()).map_err(unreadable)?;
        }
        let config: Self = layers.build().and_then(Layers::try_deserialize).map_err(unreadable)?;
        config.check()?;
        Ok(config)
    }

    /// The API's address.
    ///
    /// # Errors
    /// When it cannot be resolved, or is open to others while nobody has to say who they are.
    pub fn api_bind(&self) -> Result<SocketAddr, ConfigError> {
        let address = resolve("bind", &self.bind)?;
        if self.auth == Auth::None && !self.allow_anonymous && !address.ip().is_loopback() {
            return Err(invalid(
                "bind",
                format!(
                    "is {address}, which others can reach, while SHOP_AUTH=none trusts everybody: bind to 127.0.0.1, or \
                     set SHOP_ALLOW_ANONYMOUS=true if that is meant"
                ),
            ));
        }
        Ok(address)
    }

    /// The management address, `default_port` on loopback unless configured.
    ///
    /// # Errors
    /// When it cannot be resolved.
    pub fn management_bind(&self, default_port: u16) -> Result<Bind, ConfigError> {
        match self.management_bind.as_str() {
            "" => Ok(Bind::At(SocketAddr::from(([127, 0, 0, 1], default_port)))),
            "off" => Ok(Bind::Off),
            address => resolve("management_bind", address).map(Bind::At),
        }
    }

    #[must_use]
    pub fn cache_ttl(&self) -> Duration {
        Duration::from_secs(self.cache_ttl_seconds)
    }

    /// The origins that browsers may call from (RFC 6454); none unless configured.
    ///
    /// # Errors
    /// When one of them is not an origin.
    pub fn cors_origins(&self) -> Result<Vec<&str>, ConfigError> {
        let origins: Vec<&str> = self
            .cors_origins
            .split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty())
            .collect();
        let is_origin = |origin: &str| {
            let host = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '*']))
        };
        if let Some(wrong) = origins.iter().find(|origin| !is_origin(origin)) {
            let problem = format!("holds {wrong:?}, which is not an origin such as https://shop.example");
            return Err(invalid("cors_origins", problem));
        }
        Ok(origins)
    }

    fn check_auth(&self) -> Result<(), ConfigError> {
        const MIN: usize = 32;
        if self.auth == Auth::None {
            return Ok(());
        }
        match (self.jwt_secret.is_empty(), self.jwt_public_key_file.is_empty()) {
            (true, true) => Err(invalid(
                "jwt_secret",
                "is not set: with SHOP_AUTH=jwt, set SHOP_JWT_SECRET (HS256) or SHOP_JWT_PUBLIC_KEY_FILE (RS256, ES256, EdDSA)"
                    .to_owned(),
            )),
            (false, false) => Err(invalid(
                "jwt_secret",
                "and `jwt_public_key_file` are both set: choose one, so that one algorithm is accepted".to_owned(),
            )),
            (false, true) if self.jwt_secret.len() < MIN => {
                Err(invalid("jwt_secret", format!("is shorter than {MIN} bytes")))
            }
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        scheme(
            "database_url",
            &self.database_url,
            &["sqlite", "postgres", "postgresql"],
        )?;
        scheme("queue_url", &self.queue_url, &["memory", "amqp", "amqps"])?;
        let redis = [
            "memory",
            "redis",
            "rediss",
            "redis-cluster",
            "rediss-cluster",
            "redis-sentinel",
            "rediss-sentinel",
        ];
        scheme("cache_url", &self.cache_url, &redis)?;
        range("database_pool", u64::from(self.database_pool), 1, 1_000)?;
        range(
            "database_statement_cache",
            self.database_statement_cache as u64,
            // Without a cache the client would leave every statement it prepares to the server for good.
            1,
            10_000,
        )?;
        range("database_wait_seconds", self.database_wait_seconds, 0, 600)?;
        range("cache_ttl_seconds", self.cache_ttl_seconds, 1, 3_600)?;
        range("batch_max", self.batch_max as u64, 1, 5_000)?;
        range("batch_queued", self.batch_queued as u64, 1, 100_000)?;
        range("max_in_flight", self.max_in_flight as u64, 1, 100_000)?;
        range("max_waiting", self.max_waiting as u64, 0, 100_000)?;
        range("max_connections", self.max_connections as u64, 1, 1_000_000)?;
        range(
            "rate_limit_per_second",
            u64::from(self.rate_limit_per_second),
            0,
            1_000_000,
        )?;
        self.check_auth()?;
        self.cors_origins()?;
        range("books_every_seconds", self.books_every_seconds, 0, 86_400)?;
        name("queue_prefix", &self.queue_prefix)?;
        name("cache_prefix", &self.cache_prefix)?;
        if self.low_stock_at < 0 {
            return Err(invalid("low_stock_at", "must not be negative".to_owned()));
        }
        if self.currency.len() != 3 || !self.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid(
                "currency",
                "must be three capital letters, as in ISO 4217 (USD)".to_owned(),
            ));
        }
        tracing_subscriber::EnvFilter::try_new(&self.log).map_err(|error| {
            invalid(
                "log",
                format!("is not a filter such as `info` or `shop=debug`: {error}"),
            )
        })?;
        Ok(())
    }
}

/// Leaves the URLs out, since they may hold passwords.
impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("bind", &self.bind)
            .finish_non_exhaustive()
    }
}

/// An address where something of ours listens, as one to connect to.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = |ip: IpAddr| match ip {
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    if address.ip().is_unspecified() {
        SocketAddr::new(loopback(address.ip()), address.port())
    } else {
        address
    }
}

fn invalid(key: &'static str, problem: String) -> ConfigError {
    ConfigError::Value { key, problem }
}

fn resolve(key: &'static str, address: &str) -> Result<SocketAddr, ConfigError> {
    address
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| {
            invalid(
                key,
                format!("is {address:?}, which is not an address and port such as 127.0.0.1:8080"),
            )
        })
}

fn scheme(key: &'static str, url: &str, known: &[&str]) -> Result<(), ConfigError> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| known.contains(&scheme)) {
        return Ok(());
    }
    Err(invalid(key, format!("must start with one of {}:", known.join(": "))))
}

fn range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(invalid(key, format!("is {value}, but must be from {min} to {max}")))
}

fn name(key: &'static str, value: &str) -> Result<(), ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !value.is_empty() && value.len() <= 100 && value.bytes().all(allowed) {
        return Ok(());
    }
    Err(invalid(
        key,
        "must be 1 to 100 letters, digits, dots, dashes or underscores".to_owned(),
    ))
}

/// The layer's own words, without values that may be secret.
fn explain(error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::Type {
            key: Some(key),
            expected,
            ..
        } => {
            format!("`{key}` has the wrong kind of value: {expected} is expected")
        }
        // The parser shows the line at fault, and between its first line and its last, what stands there.
        config::ConfigError::FileParse { cause, .. } => {
            let cause = cause.to_string();
            let (place, fault) = (cause.lines().next(), cause.lines().last());
            format!("the file: {}: {}", place.unwrap_or_default(), fault.unwrap_or_default())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
