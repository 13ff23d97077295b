//! The JSON bodies of requests about orders, and of their answers.

use std::collections::{HashMap, HashSet};

use poem::http::HeaderMap;
use poem_openapi::{Enum, Object, types::Example};
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    api::{errors::EXAMPLE_ORDER, failure::FailureBody},
    domain::orders::{Line, Order, OrderPage},
    entities::{
        Timestamp,
        order::{Failure, FailureReason, OrderStatus, StoredFailure},
    },
    http::{
        idempotency::IdempotencyKey,
        problem::FieldError,
        stored::AsStored,
        validation::{ExtraValidation, NO_NUL},
    },
};

/// The most fields of an order's metadata.
const MAX_FIELDS: usize = 20;
/// The most bytes of the names and values of an order's metadata.
const MAX_METADATA: usize = 4_096;

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
    /// What you call the order: 1 to 64 visible ASCII characters, unique for each user. It never changes.
    #[oai(validator(min_length = 1, max_length = 64, pattern = "^[!-~]*$"))]
    pub reference: Option<String>,
    /// What you want to keep with the order: at most 20 texts, whose names and values have 4,096 bytes together in UTF-8.
    /// It never changes.
    #[oai(validator(max_properties = 20))]
    pub metadata: Option<HashMap<String, String>>,
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
    /// The charge behind the payment, 1 to 255 visible ASCII characters. One charge never pays two orders.
    #[oai(validator(min_length = 1, max_length = 255, pattern = "^[!-~]*$"))]
    pub payment_reference: Option<String>,
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
    /// What the client calls it.
    #[oai(skip_serializing_if_is_none, validator(max_length = 64, pattern = "^[!-~]*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// What the client keeps with it.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<AsStored<HashMap<String, String>, Value>>,
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
    /// The charge that paid it, if it was named.
    #[oai(skip_serializing_if_is_none, validator(max_length = 255, pattern = "^[!-~]*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_reference: Option<String>,
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
    fn extend_schemas(schemas: &mut Map<String, Value>) {
        schemas.entry("NewOrder").and_modify(|schema| {
            let value = &mut schema["properties"]["metadata"]["additionalProperties"];
            value["maxLength"] = json!(MAX_METADATA);
            value["pattern"] = json!(NO_NUL);
        });
        schemas.entry("Order").and_modify(|schema| {
            let metadata = &mut schema["properties"]["metadata"];
            metadata["maxProperties"] = json!(MAX_FIELDS);
            metadata["additionalProperties"]["maxLength"] = json!(MAX_METADATA);
            metadata["additionalProperties"]["pattern"] = json!(NO_NUL);
        });
    }

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
        let repeated = items.enumerate().filter_map(repeated);
        repeated
            .chain(metadata_errors(&body["metadata"]))
            .chain(bad_key)
            .collect()
    }
}

/// What no schema says of metadata: how large it is altogether, and what its names are.
fn metadata_errors(metadata: &Value) -> Vec<FieldError> {
    let error = |detail: String| FieldError {
        pointer: "/metadata".to_owned(),
        detail,
    };
    let fields = || metadata.as_object().into_iter().flatten();

    let bytes = fields().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len));
    let too_large = bytes.sum::<usize>() > MAX_METADATA;
    let too_large = too_large.then(|| error(format!("names and values have more than {MAX_METADATA} bytes together")));
    // PostgreSQL cannot store it.
    let has_nul = fields().any(|(name, _)| name.contains('\0'));
    let has_nul = has_nul.then(|| error("a name must not hold the character U+0000".to_owned()));
    too_large.into_iter().chain(has_nul).collect()
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
            reference: row.reference,
            metadata: row.metadata.map(AsStored::new),
            payment_reference: row.payment_reference,
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
            reference: Some("basket-4711".to_owned()),
            metadata: Some([("gift_note".to_owned(), "Happy birthday!".to_owned())].into()),
        }
    }
}

impl Example for PaymentBody {
    fn example() -> Self {
        Self {
            payment_method: Some("pm_card_visa".to_owned()),
            payment_reference: Some("ch_3PqL8x".to_owned()),
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
            reference: Some("basket-4711".to_owned()),
            metadata: Some(AsStored::new(json!({ "gift_note": "Happy birthday!" }))),
            payment_reference: None,
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
        let payment_reference = || Some("ch_3PqL8x".to_owned());

        let accepted = Self {
            accepted_at,
            payment_reference: payment_reference(),
            ..Self::example()
        };
        let settled = Self {
            accepted_at,
            settled_at,
            payment_reference: payment_reference(),
            status: AsStored::new(OrderStatus::Paid.as_str()),
            ..Self::example()
        };

        [accepted, settled]
    }
}
