//! The events that tell of a settlement.

use serde_json::{Value, json};

use super::{LowStock, Settled, Settlement};
use crate::{
    domain::event::Event,
    entities::{Timestamp, order::OrderStatus},
};

impl Settlement {
    /// One event for every settled order, those of an earlier attempt included, and one for every product that became low
    /// on stock.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let orders = self.settled.iter().map(Settled::event);
        let products = self.low_stock.iter().map(LowStock::event);
        orders.chain(products).collect()
    }
}

impl Settled {
    /// `order.paid` or `order.failed`.
    #[must_use]
    pub fn event(&self) -> Event {
        let kind = match self.status {
            OrderStatus::Paid => "order.paid",
            OrderStatus::Failed | OrderStatus::Pending | OrderStatus::Other(_) => "order.failed",
        };

        let mut data = json!({
            "order_id": self.id,
            "user_id": self.user_id,
            "total_price": self.total_price,
            "currency": self.currency,
        });
        if let Some(failure) = &self.failure {
            data["failure"] = json!(failure);
        }

        let id = format!("{}/settled", self.id);
        event(id, kind, self.id.to_string(), self.settled_at, data)
    }
}

impl LowStock {
    fn event(&self) -> Event {
        let data = json!({ "product_id": self.product_id, "stock": self.stock });
        let id = format!("{}/low/{}", self.product_id, self.since.0);
        event(id, "stock.low", self.product_id.to_string(), self.since, data)
    }
}

fn event(id: String, kind: &'static str, subject: String, time: Timestamp, data: Value) -> Event {
    Event {
        id,
        kind: kind.into(),
        subject,
        time,
        data,
    }
}
