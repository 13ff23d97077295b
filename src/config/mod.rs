//! The configuration of every role, in sections. Values come from the built-in defaults, then a file, then the
//! environment, then flags. A key means the same in each of them, and an unknown key is refused in each of them.

use std::{
    fmt::{self, Display},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

mod bounds;
mod environment;
mod error;
mod layers;
mod networks;
mod origins;
mod sections;

pub use error::ConfigError;
use layers::{Layers, Sources};
pub use networks::Network;
pub use sections::{Auth, AuthMode, Batch, Cache, Catalog, Database, Ledger, Limits, Log, LogFormat, Queue, Server};

/// Documents every key.
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// What the command line sets; keys that it leaves out come from the layers below.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub file: Option<PathBuf>,
    /// Key and value, as in the file. The key `log_format` is the flag `--log-format`.
    pub flags: Vec<(&'static str, String)>,
}

/// The configuration of any role, within its bounds.
#[derive(Clone)]
pub struct Config {
    pub database: Database,
    pub queue: Queue,
    pub cache: Cache,
    pub server: Server,
    pub log: Log,
    pub catalog: Catalog,
    pub auth: Auth,
    pub limits: Limits,
    pub batch: Batch,
    pub ledger: Ledger,
    sources: Sources,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    Off,
    At(SocketAddr),
}

impl Config {
    /// Reads all layers and checks every value.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::from_layers(DEFAULTS, overrides, environment::read()?)
    }

    fn from_layers(
        defaults: &str,
        overrides: &Overrides,
        variables: Vec<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::new(defaults)?;
        if let Some(file) = &overrides.file {
            layers.add_file(file)?;
        }
        layers.add_environment(variables)?;
        layers.add_flags(&overrides.flags)?;

        let config = Self {
            database: layers.section()?,
            queue: layers.section()?,
            cache: layers.section()?,
            server: layers.section()?,
            log: layers.section()?,
            catalog: layers.section()?,
            auth: layers.section()?,
            limits: layers.section()?,
            batch: layers.section()?,
            ledger: layers.section()?,
            sources: layers.into_sources(),
        };
        config
            .auth
            .check()
            .map_err(|(key, problem)| config.invalid(key, problem))?;
        Ok(config)
    }

    /// The error for the value of `key`. `problem` follows the name of the setting, as in "is not set".
    pub fn invalid(&self, key: &str, problem: impl Display) -> ConfigError {
        self.sources.invalid(key, problem)
    }

    /// The error for a value that is within its bounds, and that its user cannot work with all the same.
    pub fn unusable(&self, key: &str, cause: impl Display) -> ConfigError {
        self.invalid(key, format_args!("is not usable: {cause}"))
    }

    /// The API's address.
    ///
    /// # Errors
    /// When it cannot be resolved, or when others can reach it while everybody is trusted.
    pub fn api_bind(&self) -> Result<SocketAddr, ConfigError> {
        let address = self.resolve("bind", &self.server.bind)?;

        let loopback_only = self.auth.mode == AuthMode::None && !self.auth.allow_anonymous;
        if loopback_only && !address.ip().is_loopback() {
            let problem = format!(
                "is {address}, which others can reach, while SHOP_AUTH=none trusts everybody: bind to 127.0.0.1, or \
                 set SHOP_ALLOW_ANONYMOUS=true if that is meant"
            );
            return Err(self.invalid("bind", problem));
        }
        Ok(address)
    }

    /// The management server's address, which is `default_port` on loopback unless configured.
    pub fn management_bind(&self, default_port: u16) -> Result<Bind, ConfigError> {
        match self.server.management_bind.as_str() {
            "" => Ok(Bind::At(SocketAddr::from(([127, 0, 0, 1], default_port)))),
            "off" => Ok(Bind::Off),
            address => self.resolve("management_bind", address).map(Bind::At),
        }
    }

    fn resolve(&self, key: &str, address: &str) -> Result<SocketAddr, ConfigError> {
        let resolved = address
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next());
        resolved.ok_or_else(|| {
            let problem = format!("is {address:?}, which is not an address and port such as 127.0.0.1:8080");
            self.invalid(key, problem)
        })
    }
}

/// Leaves out everything that may be secret.
impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("bind", &self.server.bind)
            .finish_non_exhaustive()
    }
}

/// The address to connect to for a server that listens on `address`: loopback where it listens on all interfaces.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let loopback = match address.ip() {
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    SocketAddr::new(loopback, address.port())
}

#[cfg(test)]
mod tests;
