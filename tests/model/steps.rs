//! Every step that the model may take, right or unlucky, and in which world each is possible.

use shop::domain::transition::OrderState;

use crate::{
    mutants::Mutant,
    world::{AFTER, BEFORE, ORDERS, Phase, Scenario, World, outcome},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A customer's requests; an answer that is lost may be followed by the same request again.
    Create(usize),
    Pay(usize),
    PayAnswerLost(usize),
    /// A payment that looked at the clock before the hold ended and is written afterwards.
    PaySlowly(usize),
    Cancel(usize),
    CancelAnswerLost(usize),
    /// A process dies or loses the connection in between, and what it had in mind is written.
    WriteLater,
    WriteOff(usize),
    /// The clock passes the end of all holds.
    HoldsEnd,
    /// `serve` publishes the settle request of an acceptance. Not confirmed: it will publish it again.
    Publish(usize),
    PublishUnconfirmed(usize),
    /// `serve` dies, at any of its failpoints.
    ApiCrashes,
    /// A message that no acceptance has caused.
    Stray(usize),
    /// The broker loses a message.
    MessageLost(usize),
    /// Any of the waiting messages, in any order, as one batch.
    Deliver(usize, [bool; ORDERS]),
    ReadWithoutLock(usize),
    Settle(usize),
    /// The settlement is committed, and the worker does not learn it. It will settle again.
    SettleAnswerLost(usize),
    PublishEvents(usize),
    Acknowledge(usize),
    /// The messages go back to the queue, while the worker goes on.
    ConnectionLost(usize),
    /// `work` dies, at any of its failpoints, and starts again.
    WorkerCrashes(usize),
    /// The sweeper publishes a settle request again. Whenever it does, and however often: time is not modelled.
    Sweep(usize),
    /// The hold of an order is found to be past.
    Expire(usize),
    /// The relay publishes an event of the outbox and deletes its row. Or it dies in between.
    Relay(usize),
    RelayDies(usize),
    /// An administrator's request for a refund. Sent again, it has the same idempotency key.
    Refund(usize),
    RefundAnswerLost(usize),
    RelayRefund(usize),
    RelayRefundDies(usize),
}

/// The shop, right or with one mistake.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub scenario: &'a Scenario,
    pub mutant: Option<Mutant>,
}

impl Rules<'_> {
    pub fn is(self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The steps that may be taken. Some of them change nothing.
    pub fn steps(self, world: &World, steps: &mut Vec<Step>) {
        for order in 0..self.scenario.wishes.len() {
            self.steps_of_customers(world, order, steps);
            self.steps_of_order(world, order, steps);
        }
        for worker in 0..self.scenario.workers {
            self.steps_of_worker(world, worker, steps);
        }

        self.steps_of_refunds(world, steps);

        let products = self.scenario.write_off.into_iter().enumerate();
        let may_write_off = products.filter(|(product, most)| world.database.products[*product].written_off < *most);
        steps.extend(may_write_off.map(|(product, _)| Step::WriteOff(product)));
        if world.database.now == BEFORE && self.scenario.wishes.iter().any(|wish| wish.with_hold) {
            steps.push(Step::HoldsEnd);
        }
        if world.undecided.is_some() || world.to_notify.contains(&true) {
            steps.push(Step::ApiCrashes);
        }
        if world.undecided.is_some() {
            steps.push(Step::WriteLater);
        }
    }

    fn steps_of_refunds(self, world: &World, steps: &mut Vec<Step>) {
        for (number, request) in self.scenario.refunds.iter().enumerate() {
            if world.database.orders[request.order].is_some() {
                steps.extend([Step::Refund(number), Step::RefundAnswerLost(number)]);
            }
        }

        let refunds = world.database.refunds.iter().enumerate();
        for (refund, _) in refunds.filter(|(_, refund)| refund.is_in_outbox) {
            steps.extend([Step::RelayRefund(refund), Step::RelayRefundDies(refund)]);
        }
    }

    fn steps_of_customers(self, world: &World, order: usize, steps: &mut Vec<Step>) {
        if world.database.orders[order].is_none() {
            steps.push(Step::Create(order));
            return;
        }

        steps.push(Step::PayAnswerLost(order));
        if world.database.now == AFTER {
            steps.push(Step::PaySlowly(order));
        }
        if self.scenario.cancels {
            steps.push(Step::CancelAnswerLost(order));
        }
        if self.scenario.answers {
            steps.push(Step::Pay(order));
        }
        if self.scenario.answers && self.scenario.cancels {
            steps.push(Step::Cancel(order));
        }
        let is_accepted = world.database.orders[order].is_some_and(|row| row.accepted_at.is_some());
        if self.scenario.strays && !is_accepted && world.messages(order) < self.scenario.messages {
            steps.push(Step::Stray(order));
        }
    }

    fn steps_of_order(self, world: &World, order: usize, steps: &mut Vec<Step>) {
        let Some(row) = world.database.orders[order] else {
            return;
        };
        let has_room = world.messages(order) < self.scenario.messages;

        if world.to_notify[order] && has_room {
            steps.extend([Step::Publish(order), Step::PublishUnconfirmed(order)]);
        }
        // What a worker settles now, or has settled before it died, has no other retry for its event than the message.
        let is_in_work = outcome(&row).is_some() || world.workers.iter().any(|worker| worker.batch[order]);
        let event_needs_it = world.events[order].is_none() && !world.database.outbox[order] && is_in_work;
        if world.queue[order] > 0 && (self.scenario.any_loss || !event_needs_it) {
            steps.push(Step::MessageLost(order));
        }
        if is_due(&row) && has_room && !self.is(Mutant::NoSweeper) {
            steps.push(Step::Sweep(order));
        }
        if world.database.now == AFTER && row.expires_at.is_some() {
            steps.push(Step::Expire(order));
        }
        if world.database.outbox[order] {
            steps.extend([Step::Relay(order), Step::RelayDies(order)]);
        }
    }

    fn steps_of_worker(self, world: &World, number: usize, steps: &mut Vec<Step>) {
        let worker = &world.workers[number];
        let reads_first = self.is(Mutant::AbsoluteStock) || self.is(Mutant::StockReadWithoutLock);

        match worker.phase {
            Phase::Idle => {
                // Workers are alike, so the first that is idle stands for all.
                if world.workers[..number].iter().all(|other| other.phase != Phase::Idle) {
                    steps.extend(batches(world).map(|batch| Step::Deliver(number, batch)));
                }
                return;
            }
            Phase::Delivered if reads_first => steps.push(Step::ReadWithoutLock(number)),
            Phase::Delivered => {
                steps.extend([Step::Settle(number), Step::SettleAnswerLost(number)]);
                if self.is(Mutant::EventsBeforeCommit) {
                    steps.push(Step::PublishEvents(number));
                }
            }
            Phase::Read => steps.push(Step::Settle(number)),
            Phase::Settled => {
                steps.push(Step::PublishEvents(number));
                if self.is(Mutant::AcknowledgeBeforeEvents) {
                    steps.push(Step::Acknowledge(number));
                }
            }
            Phase::EventsPublished => steps.push(Step::Acknowledge(number)),
        }
        steps.push(Step::WorkerCrashes(number));
        if worker.is_connected {
            steps.push(Step::ConnectionLost(number));
        }
    }
}

/// Accepted, and not settled.
pub fn is_due(row: &OrderState) -> bool {
    outcome(row).is_none() && row.accepted_at.is_some()
}

/// Neither accepted nor settled.
pub fn is_open(row: &OrderState) -> bool {
    outcome(row).is_none() && row.accepted_at.is_none()
}

/// Every choice of at least one of the orders that have a message waiting.
fn batches(world: &World) -> impl Iterator<Item = [bool; ORDERS]> {
    let waiting = world.queue.map(|messages| messages > 0);
    let choices = (1..1_u8 << ORDERS).map(|bits| std::array::from_fn(|order| bits >> order & 1 == 1));
    choices.filter(move |batch: &[bool; ORDERS]| batch.iter().zip(waiting).all(|(chosen, waits)| waits || !chosen))
}
