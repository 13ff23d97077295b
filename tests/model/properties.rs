//! What must hold in every state that can be reached, and what must be reachable for that to mean anything.

use shop::{
    domain::transition::OrderState,
    entities::order::{FailureReason, OrderStatus},
};
use stateright::Property;

use crate::{
    model::ShopModel,
    refunds::{self, returned},
    steps::is_due,
    world::{Answer, Broken, HOLDS_END, Outcome, PRODUCTS, Phase, World, outcome},
};

pub const FAIR_RUN: &str = "from every state one fair run settles all that was accepted, publishes every event and releases every \
                            hold that is past";

pub fn all() -> Vec<Property<ShopModel>> {
    let mut properties = safety();
    properties.extend(refunds::safety());
    properties.push(Property::always(FAIR_RUN, ShopModel::fair_run_ends_well));
    properties.extend(reachability());
    properties.extend(refunds::reachability());
    properties
}

fn safety() -> Vec<Property<ShopModel>> {
    vec![
        Property::always(
            "stock is what was put in less what PAID orders took, and what refunds put back",
            stock_adds_up,
        ),
        Property::always(
            "held is what open holds set aside, and no more than the stock",
            holds_add_up,
        ),
        Property::always(
            "every change of a row is a step of the order's life",
            |_, world: &World| world.broken != Some(Broken::NotAStep),
        ),
        Property::always(
            "an accepted order is neither cancelled nor expired, a settled one was accepted",
            |_, world: &World| {
                rows(world).all(|(_, row)| match outcome(row) {
                    None => true,
                    Some(Outcome::Paid | Outcome::Failed(FailureReason::InsufficientStock)) => {
                        row.accepted_at.is_some()
                    }
                    Some(Outcome::Failed(_)) => row.accepted_at.is_none(),
                })
            },
        ),
        Property::always("a payment is accepted before the hold ends", |_, world: &World| {
            rows(world).all(|(_, row)| match (row.accepted_at, row.expires_at) {
                (Some(accepted), Some(end)) => accepted < end,
                _ => true,
            })
        }),
        Property::always(
            "an order that was held and paid in time never fails for want of stock",
            |_, world: &World| {
                rows(world)
                    .all(|(_, row)| row.expires_at.is_none() || row.failure != Some(FailureReason::InsufficientStock))
            },
        ),
        Property::always(
            "an event says what the row says, and nothing else was ever published",
            |_, world: &World| {
                let agrees = |(order, event): (usize, &Option<Outcome>)| {
                    event.is_none() || *event == world.database.orders[order].as_ref().and_then(outcome)
                };
                world.broken != Some(Broken::EventsDiffer) && world.events.iter().enumerate().all(agrees)
            },
        ),
        Property::always("what is acknowledged has its event published", |_, world: &World| {
            world.broken != Some(Broken::AcknowledgedBeforeTheEvent)
        }),
        Property::always("no answer that anybody got becomes untrue", answers_are_true),
    ]
}

/// Whether the numbers are right that every transaction relies on.
pub fn adds_up(model: &ShopModel, world: &World) -> bool {
    stock_adds_up(model, world) && holds_add_up(model, world)
}

fn stock_adds_up(model: &ShopModel, world: &World) -> bool {
    (0..PRODUCTS).all(|product| {
        let sold: i64 = rows(world)
            .filter(|(_, row)| row.status == OrderStatus::Paid)
            .map(|(order, _)| model.scenario.wishes[order].units[product])
            .sum();
        let shelf = world.database.products[product];
        let put_in = model.scenario.stock[product] - shelf.written_off;
        shelf.stock >= 0 && shelf.stock == put_in - sold + returned(model.scenario.refunds, world, product)
    })
}

fn holds_add_up(model: &ShopModel, world: &World) -> bool {
    (0..PRODUCTS).all(|product| {
        let held: i64 = rows(world)
            .filter(|(_, row)| row.has_open_hold())
            .map(|(order, _)| model.scenario.wishes[order].units[product])
            .sum();
        let shelf = world.database.products[product];
        shelf.held == held && shelf.held <= shelf.stock
    })
}

fn answers_are_true(_: &ShopModel, world: &World) -> bool {
    refunds::answers_are_true(world)
        && world.answers.iter().enumerate().all(|(order, answer)| {
            let row = world.database.orders[order];
            let failure = row.and_then(|row| row.failure);
            match answer {
                None => true,
                Some(Answer::PaymentAccepted) => row.is_some_and(|row| row.accepted_at.is_some()),
                Some(Answer::Cancelled) => failure == Some(FailureReason::Cancelled),
                Some(Answer::Expired) => failure == Some(FailureReason::Expired),
            }
        })
}

/// Without these the rest would hold of a shop that does nothing.
fn reachability() -> Vec<Property<ShopModel>> {
    vec![
        Property::sometimes("an order is PAID", |_, world: &World| ended(world, Outcome::Paid)),
        Property::sometimes("two workers have the same order", |model: &ShopModel, world: &World| {
            model.scenario.workers < 2 || {
                let has = |worker: usize, order: usize| world.workers[worker].batch[order];
                (0..world.queue.len()).any(|order| has(0, order) && has(1, order))
            }
        }),
        Property::sometimes(
            "a message of an order that is settled is delivered",
            |_, world: &World| {
                world.workers.iter().any(|worker| {
                    let is_settled = |(order, row): (usize, &OrderState)| worker.batch[order] && outcome(row).is_some();
                    worker.phase == Phase::Delivered && rows(world).any(is_settled)
                })
            },
        ),
        Property::sometimes("an accepted order has no message", |_, world: &World| {
            rows(world).any(|(order, row)| is_due(row) && !world.to_notify[order] && world.messages(order) == 0)
        }),
        Property::sometimes(
            "an order fails for want of stock, cancelling and expiry, as far as the scenario has them",
            |model: &ShopModel, world: &World| {
                let has_holds = model.scenario.wishes.iter().any(|wish| wish.with_hold);
                let failed = |reason| ended(world, Outcome::Failed(reason));
                (!model.scenario.cancels || failed(FailureReason::Cancelled))
                    && (!has_holds || failed(FailureReason::Expired))
                    && (has_holds || failed(FailureReason::InsufficientStock))
            },
        ),
        Property::sometimes(
            "a payment is accepted in time and settled after the end of the hold",
            |model: &ShopModel, world: &World| {
                !model.scenario.wishes.iter().any(|wish| wish.with_hold)
                    || rows(world).any(|(_, row)| {
                        row.status == OrderStatus::Paid && row.expires_at.is_some() && row.settled_at > Some(HOLDS_END)
                    })
            },
        ),
    ]
}

fn ended(world: &World, as_this: Outcome) -> bool {
    rows(world).any(|(_, row)| outcome(row) == Some(as_this))
}

pub fn rows(world: &World) -> impl Iterator<Item = (usize, &OrderState)> {
    let rows = world.database.orders.iter().enumerate();
    rows.filter_map(|(order, row)| Some((order, row.as_ref()?)))
}
