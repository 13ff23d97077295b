//! `shop token`: a token for trying the API out.

use std::time::Duration;

use clap::Args;

use super::{parse_duration, print::print_line};
use crate::{api::auth::jwt, config::Config, domain::UserId};

#[derive(Debug, Args)]
pub(super) struct Token {
    /// Whose token it is: its `sub`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    user: UserId,
    /// With the scope shop:admin, which allows catalogue changes and every order.
    #[arg(long)]
    admin: bool,
    /// How long it holds: 90s, 5m, 1h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    ttl: Duration,
}

impl Token {
    pub(super) fn print(&self, config: &Config) -> anyhow::Result<()> {
        print_line(jwt::mint(config, self.user, self.admin, self.ttl)?)
    }
}
