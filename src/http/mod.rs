//! HTTP without a shop: the layers around every request, the table of routes, and the forms of requests and
//! answers that RFCs define. Nothing here knows an order or a product; `api` builds on it and hands in what
//! differs from route to route.

mod body;
pub mod conditional;
pub mod cors;
pub mod etag;
pub mod event_stream;
pub mod head;
pub mod header;
pub mod idempotency;
pub mod json;
pub mod jws;
pub mod layers;
pub mod negotiation;
pub mod prefer;
pub mod problem;
pub mod query;
pub mod routes;
pub mod schema;
pub mod stored;
pub mod strict_json;
pub mod trace;
pub mod validation;
