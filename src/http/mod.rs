//! HTTP without a shop: the server, the layers around every request, and the forms of requests and answers that RFCs
//! define. Nothing here knows an order or a product; [`crate::api`] builds on it.

pub mod cors;
pub mod json;
pub mod negotiation;
pub mod problem;
pub mod query;
pub mod server;
mod timeout_stream;
pub mod trace;
