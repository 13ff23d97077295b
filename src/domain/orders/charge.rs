//! Charges: a payment can name the charge behind it, and one charge never pays two orders. A unique index holds that; here
//! it is known beforehand, so that one payment that is refused does not hold up those of its batch.

use std::collections::{BTreeMap, HashMap};

use sea_orm::DatabaseTransaction;

use super::Payment;
use crate::{
    db::sql::{Column, sql},
    domain::{Error, OrderId},
};

/// The charges that the payments of a batch name, and the orders that they pay.
pub(super) struct Charges(HashMap<String, OrderId>);

impl Charges {
    /// Reads which charges have paid an order. No statement is run for a batch that names none.
    pub async fn read(txn: &DatabaseTransaction, payments: &[Payment]) -> Result<Self, Error> {
        let named: Vec<String> = payments
            .iter()
            .filter_map(|payment| payment.reference.clone())
            .collect();
        if named.is_empty() {
            return Ok(Self(HashMap::new()));
        }

        let paid: Vec<(String, Option<OrderId>)> = sql("
            SELECT reference, (SELECT o.id FROM orders o WHERE o.payment_reference = asked.reference)
              FROM :asked")
        .table("asked", [("reference", Column::Text(named))])
        .tuples(txn)
        .await?;

        let used = paid
            .into_iter()
            .filter_map(|(reference, order_id)| Some((reference, order_id?)));
        Ok(Self(used.collect()))
    }

    /// Whether the charge of this payment pays another order.
    pub fn is_used_up(&self, payment: &Payment) -> bool {
        let charge = payment.reference.as_ref().and_then(|reference| self.0.get(reference));
        charge.is_some_and(|order_id| *order_id != payment.order_id)
    }

    /// The orders that are accepted, each with its charge: of several payments of an order the first that can pay it counts,
    /// and so does the first of several orders that one charge is to pay.
    pub fn assign<'a>(&mut self, payments: impl Iterator<Item = &'a Payment>) -> BTreeMap<OrderId, Option<&'a String>> {
        let mut accepted = BTreeMap::new();
        for payment in payments {
            if accepted.contains_key(&payment.order_id) || self.is_used_up(payment) {
                continue;
            }
            if let Some(reference) = &payment.reference {
                self.0.insert(reference.clone(), payment.order_id);
            }
            accepted.insert(payment.order_id, payment.reference.as_ref());
        }
        accepted
    }
}
