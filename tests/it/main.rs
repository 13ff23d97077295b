//! The integration tests, one binary so that one set of servers serves them all. A file a subject; the names of the tests
//! are the promises they prove.

mod architecture;
mod auth;
mod cache;
mod cancel;
mod catalogue;
mod charts;
mod commands;
mod concurrency;
mod dead_letters;
mod decide;
mod disk;
mod docs;
#[cfg(feature = "failpoints")]
mod failpoints;
mod flow;
mod history;
mod holds;
mod hostile;
mod ledger;
mod lost_consumers;
mod network;
mod operate;
mod outages;
mod outbox;
mod plans;
mod proxy;
mod queue;
#[cfg(feature = "failpoints")]
mod races;
mod requests;
mod schema;
mod servers;
mod settlement;
mod soak;
mod stopping;
mod support;
mod telemetry;
mod topology;
mod waiting;
