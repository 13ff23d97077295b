//! The JSON bodies of requests about refunds, and of their answers.

use std::collections::HashSet;

use poem::http::HeaderMap;
use poem_openapi::{Object, types::Example};
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::{
        OrderId,
        refunds::{NewRefund, Refund, RefundId, RefundItem, RefundPage},
    },
    http::{idempotency::RequiredIdempotencyKey, problem::FieldError, validation::ExtraValidation},
};

/// A refund to make: an amount, items, or both.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "NewRefund", example)]
pub struct NewRefundBody {
    /// In the currency's minor unit: 1 or more, or 0 if there are items. Left out, it is the price of the items.
    #[oai(validator(minimum(value = "0")))]
    amount: Option<i64>,
    /// Units of the order, 1 to 100 products, each once.
    #[oai(validator(min_items = 1, max_items = 100))]
    items: Option<Vec<RefundItemBody>>,
    /// Why, in 1 to 200 characters, none of them control characters, and not blank.
    #[oai(validator(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    ))]
    reason: String,
}

/// Units of a product that are refunded.
#[derive(Clone, Copy, Debug, Object, Serialize)]
#[oai(rename = "RefundItem")]
pub struct RefundItemBody {
    /// A product of the order.
    #[oai(validator(minimum(value = "1")))]
    product_id: i64,
    /// Units, 1 to 10,000.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    quantity: i64,
    /// Whether the units are put back on the shelf.
    restock: bool,
}

/// What was refunded of an order.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Refund", example)]
pub struct RefundBody {
    /// A UUID (version 7).
    refund_id: Uuid,
    /// The order that was refunded.
    order_id: Uuid,
    /// In the currency's minor unit.
    #[oai(validator(minimum(value = "0")))]
    amount: i64,
    /// ISO 4217, as of the order.
    #[oai(validator(max_length = 3, pattern = "^[A-Z]{3}$"))]
    currency: String,
    /// Units that were refunded, by product.
    #[oai(validator(max_items = 100))]
    items: Vec<RefundItemBody>,
    /// In the words of whoever refunded.
    #[oai(validator(max_length = 200, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"))]
    reason: String,
    /// When it was refunded.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// A page of refunds, newest first.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "RefundPage", example)]
pub struct RefundPageBody {
    /// The refunds of this page.
    #[oai(validator(max_items = 200))]
    items: Vec<RefundBody>,
    /// Send this as `cursor` to get the next page; null on the last one.
    next_cursor: Option<Uuid>,
}

impl ExtraValidation for NewRefundBody {
    /// Without items the amount is what is refunded, and not 0.
    fn extend_schemas(schemas: &mut Map<String, Value>) {
        schemas.entry("NewRefund").and_modify(|schema| {
            let amount = json!({ "properties": { "amount": { "minimum": 1 } }, "required": ["amount"] });
            schema["anyOf"] = json!([{ "required": ["items"] }, amount]);
        });
    }

    fn errors(headers: &HeaderMap, body: &Value) -> Vec<FieldError> {
        let mut seen = HashSet::new();
        let repeated = |(index, item): (usize, &Value)| {
            let product = item["product_id"].as_i64()?;
            let first = seen.insert(product);
            (!first).then(|| FieldError {
                pointer: format!("/items/{index}/product_id"),
                detail: format!("product {product} is in the refund already; give it one item"),
            })
        };

        let items = body["items"].as_array().into_iter().flatten();
        let bad_key = RequiredIdempotencyKey::read(headers).err();
        items.enumerate().filter_map(repeated).chain(bad_key).collect()
    }
}

impl NewRefundBody {
    pub fn refund(self, id: RefundId, order_id: OrderId) -> NewRefund {
        let item = |item: RefundItemBody| RefundItem {
            product_id: item.product_id,
            quantity: item.quantity,
            restock: item.restock,
        };
        NewRefund {
            id,
            order_id,
            amount: self.amount,
            items: self.items.into_iter().flatten().map(item).collect(),
            reason: self.reason,
        }
    }
}

impl From<Refund> for RefundBody {
    fn from(refund: Refund) -> Self {
        let items = refund.items.iter().map(|item| RefundItemBody {
            product_id: item.product_id,
            quantity: item.quantity,
            restock: item.restock,
        });
        Self {
            refund_id: refund.id,
            order_id: refund.order_id,
            amount: refund.amount,
            currency: refund.currency,
            items: items.collect(),
            reason: refund.reason,
            created_at: refund.created_at.to_utc(),
        }
    }
}

impl From<RefundPage> for RefundPageBody {
    fn from(page: RefundPage) -> Self {
        let last = page.refunds.last().filter(|_| page.more);
        Self {
            next_cursor: last.map(|last| last.id),
            items: page.refunds.into_iter().map(RefundBody::from).collect(),
        }
    }
}

impl Example for NewRefundBody {
    fn example() -> Self {
        Self {
            amount: None,
            items: Some(RefundBody::example().items),
            reason: "returned unopened".to_owned(),
        }
    }
}

impl Example for RefundBody {
    fn example() -> Self {
        Self {
            refund_id: uuid::uuid!("019bc0d9-8f2b-7d11-a0c4-2b1f6c3d9e55"),
            order_id: uuid::uuid!("019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11"),
            amount: 3_680,
            currency: "USD".to_owned(),
            items: vec![RefundItemBody {
                product_id: 2,
                quantity: 1,
                restock: true,
            }],
            reason: "returned unopened".to_owned(),
            created_at: time::macros::datetime!(2026-01-20 14:02:11.480129 UTC),
        }
    }
}

impl Example for RefundPageBody {
    fn example() -> Self {
        Self {
            items: vec![RefundBody::example()],
            next_cursor: None,
        }
    }
}
