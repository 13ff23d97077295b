//! The settings, one struct a section. Beside every field stand its key, its unit and its bounds. The keys are flat, as
//! in `config/default.toml`, so each section picks its own out of all of them.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{
    bounds::{boolean, currency, list, log_filter, prefix, seconds, text, url, whole, word},
    networks::Network,
    origins::origin,
};

/// The database, which alone holds what must not be lost.
#[derive(Clone, Deserialize)]
pub struct Database {
    /// `sqlite:` for one machine, `postgres:` for many. It may hold a password.
    #[serde(rename = "database_url", deserialize_with = "database_url")]
    pub url: String,

    /// Connections to PostgreSQL, or connections that read SQLite. SQLite has one more, which writes.
    #[serde(rename = "database_pool", deserialize_with = "whole::<_, _, 1, 1_000>")]
    pub pool: u32,

    /// Prepared statements that a PostgreSQL connection keeps. Without any, the client would prepare a statement at
    /// every call and leave it to the server for good.
    #[serde(rename = "database_statement_cache", deserialize_with = "whole::<_, _, 1, 10_000>")]
    pub statement_cache: usize,

    /// How long a start waits for a database that is not up yet.
    #[serde(rename = "database_wait_seconds", deserialize_with = "seconds::<_, 0, 600>")]
    pub wait: Duration,
}

fn database_url<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    url(value, &["sqlite", "postgres", "postgresql"])
}

/// The message broker, which carries settle requests to the workers, and events to others.
#[derive(Clone, Deserialize)]
pub struct Queue {
    /// `memory:` for a queue inside `shop serve`, `amqp:` or `amqps:` for RabbitMQ. It may hold a password.
    #[serde(rename = "queue_url", deserialize_with = "queue_url")]
    pub url: String,

    /// The first part of the names of all exchanges and queues: 1 to 100 letters, digits, dots, dashes or underscores.
    #[serde(rename = "queue_prefix", deserialize_with = "prefix")]
    pub prefix: String,
}

fn queue_url<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    url(value, &["memory", "amqp", "amqps"])
}

/// The cache, which makes reads fast. It holds nothing that cannot be read again, but for carts, which may be lost.
#[derive(Clone, Deserialize)]
pub struct Cache {
    /// `memory:` for a cache inside the process, or Redis. It may hold a password.
    #[serde(rename = "cache_url", deserialize_with = "cache_url")]
    pub url: String,

    /// The first part of all keys in Redis: 1 to 100 letters, digits, dots, dashes or underscores.
    #[serde(rename = "cache_prefix", deserialize_with = "prefix")]
    pub prefix: String,

    /// How long a product page may be served from the cache. It bounds how stale a page gets while Redis fails.
    #[serde(rename = "cache_ttl_seconds", deserialize_with = "seconds::<_, 1, 3_600>")]
    pub ttl: Duration,

    /// How long a cart lives after its last change.
    #[serde(rename = "cart_ttl_seconds", deserialize_with = "seconds::<_, 1, 31_536_000>")]
    pub cart_ttl: Duration,
}

fn cache_url<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let schemes = [
        "memory",
        "redis",
        "rediss",
        "redis-cluster",
        "rediss-cluster",
        "redis-sentinel",
        "rediss-sentinel",
    ];
    url(value, &schemes)
}

/// The HTTP servers.
#[derive(Clone, Deserialize)]
pub struct Server {
    /// Address and port of the API. It is resolved when the API starts: see [`super::Config::api_bind`].
    #[serde(deserialize_with = "text")]
    pub bind: String,

    /// Address and port of the management server, `off`, or empty for the role's default port on loopback. It is
    /// resolved when the server starts: see [`super::Config::management_bind`].
    #[serde(deserialize_with = "text")]
    pub management_bind: String,

    /// Web origins (RFC 6454) whose pages may call the API, as browsers write them; separated by commas.
    #[serde(deserialize_with = "origins")]
    pub cors_origins: Vec<String>,

    /// Proxies that are believed when they say whose request they hand on; separated by commas.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<Network>,
}

fn origins<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    list(value, origin)
}

fn networks<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Network>, D::Error> {
    list(value, |text| text.parse().map_err(str::to_owned))
}

/// The log.
#[derive(Clone, Deserialize)]
pub struct Log {
    /// A filter of the crate `tracing_subscriber`, such as `shop=debug,warn`.
    #[serde(rename = "log", deserialize_with = "log_filter")]
    pub filter: String,

    /// `text`, `json`, or empty for text on a terminal and JSON elsewhere.
    #[serde(rename = "log_format", deserialize_with = "word")]
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            _ => Err("must be `text` or `json`"),
        }
    }
}

/// What the shop sells.
#[derive(Clone, Deserialize)]
pub struct Catalog {
    /// The ISO 4217 code of the currency of every price.
    #[serde(deserialize_with = "currency")]
    pub currency: String,

    /// Units: a product's stock is low when orders bring it down to this number.
    #[serde(deserialize_with = "whole::<_, _, 0, { i64::MAX }>")]
    pub low_stock_at: i64,
}

/// Who may call.
#[derive(Clone, Deserialize)]
pub struct Auth {
    /// `none` or `jwt`.
    #[serde(rename = "auth", deserialize_with = "word")]
    pub mode: AuthMode,

    /// Whether the API may listen on an address that others can reach while `auth` is `none`.
    #[serde(deserialize_with = "boolean")]
    pub allow_anonymous: bool,

    /// The secret of HS256, [`Auth::MIN_SECRET`] bytes or more; empty for none.
    #[serde(deserialize_with = "text")]
    pub jwt_secret: String,

    /// A PEM file with the public key of RS256, ES256 or Ed25519; empty for none.
    #[serde(deserialize_with = "text")]
    pub jwt_public_key_file: String,

    /// What the claim `aud` must contain; empty for anything.
    #[serde(deserialize_with = "text")]
    pub jwt_audience: String,

    /// What the claim `iss` must be; empty for anything.
    #[serde(deserialize_with = "text")]
    pub jwt_issuer: String,

    /// Whether products can be read without a token while `auth` is `jwt`.
    #[serde(deserialize_with = "boolean")]
    pub catalogue_public: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Everybody is trusted.
    None,
    /// Bearer tokens (RFC 6750) that are JSON Web Tokens (RFC 7519).
    Jwt,
}

impl TryFrom<String> for AuthMode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "none" => Ok(Self::None),
            "jwt" => Ok(Self::Jwt),
            _ => Err("must be `none` or `jwt`"),
        }
    }
}

impl Auth {
    /// The shortest secret, in bytes: RFC 7518, section 3.2, asks for as many as the hash has.
    pub const MIN_SECRET: usize = 32;

    /// Tokens need exactly one key to be checked with. Returns the key at fault and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let no_secret = self.jwt_secret.is_empty();
        let no_file = self.jwt_public_key_file.is_empty();

        let problem = match self.mode {
            AuthMode::Jwt if no_secret && no_file => "is not set: with SHOP_AUTH=jwt, set SHOP_JWT_SECRET (HS256) or \
                 SHOP_JWT_PUBLIC_KEY_FILE (RS256, ES256, EdDSA)"
                .to_owned(),
            AuthMode::Jwt if !no_secret && !no_file => {
                "and `jwt_public_key_file` are both set: choose one, so that one algorithm is accepted".to_owned()
            }
            AuthMode::Jwt if !no_secret && self.jwt_secret.len() < Self::MIN_SECRET => {
                format!("is shorter than {} bytes", Self::MIN_SECRET)
            }
            AuthMode::Jwt | AuthMode::None => return Ok(()),
        };
        Err(("jwt_secret", problem))
    }
}

/// What one process takes on at most.
#[derive(Clone, Deserialize)]
pub struct Limits {
    /// Connections. Further ones wait until others close.
    #[serde(deserialize_with = "whole::<_, _, 1, 1_000_000>")]
    pub max_connections: usize,

    /// Requests that are served at once. Further ones are answered with 503.
    #[serde(deserialize_with = "whole::<_, _, 1, 100_000>")]
    pub max_in_flight: usize,

    /// Requests that wait for an order to be settled: `Prefer: wait`, and event streams.
    #[serde(deserialize_with = "whole::<_, _, 0, 100_000>")]
    pub max_waiting: usize,

    /// Requests per second for each user, or for each address where users are not known; 0 for no limit.
    #[serde(deserialize_with = "whole::<_, _, 0, 1_000_000>")]
    pub rate_limit_per_second: u32,
}

/// The transactions that requests share.
#[derive(Clone, Deserialize)]
pub struct Batch {
    /// Orders in one transaction.
    #[serde(rename = "batch_max", deserialize_with = "whole::<_, _, 1, 5_000>")]
    pub max: usize,

    /// Lines of orders in one transaction that creates orders. Ten times as many wait, and further ones are answered with 503.
    #[serde(rename = "batch_lines", deserialize_with = "whole::<_, _, 100, 100_000>")]
    pub lines: usize,

    /// Requests that wait for a transaction. Further ones are answered with 503.
    #[serde(rename = "batch_queued", deserialize_with = "whole::<_, _, 1, 100_000>")]
    pub queued: usize,
}

/// The ledger check.
#[derive(Clone, Deserialize)]
pub struct Ledger {
    /// How long a process that settles orders waits between two checks; zero for no checks.
    #[serde(rename = "books_every_seconds", deserialize_with = "seconds::<_, 0, 86_400>")]
    pub check_every: Duration,
}
