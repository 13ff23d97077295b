//! An explicit-state model of the shop. It runs the rules of production, [`decide`](shop::domain::settlement::decide),
//! [`transition`](shop::domain::transition::transition) and [`refund_amount`](shop::domain::refunds::limit::refund_amount), in every order in which a few orders, two workers, a queue that loses,
//! doubles and reorders messages, and crashes between any two steps can bring them. `docs/model.md` says what that proves.

mod effects;
mod model;
mod mutants;
mod properties;
mod refunds;
mod step;
mod steps;
mod transactions;
mod world;

use std::{io::Write as _, time::Instant};

use model::ShopModel;
use mutants::Mutant;
use properties::{FAIR_RUN, rows};
use refunds::RefundRequest;
use shop::failpoints::Failpoint;
use stateright::{Checker, HasDiscoveries, Model as _};
use steps::{Step, is_due};
use world::{Scenario, Wish, World};

/// A scenario explores at least so many states, or it has lost something.
const MANY: usize = 100_000;

const fn wish(units: [i64; 2], with_hold: bool) -> Wish {
    Wish { units, with_hold }
}

/// Three orders without holds that compete for two products, one of them for both.
const THREE_ORDERS: Scenario = Scenario {
    name: "three orders, two workers",
    wishes: &[wish([2, 0], false), wish([1, 1], false), wish([0, 1], false)],
    stock: [2, 1],
    write_off: [0, 0],
    refunds: &[],
    workers: 2,
    messages: 1,
    cancels: false,
    strays: false,
    answers: false,
    any_loss: false,
};

/// The same with messages that come twice.
const MESSAGES_TWICE: Scenario = Scenario {
    name: "three orders, every message twice",
    workers: 1,
    messages: 2,
    ..THREE_ORDERS
};

/// An order with a hold and one without, and everything that may happen around them.
const HOLD: Scenario = Scenario {
    name: "an order with a hold and one without, every message twice, two workers",
    wishes: &[wish([1, 1], true), wish([2, 0], false)],
    write_off: [1, 1],
    messages: 2,
    cancels: true,
    ..THREE_ORDERS
};

/// The same with messages that nobody has sent, and with every answer remembered.
const ANSWERS: Scenario = Scenario {
    name: "an order with a hold and one without, stray messages, every answer remembered",
    workers: 1,
    strays: true,
    answers: true,
    ..HOLD
};

/// Two holds and an order without one, which compete.
const RIVAL_HOLDS: Scenario = Scenario {
    name: "two orders with holds and one without",
    wishes: &[wish([1, 1], true), wish([1, 0], true), wish([1, 0], false)],
    workers: 1,
    cancels: true,
    ..THREE_ORDERS
};

/// An order that is refunded, its units or money alone, and one that waits for the units that come back.
const REFUNDS: Scenario = Scenario {
    name: "two orders, and refunds of both",
    wishes: &[wish([2, 1], false), wish([1, 0], true)],
    refunds: &[
        RefundRequest {
            order: 0,
            amount: None,
            units: [1, 0],
            restock: [true, false],
        },
        RefundRequest {
            order: 0,
            amount: Some(180),
            units: [2, 1],
            restock: [false, true],
        },
        RefundRequest {
            order: 1,
            amount: Some(60),
            units: [0, 0],
            restock: [false, false],
        },
    ],
    workers: 1,
    ..THREE_ORDERS
};

/// Written past the test harness, which shows nothing of tests that pass.
fn report(line: &str) {
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Explores all of it, and asserts that nothing is wrong anywhere.
fn explore(scenario: Scenario) {
    let started = Instant::now();
    let model = ShopModel::new(scenario, None).checker();
    let checker = model
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    if let Some((broken, steps)) = first_failure(&checker) {
        panic!("{}: it is not true that {broken}: {steps:#?}", scenario.name);
    }

    report(&format!(
        "{}: {} states, {} transitions, up to {} steps, {:.1} s",
        scenario.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f32()
    ));
    checker.assert_properties();
    assert!(checker.unique_state_count() > MANY);
}

/// What is wrong, and a way there from which no step can be left out.
fn first_failure(checker: &impl Checker<ShopModel>) -> Option<(&'static str, Vec<Step>)> {
    let model = checker.model();
    let is_failure = |name| model.property(name).expectation.discovery_is_failure();
    let failures = checker.discoveries().into_iter().filter(|(name, _)| is_failure(name));
    let ways = failures.map(|(name, path)| (name, model.shorten(name, path.into_actions())));
    ways.min_by_key(|(_, steps)| steps.len())
}

#[test]
fn three_orders_and_two_workers() {
    explore(THREE_ORDERS);
}

#[test]
fn three_orders_and_messages_that_come_twice() {
    explore(MESSAGES_TWICE);
}

#[test]
fn an_order_with_a_hold_and_one_without() {
    explore(HOLD);
}

#[test]
fn no_answer_becomes_untrue() {
    explore(ANSWERS);
}

#[test]
fn orders_with_holds_compete() {
    explore(RIVAL_HOLDS);
}

#[test]
fn refunds_stay_within_what_was_paid_and_ordered() {
    explore(REFUNDS);
}

/// Explores until something is wrong.
fn counterexample(scenario: Scenario, mutant: Option<Mutant>) -> Option<(&'static str, Vec<Step>)> {
    let model = ShopModel::new(scenario, mutant).checker();
    let checker = model.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    first_failure(&checker)
}

#[test]
fn every_mistake_has_a_counterexample() {
    let two_orders = Scenario {
        wishes: &THREE_ORDERS.wishes[..2],
        ..THREE_ORDERS
    };
    let of_orders = [two_orders, ANSWERS, RIVAL_HOLDS];

    for mutant in Mutant::ALL {
        let scenarios = if mutant.is_of_refunds() {
            &[REFUNDS][..]
        } else {
            &of_orders
        };
        let mut found = scenarios
            .iter()
            .filter_map(|scenario| counterexample(*scenario, Some(mutant)));
        let (broken, steps) = found.next().unwrap_or_else(|| panic!("{mutant:?} is not found"));
        report(&format!(
            "{mutant:?}: after {} steps it is not true that {broken}",
            steps.len()
        ));
        println!("{mutant:?}: {steps:?}");
    }
}

/// What is not promised, so that the documentation stays true: what has to happen, and that an event is all that is lost.
#[test]
fn the_limits_are_known() {
    let loses_any = Scenario {
        messages: 1,
        any_loss: true,
        ..HOLD
    };
    let has_strays = Scenario {
        messages: 1,
        strays: true,
        ..HOLD
    };

    for (limit, scenario) in [
        ("any message may be lost", loses_any),
        ("messages come that nobody has sent", has_strays),
    ] {
        let (broken, steps) = counterexample(scenario, None)
            .unwrap_or_else(|| panic!("no limit any more, if {limit}: change docs/model.md"));
        assert_eq!(broken, FAIR_RUN);
        report(&format!(
            "if {limit}: after {} steps it is not true that {broken}",
            steps.len()
        ));
        println!("{limit}: {steps:?}");

        let is_settled = |world: &World| rows(world).all(|(_, row)| !is_due(row));
        let end = ShopModel::new(scenario, None).fair_end(&steps);
        assert!(end.is_some_and(|end| is_settled(&end)), "more than an event is lost");
    }
}

/// A new failpoint does not compile here until the model can die at it.
fn way_to_death_at(point: Failpoint) -> Vec<Step> {
    let batch = [true, false, false];
    let paid = [Step::Create(0), Step::PayAnswerLost(0)];
    let delivered = [&paid[..], &[Step::Publish(0), Step::Deliver(0, batch)]].concat();

    match point {
        // The model knows no ledger check, and it writes nothing that an order depends on.
        Failpoint::LedgerRead => Vec::new(),
        Failpoint::Created => vec![Step::Create(0)],
        Failpoint::Accepted => [&paid[..], &[Step::ApiCrashes]].concat(),
        Failpoint::Cancelled => vec![Step::Create(0), Step::CancelAnswerLost(0)],
        Failpoint::Expired => vec![Step::Create(0), Step::HoldsEnd, Step::Expire(0)],
        Failpoint::Published => [&paid[..], &[Step::PublishUnconfirmed(0), Step::ApiCrashes]].concat(),
        Failpoint::Delivered => [&delivered[..], &[Step::WorkerCrashes(0)]].concat(),
        // The model knows no cache.
        Failpoint::Settled | Failpoint::Invalidated => {
            [&delivered[..], &[Step::Settle(0), Step::WorkerCrashes(0)]].concat()
        }
        Failpoint::EventsPublished => [
            &delivered[..],
            &[Step::Settle(0), Step::PublishEvents(0), Step::WorkerCrashes(0)],
        ]
        .concat(),
        Failpoint::Acknowledged => [
            &delivered[..],
            &[Step::Settle(0), Step::PublishEvents(0), Step::Acknowledge(0)],
        ]
        .concat(),
        Failpoint::Relayed => vec![Step::Create(0), Step::CancelAnswerLost(0), Step::RelayDies(0)],
    }
}

#[test]
fn the_model_dies_at_every_failpoint_of_production() {
    let points = [
        Failpoint::Created,
        Failpoint::Accepted,
        Failpoint::Cancelled,
        Failpoint::Expired,
        Failpoint::Published,
        Failpoint::Delivered,
        Failpoint::Settled,
        Failpoint::Invalidated,
        Failpoint::EventsPublished,
        Failpoint::Acknowledged,
        Failpoint::LedgerRead,
        Failpoint::Relayed,
    ];
    let model = ShopModel::new(ANSWERS, None);
    for point in points {
        assert!(model.end_of(&way_to_death_at(point)).is_some(), "{point:?}");
    }
}
