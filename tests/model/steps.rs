//! Every step that the model may take, right or unlucky, and what the world is after it.

use shop::{domain::transition::OrderState, entities::Timestamp, entities::order::FailureReason};

use crate::{
    mutants::Mutant,
    step::is_step,
    transactions::Transaction,
    world::{AFTER, Answer, BEFORE, Broken, ORDERS, Phase, Scenario, Unwritten, Worker, World, outcome},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A customer's requests; an answer that is lost may be followed by the same request again.
    Create(usize),
    Pay(usize),
    PayAnswerLost(usize),
    /// A payment that looked at the clock before the hold ended and is written afterwards, or by a server whose clock is behind.
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
}

/// The shop, right or with one mistake.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub scenario: &'a Scenario,
    pub mutant: Option<Mutant>,
}

impl Rules<'_> {
    fn is(self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn transaction<'a>(&'a self, world: &'a mut World) -> Transaction<'a> {
        Transaction {
            database: &mut world.database,
            wishes: self.scenario.wishes,
            mutant: self.mutant,
        }
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
            | Step::HoldsEnd => self.request(&mut world, step),
            Step::Publish(_)
            | Step::PublishUnconfirmed(_)
            | Step::ApiCrashes
            | Step::Stray(_)
            | Step::MessageLost(_)
            | Step::Sweep(_)
            | Step::Expire(_)
            | Step::Relay(_)
            | Step::RelayDies(_) => self.background(&mut world, step),
            Step::Deliver(..)
            | Step::ReadWithoutLock(_)
            | Step::Settle(_)
            | Step::SettleAnswerLost(_)
            | Step::PublishEvents(_)
            | Step::Acknowledge(_)
            | Step::ConnectionLost(_)
            | Step::WorkerCrashes(_) => self.work(&mut world, step),
        }

        let rows = before.database.orders.iter().zip(&world.database.orders);
        let mut changed = rows.filter(|(before, after)| before != after);
        if !changed.all(|(before, after)| is_step(before.as_ref(), after.as_ref(), written_at(&world, before, after))) {
            world.broken = Some(Broken::NotAStep);
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
        let Some((order, unwritten)) = world.undecided.take() else {
            return;
        };
        match unwritten {
            Unwritten::Acceptance => {
                self.pay(world, order);
            }
            Unwritten::Cancellation => {
                self.transaction(world).close(order, FailureReason::Cancelled);
                world.answers[order] = Some(Answer::Cancelled);
            }
            Unwritten::OutboxRow => world.database.outbox[order] = true,
            Unwritten::Event => publish_event(world, order),
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
                publish_outcome(world, order, &ahead.database.orders[order]);
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
fn written_at(world: &World, before: &Option<OrderState>, after: &Option<OrderState>) -> Timestamp {
    let accepted = |row: &Option<OrderState>| row.and_then(|row| row.accepted_at);
    let newly = accepted(after).filter(|_| accepted(before).is_none());
    newly.unwrap_or(world.database.now)
}

/// Accepted, and not settled.
pub fn is_due(row: &OrderState) -> bool {
    outcome(row).is_none() && row.accepted_at.is_some()
}

fn is_open(row: &OrderState) -> bool {
    outcome(row).is_none() && row.accepted_at.is_none()
}

/// Every choice of at least one of the orders that have a message waiting.
fn batches(world: &World) -> impl Iterator<Item = [bool; ORDERS]> {
    let waiting = world.queue.map(|messages| messages > 0);
    let choices = (1..1_u8 << ORDERS).map(|bits| std::array::from_fn(|order| bits >> order & 1 == 1));
    choices.filter(move |batch: &[bool; ORDERS]| batch.iter().zip(waiting).all(|(chosen, waits)| waits || !chosen))
}

/// What the row says now.
fn publish_event(world: &mut World, order: usize) {
    let row = world.database.orders[order];
    publish_outcome(world, order, &row);
}

fn publish_outcome(world: &mut World, order: usize, row: &Option<OrderState>) {
    let outcome = row.as_ref().and_then(outcome);
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
