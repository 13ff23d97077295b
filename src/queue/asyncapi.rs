//! The messages of the shop as an AsyncAPI 3.0 document, for those who listen to its events.

use serde_json::{Value, json};

/// The document. Names are those of the default `queue_prefix`.
#[must_use]
pub fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "shop",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What the shop sends through RabbitMQ. Events are CloudEvents 1.0 in structured JSON, told at least \
                            once, and the same fact always has the same `id`. Requests are doorbells: they say which order's \
                            row to look at, and nothing more.",
            "license": { "name": "MIT", "url": "https://opensource.org/license/mit" },
        },
        "defaultContentType": "application/json",
        "channels": channels(),
        "operations": {
            "announce": { "action": "send", "channel": { "$ref": "#/channels/events" } },
            "ring": { "action": "send", "channel": { "$ref": "#/channels/settle" } },
            "settle": { "action": "receive", "channel": { "$ref": "#/channels/settle" } },
            "layAside": { "action": "send", "channel": { "$ref": "#/channels/dead" } },
        },
        "components": { "messages": messages() },
    })
}

fn channels() -> Value {
    json!({
        "events": {
            "address": "shop.events",
            "description": "Topic exchange. The routing key is the event's type; bind a queue of your own.",
            "messages": {
                "orderPaid": { "$ref": "#/components/messages/orderPaid" },
                "orderFailed": { "$ref": "#/components/messages/orderFailed" },
                "stockLow": { "$ref": "#/components/messages/stockLow" },
            },
            "bindings": { "amqp": {
                "is": "routingKey",
                "exchange": { "name": "shop.events", "type": "topic", "durable": true },
            } },
        },
        "settle": {
            "address": "settle",
            "description": "Requests to settle an order, in the quorum queue shop.orders.settle.",
            "messages": { "settle": { "$ref": "#/components/messages/settle" } },
            "bindings": { "amqp": {
                "is": "routingKey",
                "exchange": { "name": "shop.orders", "type": "direct", "durable": true },
            } },
        },
        "dead": {
            "address": "shop.orders.dead",
            "description": "What can never be processed, as it came.",
            "messages": { "dead": { "$ref": "#/components/messages/dead" } },
            "bindings": { "amqp": { "is": "queue", "queue": { "name": "shop.orders.dead", "durable": true } } },
        },
    })
}

fn messages() -> Value {
    json!({
        "orderPaid": event("order.paid", "An order has been settled as PAID.", &order(false)),
        "orderFailed": event("order.failed", "An order has been settled as FAILED: nothing was taken.", &order(true)),
        "stockLow": event("stock.low", "A product's stock has fallen to the low-stock threshold.", &json!({
            "type": "object",
            "properties": {
                "product_id": { "type": "integer", "minimum": 1 },
                "stock": { "type": "integer", "minimum": 0, "description": "Units left." },
            },
            "required": ["product_id", "stock"],
        })),
        "settle": {
            "title": "Look at this order's row",
            "contentType": "application/json",
            "headers": {
                "type": "object",
                "properties": { "traceparent": { "type": "string", "description": "W3C Trace Context." } },
            },
            "payload": {
                "type": "object",
                "properties": { "order_id": { "type": "string", "format": "uuid" } },
                "required": ["order_id"],
            },
        },
        "dead": {
            "title": "A message that was laid aside",
            "headers": {
                "type": "object",
                "properties": { "x-shop-reason": { "type": "string", "description": "Why." } },
            },
            "payload": {},
        },
    })
}

fn event(kind: &str, title: &str, data: &Value) -> Value {
    json!({
        "name": kind,
        "title": title,
        "contentType": "application/cloudevents+json",
        "payload": {
            "type": "object",
            "properties": {
                "specversion": { "type": "string", "enum": ["1.0"] },
                "id": { "type": "string", "minLength": 1, "description": "The same for the same fact." },
                "source": { "type": "string", "enum": ["/shop"] },
                "type": { "type": "string", "enum": [kind] },
                "subject": { "type": "string", "description": "The id of what it is about." },
                "time": { "type": "string", "format": "date-time" },
                "datacontenttype": { "type": "string", "enum": ["application/json"] },
                "data": data,
            },
            "required": ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"],
            "additionalProperties": false,
        },
    })
}

fn order(failed: bool) -> Value {
    let mut order = json!({
        "type": "object",
        "properties": {
            "order_id": { "type": "string", "format": "uuid" },
            "user_id": { "type": "integer", "minimum": 1 },
            "total_price": { "type": "integer", "minimum": 0, "description": "In the currency's minor unit." },
            "currency": { "type": "string", "pattern": "^[A-Z]{3}$" },
        },
        "required": ["order_id", "user_id", "total_price", "currency"],
        "additionalProperties": false,
    });
    if failed {
        let whole = json!({ "type": "integer", "minimum": 0 });
        order["properties"]["failure"] = json!({
            "type": "object",
            "properties": {
                "reason": { "type": "string", "enum": ["insufficient_stock"] },
                "lines": { "type": "array", "minItems": 1, "items": {
                    "type": "object",
                    "properties": { "product_id": whole, "requested": whole, "available": whole },
                    "required": ["product_id", "requested", "available"],
                    "additionalProperties": false,
                } },
            },
            "required": ["reason", "lines"],
            "additionalProperties": false,
        });
        order["required"] = json!(["order_id", "user_id", "total_price", "currency", "failure"]);
    }
    order
}
