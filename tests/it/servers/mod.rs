//! Throwaway `PostgreSQL`, Redis and `RabbitMQ` servers, started from the binaries on the machine.
//!
//! A promise about a crash can only be proved on a server that may be killed, so each run starts its own, on free ports
//! and in one temporary folder. However the test process ends, SIGKILL included, a reaper ends the servers and removes
//! the folder.
#![allow(
    dead_code,
    unused_imports,
    reason = "tests and benches share these servers, and neither uses all of it"
)]

mod pgbouncer;
mod postgres;
mod process;
mod prometheus;
mod rabbitmq;
mod redis;
pub mod run;

use std::{sync::OnceLock, thread};

pub use pgbouncer::PgBouncer;
pub use postgres::{Postgres, search_path};
pub use prometheus::Prometheus;
pub use rabbitmq::RabbitMq;
pub use redis::Redis;

pub struct Servers {
    pub postgres: Postgres,
    pub redis: Redis,
    pub rabbitmq: RabbitMq,
}

/// One set for the whole test process, started on first use. A test that stops or pauses a server starts its own.
pub fn shared() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        thread::scope(|scope| {
            let postgres = scope.spawn(Postgres::start);
            let redis = scope.spawn(Redis::start);
            Servers {
                rabbitmq: RabbitMq::start(),
                postgres: postgres.join().expect("PostgreSQL starts"),
                redis: redis.join().expect("Redis starts"),
            }
        })
    })
}
