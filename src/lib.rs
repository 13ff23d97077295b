//! `shop`: a headless order service that never sells a unit twice and never loses an order it accepted.
//!
//! **Three ideas.**
//!
//! 1. *The row is the truth; the message is a doorbell.* Paying commits the acceptance to the order's own row, then
//!    notify_attempts. The worker reads the row and never trusts the message. A request that is lost is rung again by the
//!    [`sweeper`], so the orders table is its own outbox. Events leave after the commit and before the
//!    acknowledgement, so the unacknowledged request is the outbox of the event.
//! 2. *Everything that writes is a batch; a batch of one is the quiet case.* See [`batch`].
//! 3. *One code path, three URLs.* [`db`], [`queue`] and [`cache`] each choose their back end by a URL and hide it; only
//!    they name a product.
//!
//! **An order's way.** `api::orders::create → Batcher → domain::orders::create` ·
//! `api::orders::pay → Batcher → domain::orders::accept_payments → queue.ring` ·
//! `worker → domain::settlement::settle → cache.invalidate_pages → queue.announce → acknowledge`.
//!
//! **Who may import whom**, left from right: `main → cli → {api | worker | sweeper | auditor | watch | seed} → domain →
//! entities`, and all of them `→ app → {config, db, queue, cache}`. [`domain`] imports none of `app`, `api`, `queue`,
//! `cache`: its functions take a connection and the time. Of [`db`] it uses only the way to put many rows into one statement,
//! and what an error of the database means. Of `domain` everybody knows the ids and the errors.

pub mod api;
pub mod app;
pub mod batch;
pub mod cache;
pub mod cli;
pub mod config;
pub mod db;
pub mod domain;
pub mod entities;
pub mod failpoints;
pub mod http;
pub mod intake;
pub mod queue;
pub mod seed;
pub mod tasks;
pub mod telemetry;
