//! What each step makes of the world.

use shop::{
    domain::transition::OrderState,
    entities::{Timestamp, order::FailureReason},
};

use crate::{
    mutants::Mutant,
    step::is_step,
    steps::{Rules, Step, is_open},
    transactions::Transaction,
    world::{AFTER, Answer, BEFORE, Broken, ORDERS, Phase, Unwritten, Worker, World, outcome},
};

impl Rules<'_> {
    pub fn transaction<'a>(&'a self, world: &'a mut World) -> Transaction<'a> {
        Transaction {
            database: &mut world.database,
            wishes: self.scenario.wishes,
            requests: self.scenario.refunds,
            mutant: self.mutant,
        }
    }

    /// The world after a step, with every row that changed held to the transition relation.
    #[must_use]
    pub fn after(self, before: &World, step: Step) -> World {
        let mut world = before.clone();

        match step {
            Step::Create(_)
            | Step::Pay(_)
            | Step::PayAnswerLost(_)
            | Step::PaySlowly(_)
            | Step::Cancel(_)
            | Step::CancelAnswerLost(_)
            | Step::WriteLater
            | Step::WriteOff(_)
            | Step::Refund(_)
            | Step::RefundAnswerLost(_)
            | Step::HoldsEnd => self.request(&mut world, step),
            Step::Publish(_)
            | Step::PublishUnconfirmed(_)
            | Step::ApiCrashes
            | Step::Stray(_)
            | Step::MessageLost(_)
            | Step::Sweep(_)
            | Step::Expire(_)
            | Step::Relay(_)
            | Step::RelayDies(_)
            | Step::RelayRefund(_)
            | Step::RelayRefundDies(_) => self.background(&mut world, step),
            Step::Deliver(..)
            | Step::ReadWithoutLock(_)
            | Step::Settle(_)
            | Step::SettleAnswerLost(_)
            | Step::PublishEvents(_)
            | Step::Acknowledge(_)
            | Step::ConnectionLost(_)
            | Step::WorkerCrashes(_) => self.work(&mut world, step),
        }

        let rows = before.database.orders.iter().zip(world.database.orders);
        for (before, after) in rows.filter(|(before, after)| **before != *after) {
            let (before, after) = (before.as_ref(), after.as_ref());
            if !is_step(before, after, written_at(&world, before, after)) {
                world.broken = Some(Broken::NotAStep);
            }
        }
        // Workers are alike.
        world.workers[..self.scenario.workers].sort_unstable();
        world
    }

    fn request(self, world: &mut World, step: Step) {
        match step {
            Step::Create(order) => self.transaction(world).create(order),
            Step::Pay(order) => {
                if self.is(Mutant::AnswerBeforeCommit) && world.database.orders[order].is_some_and(|row| is_open(&row))
                {
                    world.undecided = Some((order, Unwritten::Acceptance));
                    world.answers[order] = Some(Answer::PaymentAccepted);
                } else if let Some(answer) = self.pay(world, order) {
                    world.answers[order] = Some(answer);
                }
            }
            Step::PayAnswerLost(order) => {
                self.pay(world, order);
            }
            Step::PaySlowly(order) => {
                world.database.now = BEFORE;
                self.pay(world, order);
                world.database.now = AFTER;
            }
            Step::Cancel(order) => {
                if self.is(Mutant::CancelledWithoutLock)
                    && world.database.orders[order].is_some_and(|row| is_open(&row))
                {
                    world.undecided = Some((order, Unwritten::Cancellation));
                } else if let Some(answer) = self.cancel(world, order) {
                    world.answers[order] = Some(answer);
                }
            }
            Step::CancelAnswerLost(order) => {
                self.cancel(world, order);
            }
            Step::WriteLater => self.write_later(world),
            Step::WriteOff(product) => self.transaction(world).write_off(product),
            Step::HoldsEnd => world.database.now = AFTER,
            Step::Refund(request) => {
                if let Some(refund) = self.refund(world, request) {
                    world.refund_answers.insert(request, refund);
                }
            }
            Step::RefundAnswerLost(request) => {
                self.refund(world, request);
            }
            _ => {}
        }
    }

    fn pay(self, world: &mut World, order: usize) -> Option<Answer> {
        let (answer, is_new) = self.transaction(world).pay(order);
        world.to_notify[order] |= is_new;
        self.lose_outbox(world, order);
        answer
    }

    fn cancel(self, world: &mut World, order: usize) -> Option<Answer> {
        let answer = self.transaction(world).cancel(order);
        self.lose_outbox(world, order);
        answer
    }

    /// What a wrong version does after a commit that should have contained it.
    fn lose_outbox(self, world: &mut World, order: usize) {
        let is_closed =
            world.database.orders[order].is_some_and(|row| row.failure.is_some() && row.accepted_at.is_none());
        if self.is(Mutant::OutboxAfterCommit)
            && is_closed
            && world.events[order].is_none()
            && !world.database.outbox[order]
        {
            world.undecided = Some((order, Unwritten::OutboxRow));
        }
    }

    fn write_later(self, world: &mut World) {
        let Some((number, unwritten)) = world.undecided.take() else {
            return;
        };
        match unwritten {
            Unwritten::Acceptance => {
                self.pay(world, number);
            }
            Unwritten::Cancellation => {
                self.transaction(world).close(number, FailureReason::Cancelled);
                world.answers[number] = Some(Answer::Cancelled);
            }
            Unwritten::OutboxRow => world.database.outbox[number] = true,
            Unwritten::Event => publish_event(world, number),
            Unwritten::Refund(amount) => self.write_refund(world, number, amount),
            Unwritten::RefundPart(part) => self.transaction(world).write_part(number, part),
        }
    }

    fn background(self, world: &mut World, step: Step) {
        match step {
            Step::Publish(order) => {
                world.queue[order] += 1;
                world.to_notify[order] = false;
            }
            Step::PublishUnconfirmed(order) | Step::Sweep(order) | Step::Stray(order) => world.queue[order] += 1,
            Step::ApiCrashes => {
                world.to_notify = [false; ORDERS];
                world.undecided = None;
            }
            Step::MessageLost(order) => world.queue[order] -= 1,
            Step::Expire(order) => {
                self.transaction(world).expire(order);
                self.lose_outbox(world, order);
            }
            Step::Relay(order) => {
                world.database.outbox[order] = false;
                if self.is(Mutant::OutboxDeletedFirst) {
                    world.undecided = Some((order, Unwritten::Event));
                } else {
                    publish_event(world, order);
                }
            }
            Step::RelayRefund(refund) => {
                world.database.refunds[refund].is_in_outbox = false;
                world.refund_events.insert(refund);
            }
            Step::RelayRefundDies(refund) => {
                world.refund_events.insert(refund);
            }
            Step::RelayDies(order) if !self.is(Mutant::OutboxDeletedFirst) => publish_event(world, order),
            _ => {}
        }
    }

    fn work(self, world: &mut World, step: Step) {
        match step {
            Step::Deliver(worker, batch) => {
                for order in (0..ORDERS).filter(|order| batch[*order]) {
                    world.queue[order] -= 1;
                }
                world.workers[worker] = Worker {
                    phase: Phase::Delivered,
                    batch,
                    is_connected: true,
                    ..Worker::default()
                };
            }
            Step::ReadWithoutLock(worker) => {
                world.workers[worker].stock_read = world.database.products.map(|product| product.stock);
                world.workers[worker].phase = Phase::Read;
            }
            Step::Settle(worker) => {
                let settled = self.settle(world, worker);
                let worker = &mut world.workers[worker];
                *worker = Worker {
                    phase: Phase::Settled,
                    settled,
                    stock_read: Default::default(),
                    ..*worker
                };
            }
            Step::SettleAnswerLost(worker) => {
                self.settle(world, worker);
            }
            Step::PublishEvents(worker) => self.publish_events(world, worker),
            Step::Acknowledge(worker) => acknowledge(world, worker),
            Step::ConnectionLost(worker) => requeue(world, worker),
            Step::WorkerCrashes(worker) => {
                requeue(world, worker);
                world.workers[worker] = Worker::default();
            }
            _ => {}
        }
    }

    fn settle(self, world: &mut World, worker: usize) -> [bool; ORDERS] {
        let Worker {
            batch,
            phase,
            stock_read,
            ..
        } = world.workers[worker];
        self.transaction(world)
            .settle(batch, (phase == Phase::Read).then_some(stock_read))
    }

    /// One event for every order that the settlement reported, also for those that were settled before.
    fn publish_events(self, world: &mut World, number: usize) {
        let worker = world.workers[number];
        if worker.phase == Phase::Delivered {
            // The wrong version publishes what it is about to commit.
            let mut ahead = world.clone();
            let settled = self.settle(&mut ahead, number);
            for order in (0..ORDERS).filter(|order| settled[*order]) {
                publish_outcome(world, order, ahead.database.orders[order].as_ref());
            }
            return;
        }

        for order in (0..ORDERS).filter(|order| worker.settled[*order]) {
            publish_event(world, order);
        }
        world.workers[number].phase = Phase::EventsPublished;
    }
}

/// When a row was written. Acceptances happen one after another, everything else at the time that the clock shows.
fn written_at(world: &World, before: Option<&OrderState>, after: Option<&OrderState>) -> Timestamp {
    let accepted = |row: Option<&OrderState>| row.and_then(|row| row.accepted_at);
    let newly = accepted(after).filter(|_| accepted(before).is_none());
    newly.unwrap_or(world.database.now)
}

/// What the row says now.
fn publish_event(world: &mut World, order: usize) {
    let row = world.database.orders[order];
    publish_outcome(world, order, row.as_ref());
}

fn publish_outcome(world: &mut World, order: usize, row: Option<&OrderState>) {
    let outcome = row.and_then(outcome);
    if world.events[order].is_some_and(|before| Some(before) != outcome) {
        world.broken = Some(Broken::EventsDiffer);
    }
    world.events[order] = outcome;
}

/// A worker that has lost its connection acknowledges nothing by this.
fn acknowledge(world: &mut World, number: usize) {
    let worker = world.workers[number];
    let is_missing = |order: &usize| worker.settled[*order] && world.events[*order].is_none();
    if worker.is_connected && (0..ORDERS).any(|order| is_missing(&order)) {
        world.broken = Some(Broken::AcknowledgedBeforeTheEvent);
    }
    world.workers[number] = Worker::default();
}

fn requeue(world: &mut World, number: usize) {
    let worker = &mut world.workers[number];
    if worker.is_connected {
        for order in (0..ORDERS).filter(|order| worker.batch[*order]) {
            world.queue[order] += 1;
        }
        worker.is_connected = false;
    }
}
