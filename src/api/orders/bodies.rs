//! The JSON bodies of requests about orders, and of their answers.

use std::collections::HashSet;

use poem::http::HeaderMap;
use poem_openapi::{Enum, Object, types::Example};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    api::{errors::EXAMPLE_ORDER, failure::FailureBody, stored::AsStored},
    domain::orders::{Line, Order, OrderPage},
    entities::{
        Timestamp,
        order::{Failure, FailureReason, OrderStatus, StoredFailure},
    },
    http::{idempotency::IdempotencyKey, problem::FieldError, validation::ExtraValidation},
};

/// An order to create.
#[derive(Debug, Object)]
#[oai(rename = "NewOrder", example)]
pub struct NewOrderBody {
    /// Whose order it is.
    #[oai(validator(minimum(value = "1")))]
    pub user_id: i64,
    /// 1 to 100 lines, every product once.
    #[oai(validator(min_items = 1, max_items = 100))]
    pub items: Vec<NewItemBody>,
    /// Sets the units of the order aside for so many seconds, 30 to 3,600: paid by then, the order never lacks stock.
    /// Without it nothing is set aside, and stock is checked when the order is settled.
    #[oai(validator(minimum(value = "30"), maximum(value = "3600")))]
    pub hold_seconds: Option<u32>,
}

/// A line of an order to create.
#[derive(Debug, Object)]
#[oai(rename = "NewOrderItem")]
pub struct NewItemBody {
    /// A product of the catalogue.
    #[oai(validator(minimum(value = "1")))]
    product_id: i64,
    /// Units, 1 to 10,000.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    quantity: i64,
}

/// How an order is paid.
#[derive(Debug, Object)]
#[oai(rename = "Payment", example)]
pub struct PaymentBody {
    /// `pm_card_declined` is declined. Any other method is approved, and so is leaving it out.
    #[oai(validator(max_length = 255))]
    pub payment_method: Option<String>,
}

/// PENDING until it is settled, cancelled or expired, then PAID or FAILED. A PAID or FAILED order does not change any more.
#[derive(Clone, Copy, Debug, Enum, Serialize)]
#[oai(rename = "OrderStatus", rename_all = "UPPERCASE")]
#[serde(rename_all = "UPPERCASE")]
pub enum StatusBody {
    Pending,
    Paid,
    Failed,
}

/// An order with its lines.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Order", example)]
pub struct OrderBody {
    /// A UUID (version 7).
    order_id: Uuid,
    /// Whose order it is.
    user_id: i64,
    /// PENDING until it is settled.
    status: AsStored<StatusBody, &'static str>,
    /// The sum over the lines, in the currency's minor unit.
    #[oai(validator(minimum(value = "0")))]
    total_price: i64,
    /// ISO 4217.
    #[oai(validator(max_length = 3, pattern = "^[A-Z]{3}$"))]
    currency: String,
    /// When the order was created.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// The lines, as they were sent.
    #[oai(validator(min_items = 1, max_items = 100))]
    items: Vec<ItemBody>,
    /// When its hold ends. If no payment is accepted before, it becomes FAILED then.
    #[oai(skip_serializing_if_is_none)]
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    expires_at: Option<OffsetDateTime>,
    /// When the payment was accepted.
    #[oai(skip_serializing_if_is_none)]
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    accepted_at: Option<OffsetDateTime>,
    /// When it became PAID or FAILED.
    #[oai(skip_serializing_if_is_none)]
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    settled_at: Option<OffsetDateTime>,
    /// Why it is FAILED.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<AsStored<FailureBody, StoredFailure>>,
}

/// A page of orders, newest first.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "OrderPage", example)]
pub struct OrderPageBody {
    /// The orders of this page.
    #[oai(validator(max_items = 200))]
    items: Vec<OrderBody>,
    /// Send this as `cursor` to get the next page; null on the last one.
    next_cursor: Option<Uuid>,
}

/// A line of an order.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "OrderItem")]
pub struct ItemBody {
    /// The line's id.
    id: i64,
    /// A product of the catalogue.
    product_id: i64,
    /// Units.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    quantity: i64,
    /// The catalogue's price when the order was created, in the currency's minor unit.
    #[oai(validator(minimum(value = "0")))]
    unit_price: i64,
}

impl ExtraValidation for NewOrderBody {
    fn errors(headers: &HeaderMap, body: &Value) -> Vec<FieldError> {
        let mut seen = HashSet::new();
        let repeated = |(index, item): (usize, &Value)| {
            let product = item["product_id"].as_i64()?;
            let first = seen.insert(product);
            (!first).then(|| FieldError {
                pointer: format!("/items/{index}/product_id"),
                detail: format!("product {product} is in the order already; give it one line"),
            })
        };

        let items = body["items"].as_array().into_iter().flatten();
        let bad_key = IdempotencyKey::read(headers).err();
        items.enumerate().filter_map(repeated).chain(bad_key).collect()
    }
}

impl ExtraValidation for PaymentBody {
    const BODY_OPTIONAL: bool = true;
}

impl NewItemBody {
    pub fn line(&self) -> Line {
        Line {
            product_id: self.product_id,
            quantity: self.quantity,
        }
    }
}

impl From<StatusBody> for OrderStatus {
    fn from(status: StatusBody) -> Self {
        match status {
            StatusBody::Pending => Self::Pending,
            StatusBody::Paid => Self::Paid,
            StatusBody::Failed => Self::Failed,
        }
    }
}

impl From<OrderPage> for OrderPageBody {
    fn from(page: OrderPage) -> Self {
        let last = page.orders.last().filter(|_| page.more);
        Self {
            next_cursor: last.map(|last| last.row.id),
            items: page.orders.into_iter().map(OrderBody::from).collect(),
        }
    }
}

impl From<Order> for OrderBody {
    fn from(order: Order) -> Self {
        let Order { row, items } = order;
        let items = items.into_iter().map(|item| ItemBody {
            id: item.id,
            product_id: item.product_id,
            quantity: item.quantity,
            unit_price: item.unit_price,
        });

        Self {
            order_id: row.id,
            user_id: row.user_id,
            status: AsStored::new(row.status.as_str()),
            total_price: row.total_price,
            currency: row.currency,
            created_at: row.created_at.to_utc(),
            items: items.collect(),
            expires_at: row.expires_at.map(Timestamp::to_utc),
            accepted_at: row.accepted_at.map(Timestamp::to_utc),
            settled_at: row.settled_at.map(Timestamp::to_utc),
            failure: row.failure.map(AsStored::new),
        }
    }
}

impl Example for NewOrderBody {
    fn example() -> Self {
        let item = |product_id, quantity| NewItemBody { product_id, quantity };
        Self {
            user_id: 1,
            items: vec![item(1, 2), item(2, 1)],
            hold_seconds: Some(600),
        }
    }
}

impl Example for PaymentBody {
    fn example() -> Self {
        Self {
            payment_method: Some("pm_card_visa".to_owned()),
        }
    }
}

impl Example for OrderBody {
    fn example() -> Self {
        let item = |id, product_id, quantity, unit_price| ItemBody {
            id,
            product_id,
            quantity,
            unit_price,
        };

        Self {
            order_id: EXAMPLE_ORDER,
            user_id: 1,
            status: AsStored::new(OrderStatus::Pending.as_str()),
            total_price: 10_600,
            currency: "USD".to_owned(),
            created_at: time::macros::datetime!(2026-01-15 09:31:02.123456 UTC),
            items: vec![item(1, 1, 2, 3_460), item(2, 2, 1, 3_680)],
            expires_at: Some(time::macros::datetime!(2026-01-15 09:41:02.123456 UTC)),
            accepted_at: None,
            settled_at: None,
            failure: None,
        }
    }
}

impl Example for OrderPageBody {
    fn example() -> Self {
        let [_, settled] = OrderBody::examples();
        Self {
            next_cursor: Some(settled.order_id),
            items: vec![settled],
        }
    }
}

impl OrderBody {
    /// The example once it is cancelled.
    pub fn cancelled_example() -> Self {
        let failure = Failure {
            reason: FailureReason::Cancelled,
            lines: Vec::new(),
        };
        Self {
            status: AsStored::new(OrderStatus::Failed.as_str()),
            settled_at: Some(time::macros::datetime!(2026-01-15 09:31:40.500001 UTC)),
            failure: Some(AsStored::new(failure.into())),
            ..Self::example()
        }
    }

    /// The example once its payment is accepted, and once it is settled.
    pub fn examples() -> [Self; 2] {
        let accepted_at = Some(time::macros::datetime!(2026-01-15 09:31:40.500001 UTC));
        let settled_at = Some(time::macros::datetime!(2026-01-15 09:31:40.508127 UTC));

        let accepted = Self {
            accepted_at,
            ..Self::example()
        };
        let settled = Self {
            accepted_at,
            settled_at,
            status: AsStored::new(OrderStatus::Paid.as_str()),
            ..Self::example()
        };

        [accepted, settled]
    }
}
