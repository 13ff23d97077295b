//! `shop token`: mints a token for trying out the API.

use std::time::Duration;

use clap::Args;

use super::{duration::parse_duration, output::print_line};
use crate::{api::auth::jwt, config::Config, domain::UserId};

#[derive(Debug, Args)]
pub(super) struct Token {
    /// The user that the token stands for: its claim `sub`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    user: UserId,
    /// Add the scope shop:admin, which allows catalogue changes and access to every order.
    #[arg(long)]
    admin: bool,
    /// How long the token is valid: 90s, 5m, 1h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
}

impl Token {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<()> {
        print_line(jwt::mint(config, self.user, self.admin, self.ttl)?)
    }
}
