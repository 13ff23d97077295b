//! The transactions of the shop, on the model's database. What they decide comes from production: [`transition()`] says what
//! becomes of one order, [`decide()`] what becomes of a batch. Each takes its locks first, so in the model it is one step.

use std::collections::{BTreeMap, HashMap};

use shop::{
    domain::{
        settlement::{Claim, ClaimedLine, Decision, decide},
        stock_level::{StockLevel, set_aside},
        transition::{Action, Change, OrderState, Refusal, transition},
    },
    entities::{
        Timestamp,
        order::{FailureReason, OrderStatus},
    },
};

use crate::{
    mutants::Mutant,
    refunds::RefundRequest,
    world::{AFTER, Answer, BEFORE, Database, HOLDS_END, ORDERS, PRICE, PRODUCTS, Wish, id},
};

/// The database with what the transactions on it must know.
pub struct Transaction<'a> {
    pub database: &'a mut Database,
    pub wishes: &'a [Wish],
    pub requests: &'a [RefundRequest],
    pub mutant: Option<Mutant>,
}

impl Transaction<'_> {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Inserts the order, and sets its units aside if it is to have a hold. Refuses it when the units are short.
    pub fn create(&mut self, order: usize) {
        let wish = self.wishes[order];
        // Sent again, with the same idempotency key.
        if self.database.orders[order].is_some() {
            return;
        }
        if !wish.with_hold {
            self.database.orders[order] = Some(OrderState::new(None));
            return;
        }

        let units = (0..PRODUCTS).map(|product| (key(product), wish.units[product]));
        let units: BTreeMap<i64, i64> = units.filter(|(_, units)| *units > 0).collect();
        let mut levels = self.levels(None);
        if self.is(Mutant::HoldNotCountedForHolds) {
            for level in levels.values_mut() {
                level.held = 0;
            }
        }
        if self.database.now == BEFORE && set_aside(&units, &mut levels).is_ok() {
            self.database.orders[order] = Some(OrderState::new(Some(HOLDS_END)));
            self.hold(order, 1);
        }
    }

    /// Accepts the payment. Answers what the client is told, and whether a settle request is to be published.
    pub fn pay(&mut self, order: usize) -> (Option<Answer>, bool) {
        let Some(row) = self.database.orders[order] else {
            return (None, false);
        };
        let at = self.acceptance_time();

        let change = if self.is(Mutant::LatePaymentAccepted) {
            transition(&row, Action::Pay, BEFORE)
        } else {
            transition(&row, Action::Pay, at)
        };
        match change {
            Ok(Change::Accept) => {
                self.write(order, row.accepted(at));
                if self.is(Mutant::HoldReleasedAtAcceptance) {
                    self.hold(order, -1);
                }
                (Some(Answer::PaymentAccepted), true)
            }
            Ok(Change::Close(_)) if self.is(Mutant::LatePaymentRefusedOnly) => (Some(Answer::Expired), false),
            Ok(Change::Close(reason)) => {
                self.close(order, reason);
                (Some(Answer::Expired), false)
            }
            Ok(Change::Unchanged | Change::Settle) => (Some(Answer::PaymentAccepted), false),
            Err(refusal) => (answer_to(refusal), false),
        }
    }

    /// Cancels the order, and answers what the client is told.
    pub fn cancel(&mut self, order: usize) -> Option<Answer> {
        let row = self.database.orders[order]?;
        match transition(&row, Action::Cancel, self.database.now) {
            Ok(Change::Close(reason)) => {
                self.close(order, reason);
                Some(Answer::Cancelled)
            }
            Ok(_) => Some(Answer::Cancelled),
            Err(refusal) => answer_to(refusal),
        }
    }

    /// Releases a hold whose time is up.
    pub fn expire(&mut self, order: usize) {
        let Some(row) = self.database.orders[order] else {
            return;
        };
        let mut seen = row;
        if self.is(Mutant::ExpiryIgnoresAcceptance) && row.status == OrderStatus::Pending {
            seen.accepted_at = None;
        }

        match transition(&seen, Action::Expire, self.database.now) {
            Ok(Change::Close(reason)) => self.close(order, reason),
            Err(Refusal::Failed(Some(FailureReason::Cancelled)))
                if self.is(Mutant::HoldReleasedTwice) && row.expires_at.is_some() && self.database.now == AFTER =>
            {
                self.hold(order, -1);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// FAILED without a payment: the hold is released, the event goes to the outbox.
    pub fn close(&mut self, order: usize, reason: FailureReason) {
        let Some(row) = self.database.orders[order] else {
            return;
        };
        if row.has_open_hold() {
            self.hold(order, -1);
        }
        self.write(order, row.failed(reason, self.database.now));
        self.database.outbox[order] = !self.is(Mutant::OutboxAfterCommit);
    }

    /// Settles the accepted orders among `batch`, and answers which of them are settled, now or before. `stock_read` is what a
    /// wrong version has read before without a lock.
    pub fn settle(&mut self, batch: [bool; ORDERS], stock_read: Option<[i64; PRODUCTS]>) -> [bool; ORDERS] {
        let mut settled = [false; ORDERS];
        let mut open = Vec::new();
        for order in (0..ORDERS).filter(|order| batch[*order]) {
            let Some(row) = self.database.orders[order] else {
                continue;
            };
            match self.is_to_be_settled(&row) {
                Ok(true) => open.push((order, row)),
                Ok(false) => settled[order] = true,
                Err(_) => {}
            }
        }

        let before = self.levels(stock_read);
        let mut left = before.clone();
        let claims = open.iter().map(|(order, row)| self.claim(*order, row)).collect();
        let decisions = decide(claims, &mut left);

        self.take(&before, &left);
        for (order, row) in open {
            let decision = decisions.iter().find(|(decided, _)| *decided == id(order));
            if let Some((_, decision)) = decision {
                self.write_decision(order, row, decision);
                settled[order] = true;
            }
        }
        settled
    }

    /// `Ok(false)` when the order was settled before.
    fn is_to_be_settled(&self, row: &OrderState) -> Result<bool, Refusal> {
        let change = transition(row, Action::Settle, self.database.now);
        match change {
            Ok(Change::Unchanged) if self.is(Mutant::SettledAgain) && row.status == OrderStatus::Paid => Ok(true),
            Err(Refusal::NotAccepted) if self.is(Mutant::SettledWithoutAcceptance) => Ok(true),
            change => change.map(|change| change == Change::Settle),
        }
    }

    /// The units of each product, as the settlement sees them.
    fn levels(&self, stock_read: Option<[i64; PRODUCTS]>) -> HashMap<i64, StockLevel> {
        let level = |product: usize| {
            let of = &self.database.products[product];
            let not_counted = if self.is(Mutant::HoldNotCountedForOthers) {
                of.held
            } else {
                0
            };
            StockLevel {
                stock: stock_read.map_or(of.stock, |read| read[product]) + not_counted,
                held: of.held,
            }
        };
        (0..PRODUCTS).map(|product| (key(product), level(product))).collect()
    }

    /// Writes the difference, as production does.
    fn take(&mut self, before: &HashMap<i64, StockLevel>, left: &HashMap<i64, StockLevel>) {
        let is_absolute = self.is(Mutant::AbsoluteStock);
        let leaves_holds = self.is(Mutant::HoldLeftBySettlement);

        for (number, product) in self.database.products.iter_mut().enumerate() {
            let (before, left) = (before[&key(number)], left[&key(number)]);
            if is_absolute && before != left {
                product.stock = left.stock;
            } else {
                product.stock -= before.stock - left.stock;
            }
            if !leaves_holds {
                product.held -= before.held - left.held;
            }
        }
    }

    fn claim(&self, order: usize, row: &OrderState) -> Claim {
        let lines = (0..PRODUCTS).filter(|product| self.wishes[order].units[*product] > 0);
        Claim {
            id: id(order),
            accepted_at: row.accepted_at.unwrap_or(Timestamp(i64::MAX)),
            has_hold: row.has_open_hold() && !self.is(Mutant::HoldNotUsed),
            lines: lines
                .map(|product| ClaimedLine {
                    product_id: key(product),
                    quantity: self.wishes[order].units[product],
                    unit_price: PRICE,
                })
                .collect(),
        }
    }

    fn write_decision(&mut self, order: usize, row: OrderState, decision: &Decision) {
        if row.has_open_hold() && self.is(Mutant::HoldNotUsed) {
            self.hold(order, -1);
        }

        match decision {
            Decision::Paid { .. } => self.write(order, row.paid(self.database.now)),
            Decision::Failed(failure) => {
                if self.is(Mutant::SettledInPart) {
                    self.take_what_is_there(order);
                }
                self.write(order, row.failed(failure.reason, self.database.now));
            }
        }
    }

    fn take_what_is_there(&mut self, order: usize) {
        for (product, units) in self.wishes[order].units.into_iter().enumerate() {
            let product = &mut self.database.products[product];
            if product.stock - product.held >= units {
                product.stock -= units;
            }
        }
    }

    /// Writes off one unit, unless it is on hold.
    pub fn write_off(&mut self, product: usize) {
        let ignores_holds = self.is(Mutant::HoldNotCountedForWriteOffs);
        let product = &mut self.database.products[product];
        let held = if ignores_holds { 0 } else { product.held };
        if product.stock > held {
            product.stock -= 1;
            product.written_off += 1;
        }
    }

    /// One acceptance after another, so that the order in which they are settled is certain.
    pub fn acceptance_time(&self) -> Timestamp {
        let accepted = self
            .database
            .orders
            .iter()
            .flatten()
            .filter(|row| row.accepted_at.is_some());
        let number = i64::try_from(accepted.count()).unwrap_or(i64::MAX);
        Timestamp(self.database.now.0 + 1 + number)
    }

    pub fn write(&mut self, order: usize, row: OrderState) {
        self.database.orders[order] = Some(row);
    }

    /// Sets the units of the order aside (1) or releases them (-1).
    fn hold(&mut self, order: usize, sign: i64) {
        for (product, units) in self.wishes[order].units.into_iter().enumerate() {
            self.database.products[product].held += sign * units;
        }
    }
}

/// A product's id.
pub fn key(product: usize) -> i64 {
    i64::try_from(product).unwrap_or(i64::MAX) + 1
}

/// What a client is told, as far as it can become untrue.
fn answer_to(refusal: Refusal) -> Option<Answer> {
    match refusal {
        Refusal::PaymentAccepted | Refusal::Paid => Some(Answer::PaymentAccepted),
        Refusal::Failed(Some(FailureReason::Cancelled)) => Some(Answer::Cancelled),
        Refusal::Failed(Some(FailureReason::Expired)) => Some(Answer::Expired),
        Refusal::Failed(_) | Refusal::NotAccepted | Refusal::NotDue | Refusal::UnknownStatus(_) => None,
    }
}
