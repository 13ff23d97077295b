//! The events that a settlement causes, as CloudEvents 1.0. The id of an event is made from the fact alone, so that
//! publishing it again after a redelivery gives the same id, and consumers can drop the duplicate.

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::{
    domain::settlement::{LowStock, Settled, Settlement},
    entities::{Timestamp, order::OrderStatus},
    queue::Event,
};

/// One event for every settled order, those of an earlier attempt included, and one for every product that became low
/// on stock.
pub(super) fn events(settlement: &Settlement) -> Vec<Event> {
    let orders = settlement.settled.iter().map(order_settled);
    let products = settlement.low_stock.iter().map(stock_low);
    orders.chain(products).collect()
}

/// `order.paid` or `order.failed`.
fn order_settled(order: &Settled) -> Event {
    let kind = match order.status {
        OrderStatus::Paid => "order.paid",
        OrderStatus::Failed | OrderStatus::Pending | OrderStatus::Other(_) => "order.failed",
    };

    let mut data = json!({
        "order_id": order.id,
        "user_id": order.user_id,
        "total_price": order.total_price,
        "currency": order.currency,
    });
    if let Some(failure) = &order.failure {
        data["failure"] = json!(failure);
    }

    let id = format!("{}/settled", order.id);
    event(id, kind, order.id.to_string(), order.settled_at, data)
}

fn stock_low(product: &LowStock) -> Event {
    let data = json!({ "product_id": product.product_id, "stock": product.stock });
    let id = format!("{}/low/{}", product.product_id, product.since.0);
    event(id, "stock.low", product.product_id.to_string(), product.since, data)
}

fn event(id: String, kind: &'static str, subject: String, time: Timestamp, data: Value) -> Event {
    Event {
        id,
        specversion: "1.0",
        source: "/shop",
        kind,
        subject,
        time: time.to_utc().format(&Rfc3339).unwrap_or_default(),
        datacontenttype: "application/json",
        data,
    }
}
