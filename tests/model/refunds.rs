//! Refunds: what administrators may ask for, the transaction that makes one, and what must hold of them. What an order has
//! left, and what a refund comes to, is worked out by production's [`amount()`].

use std::collections::HashMap;

use shop::{
    domain::refunds::{
        NewRefund, RefundItem,
        limit::{PaidLine, RefundBalance, refund_amount},
    },
    entities::order::OrderStatus,
};
use stateright::Property;

use crate::{
    model::ShopModel,
    mutants::Mutant,
    properties::rows,
    steps::Rules,
    transactions::{Transaction, key},
    world::{PRICE, PRODUCTS, Unwritten, World, id},
};

/// A refund that may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefundRequest {
    pub order: usize,
    /// Minor units; the price of the units if it is left out.
    pub amount: Option<i64>,
    /// Units of each product; 0 for none.
    pub units: [i64; PRODUCTS],
    /// Which of the products go back on the shelf.
    pub restock: [bool; PRODUCTS],
}

/// A refund that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refund {
    /// The request that it was made for, and so its order, its units and its idempotency key.
    pub request: usize,
    /// Minor units.
    pub amount: i64,
    /// Whether its event waits in the outbox.
    pub is_in_outbox: bool,
}

/// What a refund writes beside its own row, and a wrong version in a transaction of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The units that go back on the shelf.
    Units,
    /// The idempotency key, with the answer.
    Key,
    /// The row of the outbox.
    Outbox,
}

const PARTS: [Part; 3] = [Part::Units, Part::Key, Part::Outbox];

impl RefundRequest {
    /// The request as production has it.
    fn new_refund(&self) -> NewRefund {
        let products = (0..PRODUCTS).filter(|product| self.units[*product] > 0);
        NewRefund {
            id: id(0),
            order_id: id(self.order),
            amount: self.amount,
            items: products
                .map(|product| RefundItem {
                    product_id: key(product),
                    quantity: self.units[product],
                    restock: self.restock[product],
                })
                .collect(),
            reason: String::new(),
        }
    }

    fn returned(&self, product: usize) -> i64 {
        if self.restock[product] { self.units[product] } else { 0 }
    }
}

impl Transaction<'_> {
    /// The refund that the request was answered with when it was done.
    fn refund_under_key(&self, request: usize) -> Option<usize> {
        let is_known = self.database.keys.contains(&request);
        let mut refunds = self.database.refunds.iter();
        refunds
            .position(|refund| refund.request == request)
            .filter(|_| is_known)
    }

    /// What the refund comes to, in minor units; `None` if it is refused.
    fn refund_amount(&self, request: usize) -> Option<i64> {
        let request = &self.requests[request];
        let row = self.database.orders[request.order]?;
        if row.status != OrderStatus::Paid && !self.is(Mutant::RefundOfUnpaid) {
            return None;
        }
        refund_amount(&request.new_refund(), &self.balance(request.order)).ok()
    }

    /// What was paid and refunded.
    fn balance(&self, order: usize) -> RefundBalance {
        let ordered = self.wishes[order].units;
        let refunds = self.database.refunds.iter();
        let refunds = refunds.filter(|refund| self.requests[refund.request].order == order);

        let mut balance = RefundBalance {
            paid: PRICE * ordered.iter().sum::<i64>(),
            refunded: 0,
            lines: (0..PRODUCTS)
                .filter(|product| ordered[*product] > 0)
                .map(|product| PaidLine {
                    product_id: key(product),
                    quantity: ordered[product],
                    unit_price: PRICE,
                })
                .collect(),
            refunded_units: HashMap::new(),
        };
        for refund in refunds {
            balance.refunded += refund.amount;
            for (product, units) in self.requests[refund.request].units.into_iter().enumerate() {
                *balance.refunded_units.entry(key(product)).or_default() += units;
            }
        }
        balance
    }

    /// Inserts the refund with all of its parts but one that is left out, and answers its id.
    fn insert_refund(&mut self, request: usize, amount: i64, left_out: Option<Part>) -> usize {
        let refund = self.database.refunds.len();
        self.database.refunds.push(Refund {
            request,
            amount,
            is_in_outbox: false,
        });
        for part in PARTS.into_iter().filter(|part| Some(*part) != left_out) {
            self.write_part(refund, part);
        }
        refund
    }

    pub fn write_part(&mut self, refund: usize, part: Part) {
        let row = &mut self.database.refunds[refund];
        match part {
            Part::Units => {
                let request = &self.requests[row.request];
                for (number, product) in self.database.products.iter_mut().enumerate() {
                    product.stock += request.returned(number);
                }
            }
            Part::Key => {
                self.database.keys.insert(row.request);
            }
            Part::Outbox => row.is_in_outbox = true,
        }
    }
}

impl Rules<'_> {
    /// Makes the refund, once under its key, and answers which it is. In production the key is claimed, the order locked, what
    /// is left worked out and all of it written in one transaction, so it is one step. A wrong version has one request at a
    /// time on its mind, and serves the others as it should.
    pub fn refund(self, world: &mut World, request: usize) -> Option<usize> {
        let errs = world.undecided.is_none();
        let mut transaction = self.transaction(world);
        if let Some(refund) = transaction.refund_under_key(request) {
            return Some(refund);
        }
        let amount = transaction.refund_amount(request)?;

        if errs && self.is(Mutant::RefundReadWithoutLock) {
            world.undecided = Some((request, Unwritten::Refund(amount)));
            return None;
        }
        let left_out = if errs { self.left_out() } else { None };
        let refund = transaction.insert_refund(request, amount, left_out);
        if let Some(part) = left_out {
            world.undecided = Some((refund, Unwritten::RefundPart(part)));
        }
        Some(refund)
    }

    /// Writes what a wrong version has worked out before. The key it has claimed, so it is not mistaken about that.
    pub fn write_refund(self, world: &mut World, request: usize, amount: i64) {
        let mut transaction = self.transaction(world);
        if transaction.refund_under_key(request).is_none() {
            transaction.insert_refund(request, amount, None);
        }
    }

    fn left_out(self) -> Option<Part> {
        match self.mutant? {
            Mutant::RefundedUnitsAfterCommit => Some(Part::Units),
            Mutant::RefundKeyAfterCommit => Some(Part::Key),
            Mutant::RefundOutboxAfterCommit => Some(Part::Outbox),
            _ => None,
        }
    }
}

/// Units that refunds say they put back on the shelf.
pub fn returned(requests: &[RefundRequest], world: &World, product: usize) -> i64 {
    let refunds = world.database.refunds.iter();
    refunds.map(|refund| requests[refund.request].returned(product)).sum()
}

pub fn answers_are_true(world: &World) -> bool {
    let mut answers = world.refund_answers.iter();
    answers.all(|(request, refund)| {
        let refund = world.database.refunds.get(*refund);
        refund.is_some_and(|refund| refund.request == *request)
    })
}

pub fn safety() -> Vec<Property<ShopModel>> {
    vec![
        Property::always(
            "refunds have no more units than were ordered, and no more money than was paid",
            are_within_limits,
        ),
        Property::always("a refund under one key is made once", |_, world: &World| {
            let refunds = &world.database.refunds;
            let is_first = |(number, refund): (usize, &Refund)| {
                refunds[..number].iter().all(|before| before.request != refund.request)
            };
            refunds.iter().enumerate().all(is_first)
        }),
        Property::always("only PAID orders are refunded", |model: &ShopModel, world: &World| {
            world.database.refunds.iter().all(|refund| {
                let row = world.database.orders[model.scenario.refunds[refund.request].order];
                row.is_some_and(|row| row.status == OrderStatus::Paid)
            })
        }),
    ]
}

fn are_within_limits(model: &ShopModel, world: &World) -> bool {
    let requests = model.scenario.refunds;
    world.database.refunds.is_empty()
        || rows(world).all(|(order, _)| {
            let ordered = model.scenario.wishes[order].units;
            let refunds = world.database.refunds.iter();
            let refunds = refunds.filter(|refund| requests[refund.request].order == order);

            let mut amount = 0;
            let mut units = [0; PRODUCTS];
            for refund in refunds {
                amount += refund.amount;
                for (product, units) in units.iter_mut().enumerate() {
                    *units += requests[refund.request].units[product];
                }
            }
            amount <= PRICE * ordered.iter().sum::<i64>()
                && (0..PRODUCTS).all(|product| units[product] <= ordered[product])
        })
}

pub fn reachability() -> Vec<Property<ShopModel>> {
    vec![
        Property::sometimes(
            "all orders are refunded, as far as the scenario has refunds",
            |model: &ShopModel, world: &World| {
                let is_refunded = |order: usize| {
                    let mut refunds = world.database.refunds.iter();
                    refunds.any(|refund| model.scenario.refunds[refund.request].order == order)
                };
                model.scenario.refunds.iter().all(|request| is_refunded(request.order))
            },
        ),
        Property::sometimes(
            "more units are sold than were ever put in, as far as refunds bring some back",
            |model: &ShopModel, world: &World| {
                let sold = |product: usize| -> i64 {
                    let paid = rows(world).filter(|(_, row)| row.status == OrderStatus::Paid);
                    paid.map(|(order, _)| model.scenario.wishes[order].units[product]).sum()
                };
                model.scenario.refunds.is_empty()
                    || (0..PRODUCTS).any(|product| sold(product) > model.scenario.stock[product])
            },
        ),
    ]
}
