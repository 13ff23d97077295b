//! How much of an order can still be refunded, as a pure function over what was paid and what was refunded before: never
//! more money than was paid, never more units than were ordered.

use std::collections::HashMap;

use super::{NewRefund, RefundItem};
use crate::domain::{Error, OrderId, ProductId, money};

/// A line of the order. No product has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaidLine {
    pub product_id: ProductId,
    pub quantity: i64,
    /// Minor units.
    pub unit_price: i64,
}

/// What was paid for an order, and what of it was refunded before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefundBalance {
    /// Minor units.
    pub paid: i64,
    /// Minor units of all refunds before.
    pub refunded: i64,
    pub lines: Vec<PaidLine>,
    /// Units of all refunds before.
    pub refunded_units: HashMap<ProductId, i64>,
}

/// Why a refund is more than can be refunded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    pub order_id: OrderId,
    /// Minor units that can be refunded.
    pub refundable: i64,
    /// Whether the refund asks for more than that.
    pub exceeds_refundable: bool,
    /// The items of the refund that have more units than can be refunded.
    pub items: Vec<ExcessItem>,
}

/// An item of a refund with more units than can be refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExcessItem {
    /// Its index in the refund.
    pub index: usize,
    pub product_id: ProductId,
    /// Units that can be refunded; 0 also for a product that the order does not have.
    pub refundable: i64,
}

/// The amount of the refund, in minor units. Pure, so that the model runs it too (`tests/model`).
///
/// # Errors
/// [`Error::RefundExceedsPayment`].
pub fn refund_amount(new: &NewRefund, balance: &RefundBalance) -> Result<i64, Error> {
    let line_of = |item: &RefundItem| balance.lines.iter().find(|line| line.product_id == item.product_id);
    let left = |item: &RefundItem| {
        let ordered = line_of(item).map_or(0, |line| line.quantity);
        let refunded = balance.refunded_units.get(&item.product_id).copied().unwrap_or(0);
        (ordered - refunded).max(0)
    };

    let price = |item: &RefundItem| (item.quantity, line_of(item).map_or(0, |line| line.unit_price));
    let amount = match new.amount {
        Some(amount) => amount,
        // More than fits 64 bits is more than was paid.
        None => money::total(new.items.iter().map(price)).unwrap_or(i64::MAX),
    };

    let excess = Excess {
        order_id: new.order_id,
        refundable: (balance.paid - balance.refunded).max(0),
        exceeds_refundable: amount > balance.paid - balance.refunded,
        items: (0..)
            .zip(&new.items)
            .filter(|(_, item)| item.quantity > left(item))
            .map(|(index, item)| ExcessItem {
                index,
                product_id: item.product_id,
                refundable: left(item),
            })
            .collect(),
    };
    if excess.exceeds_refundable || !excess.items.is_empty() {
        return Err(Error::RefundExceedsPayment(Box::new(excess)));
    }
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn balance() -> RefundBalance {
        let line = |product_id, quantity, unit_price| PaidLine {
            product_id,
            quantity,
            unit_price,
        };
        RefundBalance {
            paid: 1_000,
            refunded: 0,
            lines: vec![line(1, 3, 200), line(2, 4, 100)],
            refunded_units: HashMap::new(),
        }
    }

    fn refund(amount: Option<i64>, items: &[(ProductId, i64)]) -> NewRefund {
        let item = |(product_id, quantity): &(ProductId, i64)| RefundItem {
            product_id: *product_id,
            quantity: *quantity,
            restock: false,
        };
        NewRefund {
            id: Uuid::nil(),
            order_id: Uuid::nil(),
            amount,
            items: items.iter().map(item).collect(),
            reason: "returned".to_owned(),
        }
    }

    /// The money that is left, whether the refund asks for more, and the items with too many units.
    fn excess(new: &NewRefund, balance: &RefundBalance) -> (i64, bool, Vec<(usize, i64)>) {
        let Err(Error::RefundExceedsPayment(excess)) = refund_amount(new, balance) else {
            panic!("{new:?} is allowed");
        };
        let items = excess.items.iter().map(|item| (item.index, item.refundable));
        (excess.refundable, excess.exceeds_refundable, items.collect())
    }

    #[test]
    fn an_amount_that_is_left_out_is_the_price_of_the_items() {
        assert_eq!(
            refund_amount(&refund(None, &[(1, 2), (2, 1)]), &balance()).ok(),
            Some(500)
        );
        assert_eq!(refund_amount(&refund(Some(20), &[(1, 2)]), &balance()).ok(), Some(20));
        assert_eq!(refund_amount(&refund(Some(0), &[(1, 2)]), &balance()).ok(), Some(0));
    }

    #[test]
    fn a_refund_never_exceeds_what_is_left() {
        let mut balance = balance();
        balance.refunded = 600;
        balance.refunded_units = [(1, 3), (2, 1)].into();

        assert_eq!(refund_amount(&refund(Some(400), &[(2, 3)]), &balance).ok(), Some(400));
        assert_eq!(excess(&refund(Some(401), &[]), &balance), (400, true, vec![]));
        assert_eq!(excess(&refund(None, &[(2, 4)]), &balance), (400, false, vec![(0, 3)]));
        assert_eq!(
            excess(&refund(Some(500), &[(2, 3), (1, 1), (9, 1)]), &balance),
            (400, true, vec![(1, 0), (2, 0)])
        );
        assert_eq!(excess(&refund(Some(i64::MAX), &[(1, i64::MAX)]), &balance).2, [(0, 0)]);
        assert_eq!(
            excess(&refund(None, &[(2, i64::MAX)]), &balance),
            (400, true, vec![(0, 3)])
        );
    }
}
