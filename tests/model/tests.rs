//! An explicit-state model of the shop. It runs the rules of production, [`decide`](shop::domain::settlement::decide) and
//! [`transition`](shop::domain::transition::transition), in every order in which a few orders, two workers, a queue that loses,
//! doubles and reorders messages, and crashes between any two steps can bring them. `docs/model.md` says what that proves.

mod model;
mod mutants;
mod properties;
mod step;
mod steps;
mod transactions;
mod world;

use std::time::Instant;

use model::ShopModel;
use mutants::Mutant;
use stateright::{Checker as _, HasDiscoveries, Model as _};
use steps::Step;
use world::{Scenario, Wish};

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

/// Explores all of it, and asserts that nothing is wrong anywhere.
fn explore(scenario: Scenario) {
    let started = Instant::now();
    let checker = ShopModel::new(scenario, None).checker().threads(2).spawn_bfs().join();

    println!(
        "{}: {} states, {} transitions, up to {} steps, {:.1} s",
        scenario.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f32()
    );
    checker.assert_properties();
    assert!(checker.unique_state_count() > MANY);
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

/// Explores until something is wrong, and gives what that is and a way there from which no step can be left out.
fn counterexample(scenario: Scenario, mutant: Option<Mutant>) -> Option<(&'static str, Vec<Step>)> {
    let model = ShopModel::new(scenario, mutant).checker();
    let checker = model.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let model = checker.model();

    let is_failure = |name| model.property(name).expectation.discovery_is_failure();
    let failures = checker.discoveries().into_iter().filter(|(name, _)| is_failure(name));
    let ways = failures.map(|(name, path)| (name, model.shorten(name, path.into_actions())));
    ways.min_by_key(|(_, steps)| steps.len())
}

#[test]
fn every_mistake_has_a_counterexample() {
    let two_orders = Scenario {
        wishes: &THREE_ORDERS.wishes[..2],
        ..THREE_ORDERS
    };
    let scenarios = [two_orders, Scenario { messages: 1, ..ANSWERS }, RIVAL_HOLDS];

    for mutant in Mutant::ALL {
        let mut found = scenarios
            .iter()
            .filter_map(|scenario| counterexample(*scenario, Some(mutant)));
        let (broken, steps) = found.next().unwrap_or_else(|| panic!("{mutant:?} is not found"));
        println!(
            "{mutant:?}: {} steps, and no longer true: {broken}\n    {steps:?}",
            steps.len()
        );
    }
}

/// What is not promised, so that the documentation stays true: what would have to happen, and that only events suffer by it.
#[test]
fn the_limits_are_known() {
    let lossy = Scenario {
        any_loss: true,
        messages: 1,
        ..HOLD
    };
    let strays = Scenario {
        strays: true,
        messages: 1,
        ..HOLD
    };

    for (limit, scenario) in [("any message is lost", lossy), ("stray messages", strays)] {
        let (broken, steps) = counterexample(scenario, None).unwrap_or_else(|| panic!("{limit} does no harm any more"));
        println!(
            "{limit}: {} steps, and no longer true: {broken}\n    {steps:?}",
            steps.len()
        );
        assert_eq!(broken, properties::FAIR_RUN);
    }
}
