//! Checks a database's URL before it is used. The driver itself passes over parameters that it does not know, so a misspelled
//! `sslmode` would connect without encryption.

use std::str::FromStr as _;

use sqlx::{postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use super::hosts::urls_of_hosts;

/// Says what is wrong with a database's URL, and never what stands in it, which may be a password.
///
/// # Errors
/// What is wrong.
pub fn check(url: &str) -> Result<(), String> {
    const PARAMETERS: [&str; 25] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
        // Parameters of other clients, which hosted databases put in the URLs that they give out; they change nothing here.
        "channel_binding",
        "connect_timeout",
        "target_session_attrs",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
    ];

    let cause = |error: sqlx::Error| match error {
        sqlx::Error::Configuration(cause) => cause.to_string(),
        error => error.to_string(),
    };
    if let Some(file) = url.strip_prefix("sqlite:") {
        SqliteConnectOptions::from_str(url).map_err(cause)?;
        let file = file.trim_start_matches("//");
        let names_none = file.is_empty() || file.starts_with('?') && !is_in_memory(url);
        return (!names_none).then_some(()).ok_or_else(|| "it names no file".to_owned());
    }

    for host in urls_of_hosts(url) {
        PgConnectOptions::from_str(&host).map_err(cause)?;
    }
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let names = parameters
        .split('&')
        .filter_map(|parameter| Some(parameter.split_once('=')?.0));
    let known = |name: &str| PARAMETERS.contains(&name) || name.starts_with("options[");
    match names.into_iter().find(|name| !known(name)) {
        Some(unknown) => Err(format!(
            "it has a parameter `{unknown}`, which PostgreSQL's URLs do not know"
        )),
        None => Ok(()),
    }
}

/// What people call the database: its name on PostgreSQL, the file on SQLite.
pub fn database_name(url: &str) -> String {
    if let Some(file) = url.strip_prefix("sqlite:") {
        let file = file.trim_start_matches("//");
        return file.split_once('?').map_or(file, |(file, _)| file).to_owned();
    }

    let options = PgConnectOptions::from_str(url).ok();
    let name = options.as_ref().and_then(PgConnectOptions::get_database);
    name.unwrap_or("postgres").to_owned()
}

/// Whether the database ends with its connection.
pub(super) fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_refused_without_showing_its_password() {
        for good in [
            "sqlite://shop.db?mode=rwc",
            "sqlite::memory:",
            "sqlite:shop.db",
            "postgres://u:p%2Fw@h:5432/shop?sslmode=verify-full&sslrootcert=/ca.pem",
            "postgres://u:p@db.example/shop?sslmode=require&channel_binding=require",
            "postgresql:///shop?host=/run/postgresql&options[search_path]=shop",
            "postgres://u:p@one:5432,two:5433/shop?target_session_attrs=read-write",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "postgres://u:hunter2@h:port/shop",
            "postgres://u:hunter2@one:5432,two:port/shop",
            "postgres://u:hun/ter2@h/shop",
            "postgres://u:hunter2@h/shop?sslmode=maybe",
            "postgres://u@h/shop?pasword=hunter2",
            "sqlite://shop.db?mode=rwz",
            "sqlite://?mode=rwc",
            "sqlite:",
        ] {
            let problem = check(bad).expect_err(bad);
            assert!(!problem.contains("hun"), "{problem}");
        }
    }
}
