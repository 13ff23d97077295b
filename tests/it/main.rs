//! The integration tests, one binary so that one set of servers serves them all. A file a subject; the names of the tests
//! are the promises they prove.

mod books;
mod cache;
mod commands;
mod decide;
mod flow;
mod queue;
mod requests;
mod schema;
mod servers;
mod settlement;
mod support;
