//! Several hosts of one PostgreSQL in the URL, of which one is the primary: `postgres://user@one:5432,two:5432/shop`. The driver
//! knows one host, so the primary is looked for here, and again whenever a connection has failed.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{connect::takes_writes, eviction::Eviction};

/// How long a host may take to answer.
const HOST_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two looks at the hosts while none takes writes.
const PAUSE: Duration = Duration::from_millis(250);

/// The URL once for each of its hosts; the URL itself where it has one host or none.
pub(super) fn urls_of_hosts(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return vec![url.to_owned()];
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };

    let url_of = |host: &str| format!("{scheme}://{user}{host}{rest}");
    hosts.split(',').map(url_of).collect()
}

/// Connects to the host that takes writes. Where none does, to one that answers: what it refuses is then known by its error.
/// Returns the number of the host as well.
pub(super) async fn connect_to_primary(hosts: &[PgConnectOptions]) -> Result<(usize, PgConnection), sqlx::Error> {
    let mut connections = Vec::new();
    let mut failure = sqlx::Error::PoolTimedOut;

    for (index, connected) in join_all(hosts.iter().map(connect)).await.into_iter().enumerate() {
        match connected {
            Ok((connection, true)) => return Ok((index, connection)),
            Ok((connection, false)) => connections.push((index, connection)),
            Err(error) => failure = error,
        }
    }
    connections.into_iter().next().ok_or(failure)
}

/// A connection to one host, and whether it takes writes.
async fn connect(host: &PgConnectOptions) -> Result<(PgConnection, bool), sqlx::Error> {
    let connect = async {
        let mut connection = host.connect().await?;
        let takes_writes = takes_writes(&mut connection).await?;
        Ok((connection, takes_writes))
    };
    timeout(HOST_TIMEOUT, connect)
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Whenever a connection of the pool has failed, looks for the primary, and lets the pool open its connections there.
pub(super) async fn follow_primary(
    pool: PgPool,
    hosts: Vec<PgConnectOptions>,
    mut current: usize,
    eviction: Arc<Eviction>,
    stop: CancellationToken,
) {
    loop {
        select! {
            () = stop.cancelled() => return,
            () = eviction.recheck_primary.notified() => {}
        }
        let primary = select! {
            () = stop.cancelled() => return,
            primary = find_primary(&hosts, current) => primary,
        };

        if primary != current {
            tracing::warn!(
                host = hosts[primary].get_host(),
                "another host is the primary now; reconnecting"
            );
            pool.set_connect_options(hosts[primary].clone());
            eviction.evict();
            current = primary;
        }
    }
}

/// The number of the host that takes writes, as soon as there is one: `current` if that still does.
async fn find_primary(hosts: &[PgConnectOptions], current: usize) -> usize {
    loop {
        let mut primaries = Vec::new();
        for (index, connected) in join_all(hosts.iter().map(connect)).await.into_iter().enumerate() {
            let Ok((connection, takes_writes)) = connected else {
                continue;
            };
            let _ = timeout(HOST_TIMEOUT, connection.close()).await;
            primaries.extend(takes_writes.then_some(index));
        }

        if primaries.contains(&current) {
            return current;
        }
        if let Some(primary) = primaries.first() {
            return *primary;
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_one_for_each_host() {
        for (url, hosts) in [
            ("postgres://u@h/shop", &["postgres://u@h/shop"][..]),
            (
                "postgres://u:p,w@one:5432,[::1]:5433/shop?sslmode=require",
                &[
                    "postgres://u:p,w@one:5432/shop?sslmode=require",
                    "postgres://u:p,w@[::1]:5433/shop?sslmode=require",
                ],
            ),
            ("postgres:///shop?host=/run/a,b", &["postgres:///shop?host=/run/a,b"]),
            (
                "postgres://one,two?dbname=shop",
                &["postgres://one?dbname=shop", "postgres://two?dbname=shop"],
            ),
        ] {
            assert_eq!(urls_of_hosts(url), hosts, "{url}");
        }
    }
}
