//! The state that the model explores: the database, what the processes have in memory, the queue with what is delivered and
//! not acknowledged, and what the outside has seen.

use std::collections::{BTreeMap, BTreeSet};

use shop::{
    domain::{OrderId, transition::OrderState},
    entities::{
        Timestamp,
        order::{FailureReason, OrderStatus},
    },
};
use uuid::Uuid;

use crate::refunds::{Part, Refund, RefundRequest};

/// Arrays have this size; a scenario uses as many orders as it names.
pub const ORDERS: usize = 3;
pub const PRODUCTS: usize = 2;
pub const WORKERS: usize = 2;

/// Of a unit of any product, in minor units.
pub const PRICE: i64 = 100;

/// The clock shows one of two times: holds are open, holds have ended. Acceptances are numbered from there, so that the first
/// accepted is first served.
pub const BEFORE: Timestamp = Timestamp(1_000);
pub const HOLDS_END: Timestamp = Timestamp(2_000);
pub const AFTER: Timestamp = Timestamp(3_000);

/// An order that customers may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Units of each product; 0 for none.
    pub units: [i64; PRODUCTS],
    pub with_hold: bool,
}

/// What is explored, and up to which bound.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a kind of step that is possible or not"
)]
pub struct Scenario {
    pub name: &'static str,
    pub wishes: &'static [Wish],
    /// Units on the shelf at the start.
    pub stock: [i64; PRODUCTS],
    /// Units of each product that an administrator may write off, one at a time.
    pub write_off: [i64; PRODUCTS],
    /// Refunds that administrators may ask for, each under an idempotency key of its own.
    pub refunds: &'static [RefundRequest],
    pub workers: usize,
    /// The most messages that name one order, in the queue and delivered.
    pub messages: u8,
    /// Whether customers and administrators cancel.
    pub cancels: bool,
    /// Whether messages come that nobody has sent for an acceptance.
    pub strays: bool,
    /// Whether it is remembered what each customer was answered.
    pub answers: bool,
    /// Whether the broker may lose a message after a worker has settled its order and died before the event was published.
    pub any_loss: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Product {
    pub stock: i64,
    pub held: i64,
    /// Units written off so far: the product's stock movements.
    pub written_off: i64,
}

/// What is committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    pub now: Timestamp,
    pub orders: [Option<OrderState>; ORDERS],
    pub products: [Product; PRODUCTS],
    /// Orders whose event waits in the outbox.
    pub outbox: [bool; ORDERS],
    /// In the order in which they were made. An index is the id of a refund.
    pub refunds: Vec<Refund>,
    /// Requests for refunds whose idempotency key is known.
    pub keys: BTreeSet<usize>,
}

/// How far a worker is with its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Idle,
    /// Messages are delivered.
    Delivered,
    /// Rows are read and not locked: only a wrong version does that.
    Read,
    /// The settlement is committed.
    Settled,
    /// Its events are published.
    EventsPublished,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    pub phase: Phase,
    /// The orders that its messages name.
    pub batch: [bool; ORDERS],
    /// The orders that its settlement reported as settled, now or before.
    pub settled: [bool; ORDERS],
    /// Whether the broker still waits for its acknowledgement; not after the connection was lost.
    pub is_connected: bool,
    /// Stock as a wrong version has read it without a lock.
    pub stock_read: [i64; PRODUCTS],
}

/// What the outside was told of an order. Ordered only so that it can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    PaymentAccepted,
    Cancelled,
    Expired,
}

/// How an order ended, as its event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Paid,
    Failed(FailureReason),
}

/// A rule about a step, and not about a state, that was broken on the way here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A row changed in a way that the rules do not know.
    NotAStep,
    /// A message was acknowledged, and an event of its order was not published.
    AcknowledgedBeforeTheEvent,
    /// Another outcome was published before.
    EventsDiffer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub database: Database,
    /// In the memory of `serve`: orders that were accepted and whose settle request is not published yet.
    pub to_notify: [bool; ORDERS],
    /// In the memory of `serve`, in wrong versions only: what it has decided and not written.
    pub undecided: Option<(usize, Unwritten)>,
    /// Messages that wait, for each order.
    pub queue: [u8; ORDERS],
    pub workers: [Worker; WORKERS],
    /// The event that was published last for each order.
    pub events: [Option<Outcome>; ORDERS],
    /// What a customer was answered last. Answers that are lost are not among them.
    pub answers: [Option<Answer>; ORDERS],
    /// Refunds whose event was published.
    pub refund_events: BTreeSet<usize>,
    /// The refund that the answer to a request named last.
    pub refund_answers: BTreeMap<usize, usize>,
    pub broken: Option<Broken>,
}

/// What a wrong version still has to do to an order, to a request for a refund or to a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unwritten {
    Acceptance,
    Cancellation,
    /// The row of the outbox.
    OutboxRow,
    /// The event, whose row of the outbox is gone.
    Event,
    /// The refund of this amount, in minor units.
    Refund(i64),
    RefundPart(Part),
}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let product = |stock| Product {
            stock,
            ..Product::default()
        };
        Self {
            database: Database {
                now: BEFORE,
                orders: [None; ORDERS],
                products: scenario.stock.map(product),
                outbox: [false; ORDERS],
                refunds: Vec::new(),
                keys: BTreeSet::new(),
            },
            to_notify: [false; ORDERS],
            undecided: None,
            queue: [0; ORDERS],
            workers: [Worker::default(); WORKERS],
            events: [None; ORDERS],
            answers: [None; ORDERS],
            refund_events: BTreeSet::new(),
            refund_answers: BTreeMap::new(),
            broken: None,
        }
    }

    /// Messages that name the order, in the queue and delivered.
    pub fn messages(&self, order: usize) -> u8 {
        let delivered = self
            .workers
            .iter()
            .filter(|worker| worker.is_connected && worker.batch[order]);
        self.queue[order] + u8::try_from(delivered.count()).unwrap_or(u8::MAX)
    }
}

/// An order's id. Ids sort as the numbers do.
pub fn id(order: usize) -> OrderId {
    Uuid::from_u128(order as u128 + 1)
}

pub fn outcome(order: &OrderState) -> Option<Outcome> {
    match (order.status, order.failure) {
        (OrderStatus::Paid, _) => Some(Outcome::Paid),
        (OrderStatus::Failed, Some(reason)) => Some(Outcome::Failed(reason)),
        (OrderStatus::Failed, None) | (OrderStatus::Pending | OrderStatus::Other(_), _) => None,
    }
}
