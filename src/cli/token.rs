//! `shop token`: mints a token for trying out the API.

use std::time::Duration;

use clap::Args;

use super::{duration::parse_duration, output::print_line};
use crate::{api::auth::jwt, config::Config, domain::UserId};

/// A token cannot be taken back, so that none is valid for good.
const MAX_TTL: Duration = Duration::from_hours(365 * 24);

#[derive(Debug, Args)]
pub(super) struct Token {
    /// The user that the token stands for: its claim `sub`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    user: UserId,
    /// Add the scope shop:admin, which allows catalogue changes and access to every order.
    #[arg(long)]
    admin: bool,
    /// How long the token is valid: 90s, 5m, 1h, 30d. 1s to 365d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_ttl)]
    ttl: Duration,
}

impl Token {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<()> {
        print_line(jwt::mint(config, self.user, self.admin, self.ttl)?)
    }
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err("it must be 1s to 365d".to_owned());
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_for_a_second_to_a_year() {
        assert_eq!(parse_ttl("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_ttl("365d"), Ok(MAX_TTL));
        for bad in ["0s", "0d", "366d", "8761h", "31536001s", "18446744073709551615d"] {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
    }
}
