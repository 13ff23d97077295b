//! `shop` is a headless order service that never sells a unit twice and never loses an order that it accepted. This page
//! is the way into its code.
//!
//! # Three ideas
//!
//! 1. **The row is the truth.** Paying an order commits the acceptance to the order's own row, and then publishes a
//!    [settle request](queue::SettleRequest), which names the order and nothing more. The [worker](tasks::worker) reads
//!    the row and trusts no message. If a settle request is lost, the [sweeper](tasks::sweeper) finds the row and publishes
//!    another one, so the orders table is the outbox of settle requests. Events are published after the commit and before the message
//!    is acknowledged: if a process dies in between, the message is redelivered, and the same events are published again
//!    under the same ids. Cancelling and expiry have no message; their events are stored with the fact in the
//!    [outbox](domain::outbox), and the [relay](tasks::relay) publishes them.
//! 2. **Orders are written in batches.** A [`Batcher`](batch::Batcher) passes the requests that gathered while the last
//!    batch ran to one function over one transaction. It waits for others for a millisecond at most. A batch of one is the
//!    quiet case.
//! 3. **One code path, three URLs.** [`db`], [`queue`] and [`cache`] choose their back end by a URL and hide it. Hardly any
//!    other code depends on which product it is.
//!
//! # An order's way
//!
//! - *Create:* [`api::orders`] → [`OrderIntake::create`](intake::OrderIntake::create) →
//!   [`domain::orders::create`].
//! - *Pay:* [`api::orders`] → [`OrderIntake::accept_payment`](intake::OrderIntake::accept_payment) →
//!   [`domain::orders::accept_payments`] → [`tasks::notifier`] →
//!   [`Queue::publish_settle_requests`](queue::Queue::publish_settle_requests).
//! - *Cancel, expire:* [`OrderIntake::cancel`](intake::OrderIntake::cancel) → [`domain::orders::cancel`]; [`tasks::expiry`] →
//!   [`domain::orders::expire_due`]; then [`tasks::relay`] → [`Queue::publish_events`](queue::Queue::publish_events).
//! - *Settle:* [`Queue::next`](queue::Queue::next) → [`tasks::worker`] → [`domain::settlement::settle`] →
//!   [`Cache::invalidate_pages_soon`](cache::Cache::invalidate_pages_soon) →
//!   [`Queue::publish_events`](queue::Queue::publish_events) → [`Queue::acknowledge`](queue::Queue::acknowledge).
//!
//! # Imports run one way
//!
//! - [`cli`] → [`api`] → [`intake`] → [`tasks`] → [`app`] → [`queue`] and [`cache`] → [`domain`] → [`db`] → [`entities`]
//! - [`api`] → [`http`] → [`telemetry`] → [`config`]
//! - [`cli`] → [`server`] → [`http`]
//!
//! A module may import what stands to its right. [`http`] and [`domain`] do not import each other: only
//! [`api`] imports both, and `api::errors` turns errors of the domain into answers. [`telemetry`] imports nothing of the
//! shop but [`config`]; [`queue`] and [`cache`] import it as well. Beside this order stand [`batch`], which imports
//! [`domain`] and [`gathering`]; [`seed`], which imports [`app`]; and [`failpoints`] and [`gathering`], which import
//! nothing. [`queue`] imports [`gathering`] too.

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
pub mod gathering;
pub mod http;
pub mod intake;
pub mod queue;
pub mod seed;
pub mod server;
pub mod tasks;
pub mod telemetry;
