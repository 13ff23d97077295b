//! The decision over a batch, compared with a naive model: one order after another, one unit at a time, where every unit on
//! hold has the order's name on it.

use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};
use shop::{
    domain::{
        settlement::{Claim, ClaimedLine, Decision, decide},
        stock_level::StockLevel,
    },
    entities::Timestamp,
};
use uuid::Uuid;

/// Whose a unit on the shelf is: free, on hold for an order of the batch, or for one outside of it.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    Nobody,
    Order(Uuid),
    Outside,
}

type Shelves = HashMap<i64, Vec<Owner>>;

/// Orders of 1 to 4 lines over few products, so that they compete; the same product may stand in two lines.
fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let line = (1..6_i64, 1..5_i64, 0..1_000_i64).prop_map(|(product_id, quantity, unit_price)| ClaimedLine {
        product_id,
        quantity,
        unit_price,
    });
    let order = (0..20_i64, any::<bool>(), vec(line, 1..5));
    vec(order, 0..40).prop_map(|orders| {
        (1..)
            .zip(orders)
            .map(|(number, (accepted_at, has_hold, lines))| Claim {
                id: Uuid::from_u128(number),
                accepted_at: Timestamp(accepted_at),
                has_hold,
                lines,
            })
            .collect()
    })
}

/// Free units, and units on hold for orders outside of the batch, for each product.
fn others() -> impl Strategy<Value = Vec<(usize, usize)>> {
    vec((0..25_usize, 0..5_usize), 5)
}

fn shelves(claims: &[Claim], others: &[(usize, usize)]) -> Shelves {
    let mut shelves: Shelves = (1..)
        .zip(others)
        .map(|(product, (free, outside))| {
            (
                product,
                [vec![Owner::Nobody; *free], vec![Owner::Outside; *outside]].concat(),
            )
        })
        .collect();
    for claim in claims.iter().filter(|claim| claim.has_hold) {
        for line in &claim.lines {
            let units = std::iter::repeat_n(Owner::Order(claim.id), usize::try_from(line.quantity).expect("few"));
            shelves.entry(line.product_id).or_default().extend(units);
        }
    }
    shelves
}

fn levels(shelves: &Shelves) -> HashMap<i64, StockLevel> {
    let level = |units: &Vec<Owner>| StockLevel {
        stock: i64::try_from(units.len()).expect("few"),
        held: i64::try_from(units.iter().filter(|owner| **owner != Owner::Nobody).count()).expect("few"),
    };
    shelves
        .iter()
        .map(|(product, units)| (*product, level(units)))
        .collect()
}

/// Takes one unit at a time and returns all units of an order when one is missing.
fn naive(claims: &[Claim], shelves: &mut Shelves) -> HashMap<Uuid, Option<i64>> {
    let mut queue: Vec<&Claim> = claims.iter().collect();
    queue.sort_by_key(|claim| (claim.accepted_at, claim.id));

    let mut outcomes = HashMap::new();

    for claim in queue {
        let before = shelves.clone();
        let wanted = if claim.has_hold {
            Owner::Order(claim.id)
        } else {
            Owner::Nobody
        };
        let mut total = Some(0);
        for line in &claim.lines {
            for _ in 0..line.quantity {
                let units = shelves.entry(line.product_id).or_default();
                match units.iter().position(|owner| *owner == wanted) {
                    Some(unit) => drop(units.swap_remove(unit)),
                    None => total = None,
                }
                total = total.map(|sum| sum + line.unit_price);
            }
        }

        if total.is_none() {
            *shelves = before;
        }

        outcomes.insert(claim.id, total);
    }

    outcomes
}

proptest! {
    #[test]
    fn the_decision_equals_that_of_a_naive_model(claims in claims(), others in others()) {
        let mut shelves = shelves(&claims, &others);
        let mut levels_left = levels(&shelves);
        let expected = naive(&claims, &mut shelves);
        let decisions = decide(claims.clone(), &mut levels_left);

        prop_assert_eq!(decisions.len(), claims.len());
        for (id, decision) in decisions {
            match decision {
                Decision::Paid { total_price } => prop_assert_eq!(expected[&id], Some(total_price)),
                Decision::Failed(failure) => {
                    prop_assert_eq!(expected[&id], None);
                    let has_hold = claims.iter().any(|claim| claim.id == id && claim.has_hold);
                    prop_assert!(!has_hold, "an order with a hold never fails for want of stock");
                    prop_assert!(!failure.lines.is_empty());
                    prop_assert!(failure.lines.iter().all(|line| line.requested > line.available));
                }
            }
        }

        prop_assert!(levels_left.values().all(|left| left.held >= 0 && left.held <= left.stock));
        prop_assert_eq!(levels_left, levels(&shelves));
    }
}

#[test]
fn two_lines_of_one_product_are_checked_together() {
    let line = |quantity| ClaimedLine {
        product_id: 1,
        quantity,
        unit_price: 10,
    };
    let claim = Claim {
        id: Uuid::from_u128(1),
        accepted_at: Timestamp(1),
        has_hold: false,
        lines: vec![line(6), line(6)],
    };

    let ten = StockLevel { stock: 10, held: 0 };
    let mut levels = HashMap::from([(1, ten)]);
    let decisions = decide(vec![claim], &mut levels);

    assert!(matches!(&decisions[0].1, Decision::Failed(failure) if failure.lines[0].requested == 12));
    assert_eq!(levels[&1], ten);
}

/// Its total does not fit 64 bits, which the API rules out. Nothing is sold, and its units are no longer on hold.
#[test]
fn an_order_that_fails_for_another_reason_releases_its_hold() {
    let line = ClaimedLine {
        product_id: 1,
        quantity: 3,
        unit_price: i64::MAX,
    };
    let claim = Claim {
        id: Uuid::from_u128(1),
        accepted_at: Timestamp(1),
        has_hold: true,
        lines: vec![line],
    };

    let mut levels = HashMap::from([(1, StockLevel { stock: 10, held: 5 })]);
    let decisions = decide(vec![claim], &mut levels);

    assert!(matches!(&decisions[0].1, Decision::Failed(_)));
    assert_eq!(levels[&1], StockLevel { stock: 10, held: 2 });
}
