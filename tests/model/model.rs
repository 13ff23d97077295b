//! The shop as stateright explores it, and the fair run that it starts from every state.

use std::sync::Mutex;

use ahash::{AHashSet, RandomState};
use stateright::{Model, Property};

use crate::{
    mutants::Mutant,
    properties::{self, adds_up, rows},
    steps::{Rules, Step, is_due},
    world::{AFTER, Phase, Scenario, World, outcome},
};

/// A fair run that takes more steps than this does not end.
const MAX_STEPS: usize = 100;

pub struct ShopModel {
    pub scenario: Scenario,
    pub mutant: Option<Mutant>,
    /// States from which the fair run is known to end well, by their hash.
    good: Mutex<AHashSet<u64>>,
    hasher: RandomState,
}

impl ShopModel {
    pub fn new(scenario: Scenario, mutant: Option<Mutant>) -> Self {
        Self {
            scenario,
            mutant,
            good: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            scenario: &self.scenario,
            mutant: self.mutant,
        }
    }

    /// Runs the shop from here without any fault and without any new request, and looks at where it ends. It stops early at
    /// a state from which an earlier run ended well.
    pub fn fair_run_ends_well(&self, from: &World) -> bool {
        let mut seen = Vec::new();
        let mut world = from.clone();

        for _ in 0..MAX_STEPS {
            let hash = self.hasher.hash_one(&world);
            if self.good.lock().expect("no run panics").contains(&hash) {
                break;
            }
            seen.push(hash);

            if !adds_up(self, &world) {
                // The exploration comes here too, and says so.
                return true;
            }
            let Some(step) = self.fair_step(&world) else {
                if !ended_well(&world) {
                    return false;
                }
                break;
            };
            world = self.rules().after(&world, step);
        }
        if seen.len() == MAX_STEPS {
            return false;
        }
        self.good.lock().expect("no run panics").extend(seen);
        true
    }

    /// Leaves out every step without which the rest still leads to a state in which the property does not hold.
    #[must_use]
    pub fn shorten(&self, property: &'static str, mut steps: Vec<Step>) -> Vec<Step> {
        let mut number = 0;
        while number < steps.len() {
            let mut fewer = steps.clone();
            fewer.remove(number);
            if self.breaks(property, &fewer) {
                steps = fewer;
                number = 0;
            } else {
                number += 1;
            }
        }
        steps
    }

    fn breaks(&self, property: &'static str, steps: &[Step]) -> bool {
        let end = self.end_of(steps);
        end.is_some_and(|end| !(self.property(property).condition)(self, &end))
    }

    /// Where these steps lead, if they can be taken one after another.
    pub fn end_of(&self, steps: &[Step]) -> Option<World> {
        let mut world = World::new(&self.scenario);
        for step in steps {
            let mut possible = Vec::new();
            self.actions(&world, &mut possible);
            if !possible.contains(step) {
                return None;
            }
            world = self.rules().after(&world, *step);
        }
        Some(world)
    }

    /// Where the fair run leads that follows these steps.
    pub fn fair_end(&self, steps: &[Step]) -> Option<World> {
        let mut world = self.end_of(steps)?;
        for _ in 0..MAX_STEPS {
            let Some(step) = self.fair_step(&world) else {
                return Some(world);
            };
            world = self.rules().after(&world, step);
        }
        None
    }

    /// What the shop does next by itself while nothing fails; `None` when nothing is left to do.
    fn fair_step(&self, world: &World) -> Option<Step> {
        let mut steps = Vec::new();
        self.rules().steps(world, &mut steps);

        let is_fair = |step: &Step| match *step {
            Step::WriteLater
            | Step::Publish(_)
            | Step::ReadWithoutLock(_)
            | Step::Settle(_)
            | Step::PublishEvents(_)
            | Step::Acknowledge(_)
            | Step::Relay(_)
            | Step::RelayRefund(_) => true,
            // The sweeper waits longer than a message takes.
            Step::Sweep(order) => world.messages(order) == 0 && !world.to_notify[order],
            Step::Expire(order) => world.database.orders[order].is_some_and(|row| row.has_open_hold() && !is_due(&row)),
            Step::Deliver(_, batch) => (0..batch.len()).all(|order| batch[order] == (world.queue[order] > 0)),
            _ => false,
        };
        steps.into_iter().find(is_fair)
    }
}

fn ended_well(world: &World) -> bool {
    let is_told = |order: usize| world.events[order].is_some();
    let are_settled = rows(world).all(|(order, row)| !is_due(row) && (outcome(row).is_none() || is_told(order)));
    let are_released = world.database.now != AFTER || rows(world).all(|(_, row)| !row.has_open_hold());
    let are_refunds_told = (0..world.database.refunds.len()).all(|refund| world.refund_events.contains(&refund));
    let is_at_rest = world.workers.iter().all(|worker| worker.phase == Phase::Idle);
    are_settled && are_released && are_refunds_told && is_at_rest && world.queue.iter().all(|messages| *messages == 0)
}

impl Model for ShopModel {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.scenario)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        // Where the numbers are wrong already, what follows says nothing.
        if adds_up(self, world) {
            self.rules().steps(world, steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let after = self.rules().after(world, step);
        (after != *world).then_some(after)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
