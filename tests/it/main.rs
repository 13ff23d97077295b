//! The integration tests, one binary so that one set of servers serves them all. A file a subject; the names of the tests
//! are the promises they prove.

mod architecture;
mod assortment;
mod auth;
mod cache;
mod cancel;
mod catalogue;
mod charts;
mod clocks;
mod commands;
mod concurrency;
mod conditional;
mod connections;
mod dead_letters;
mod decide;
mod disk;
mod docs;
#[cfg(feature = "failpoints")]
mod failpoints;
mod flow;
mod front_page;
mod history;
mod holds;
mod hostile;
mod large_baskets;
mod ledger;
mod ledger_since;
mod lost_consumers;
mod network;
mod odd_rows;
mod openapi;
mod operate;
mod outages;
mod outbox;
mod plans;
mod proxy;
mod query;
mod queue;
#[cfg(feature = "failpoints")]
mod races;
mod refunds;
mod requests;
mod schema;
mod schema_changes;
mod search;
mod servers;
mod settlement;
mod shared_redis;
mod soak;
mod stock_changes;
mod stopping;
mod support;
mod telemetry;
mod topology;
mod waiting;
mod wire;
