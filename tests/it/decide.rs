//! The decision over a batch, compared with a naive model: one order after another, one unit at a time.

use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};
use shop::{
    domain::settlement::{Claim, ClaimedLine, Decision, decide},
    entities::Timestamp,
};
use uuid::Uuid;

/// Orders of 1 to 4 lines over few products, so that they compete; the same product may stand in two lines.
fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let line = (1..6_i64, 1..5_i64, 0..1_000_i64).prop_map(|(product_id, quantity, unit_price)| ClaimedLine {
        product_id,
        quantity,
        unit_price,
    });
    let order = (0..20_i64, vec(line, 1..5));
    vec(order, 0..40).prop_map(|orders| {
        (1..)
            .zip(orders)
            .map(|(number, (accepted_at, lines))| Claim {
                id: Uuid::from_u128(number),
                accepted_at: Timestamp(accepted_at),
                lines,
            })
            .collect()
    })
}

fn stocks() -> impl Strategy<Value = HashMap<i64, i64>> {
    vec(0..25_i64, 5).prop_map(|stock| (1..).zip(stock).collect())
}

/// Takes one unit at a time and returns all units of an order when one is missing.
fn naive(claims: &[Claim], stock: &mut HashMap<i64, i64>) -> HashMap<Uuid, Option<i64>> {
    let mut queue: Vec<&Claim> = claims.iter().collect();
    queue.sort_by_key(|claim| (claim.accepted_at, claim.id));

    let mut outcomes = HashMap::new();

    for claim in queue {
        let before = stock.clone();
        let mut total = Some(0);
        for line in &claim.lines {
            for _ in 0..line.quantity {
                match stock.get_mut(&line.product_id) {
                    Some(left) if *left > 0 => *left -= 1,
                    _ => total = None,
                }
                total = total.map(|sum| sum + line.unit_price);
            }
        }

        if total.is_none() {
            *stock = before;
        }

        outcomes.insert(claim.id, total);
    }

    outcomes
}

proptest! {
    #[test]
    fn the_decision_equals_that_of_a_naive_model(claims in claims(), stocks in stocks()) {
        let (mut stock, mut naive_stock) = (stocks.clone(), stocks);
        let expected = naive(&claims, &mut naive_stock);
        let decisions = decide(claims.clone(), &mut stock);

        prop_assert_eq!(decisions.len(), claims.len());
        for (id, decision) in decisions {
            match decision {
                Decision::Paid { total_price } => prop_assert_eq!(expected[&id], Some(total_price)),
                Decision::Failed(failure) => {
                    prop_assert_eq!(expected[&id], None);
                    prop_assert!(!failure.lines.is_empty());
                    prop_assert!(failure.lines.iter().all(|line| line.requested > line.available));
                }
            }
        }

        prop_assert!(stock.values().all(|left| *left >= 0));
        prop_assert_eq!(stock, naive_stock);
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
        lines: vec![line(6), line(6)],
    };

    let mut stock = HashMap::from([(1, 10)]);
    let decisions = decide(vec![claim], &mut stock);

    assert!(matches!(&decisions[0].1, Decision::Failed(failure) if failure.lines[0].requested == 12));
    assert_eq!(stock[&1], 10);
}
