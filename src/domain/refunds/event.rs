//! The event that tells of a refund.

use serde_json::json;

use super::Refund;
use crate::domain::{UserId, event::Event};

impl Refund {
    /// `order.refunded`, under the id of the refund. `customer` is whose order it is.
    pub(super) fn event(&self, customer: UserId) -> Event {
        let items = self
            .items
            .iter()
            .map(|item| json!({ "product_id": item.product_id, "quantity": item.quantity, "restock": item.restock }));
        let data = json!({
            "refund_id": self.id,
            "order_id": self.order_id,
            "user_id": customer,
            "amount": self.amount,
            "currency": self.currency,
            "items": items.collect::<Vec<_>>(),
            "reason": self.reason,
        });

        Event {
            id: self.id.to_string(),
            kind: "order.refunded".into(),
            subject: self.order_id.to_string(),
            time: self.created_at,
            data,
        }
    }
}
