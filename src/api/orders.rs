//! Making orders, paying them, looking at them.

use std::collections::HashSet;

use bytes::Bytes;
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Header, Path},
    types::Example,
};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Tag,
    desk::Desk,
    payload::{Checked, Ready, Rules},
    problem::{FaultBody, Problem, problems},
};
use crate::{
    app::App,
    cache::SettledOrder,
    domain::{
        Error, OrderId,
        orders::{self, Line, Order},
    },
    entities::{
        Micros,
        order::{Failure, FailureReason, OrderStatus},
    },
};

/// The payment method that is always declined.
const DECLINED: &str = "pm_card_declined";

pub struct OrdersApi {
    pub app: Option<App>,
    pub desk: Option<Desk>,
}

/// An order to be made.
#[derive(Debug, Object)]
#[oai(rename = "NewOrder", example)]
pub struct NewOrderBody {
    /// Whose order it is.
    #[oai(validator(minimum(value = "1")))]
    user_id: i64,
    /// 1 to 100 lines, every product once.
    #[oai(validator(min_items = 1, max_items = 100))]
    items: Vec<NewItemBody>,
}

/// A line of an order to be made.
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
    /// `pm_card_declined` is declined, everything else is approved, and so is nothing.
    #[oai(validator(max_length = 255))]
    payment_method: Option<String>,
}

/// PENDING until it is settled, then PAID or FAILED for ever.
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
    /// A UUID of version 7.
    order_id: Uuid,
    /// Whose order it is.
    user_id: i64,
    status: StatusBody,
    /// The sum over the lines, in the currency's minor unit.
    #[oai(validator(minimum(value = "0")))]
    total_price: i64,
    /// ISO 4217.
    currency: String,
    /// When the order was made.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// The lines, in the order in which they were asked for.
    items: Vec<ItemBody>,
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
    failure: Option<FailureBody>,
}

/// A line of an order.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "OrderItem")]
pub struct ItemBody {
    /// Of the line itself.
    id: i64,
    product_id: i64,
    /// Units.
    quantity: i64,
    /// The catalogue's price when the order was made, in the currency's minor unit.
    unit_price: i64,
}

/// Why an order has failed.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Failure")]
pub struct FailureBody {
    reason: ReasonBody,
    /// The lines that were short. Nothing was taken for any line.
    lines: Vec<ShortLineBody>,
}

#[derive(Clone, Copy, Debug, Enum, Serialize)]
#[oai(rename = "FailureReason", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ReasonBody {
    InsufficientStock,
}

/// A line that could not be served.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "ShortLine")]
pub struct ShortLineBody {
    product_id: i64,
    /// Units that the order asked for.
    requested: i64,
    /// Units that were there when its turn came.
    available: i64,
}

#[derive(ApiResponse)]
pub enum CreateAnswer {
    /// The order was made, or had been made before under the same Idempotency-Key.
    #[oai(status = 201)]
    Created(
        Ready<OrderBody>,
        /// Where the order is.
        #[oai(header = "Location")]
        String,
        /// `true` when this is the first answer again.
        #[oai(header = "Idempotent-Replayed")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
pub enum FindAnswer {
    /// The order.
    #[oai(status = 200)]
    Order(Ready<OrderBody>),
}

#[derive(ApiResponse)]
pub enum PayAnswer {
    /// The order has been paid and settled already.
    #[oai(status = 200)]
    Paid(Ready<OrderBody>),
    /// The payment is accepted, and the order will be settled.
    #[oai(status = 202)]
    Accepted(Ready<OrderBody>, #[oai(header = "Location")] String),
}

problems!(CreateProblem:
    InvalidRequest, RequestTimeout, PayloadTooLarge, UnsupportedMediaType, UnknownProduct, TotalTooLarge, IdempotencyKeyReused,
    Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(FindProblem: InvalidRequest, NotFound, Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(PayProblem:
    InvalidRequest, PaymentDeclined, NotFound, RequestTimeout, OrderFailed, PayloadTooLarge, UnsupportedMediaType,
    Internal, Overloaded, DatabaseUnavailable, Timeout);

#[OpenApi(tag = "Tag::Orders")]
impl OrdersApi {
    /// Make an order
    ///
    /// The order is `PENDING` and keeps the catalogue's prices of this moment. Stock is looked at when it is settled.
    #[oai(path = "/orders", method = "post", operation_id = "createOrder")]
    async fn create(
        &self,
        /// Makes it safe to send the request again: the same key and body give the first answer again.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<Option<String>>,
        body: Checked<NewOrderBody>,
    ) -> Result<CreateAnswer, CreateProblem> {
        let app = super::wired(self.app.as_ref())?;
        let new = orders::NewOrder {
            id: Uuid::now_v7(),
            user_id: body.0.user_id,
            lines: body.0.items.iter().map(NewItemBody::line).collect(),
            currency: app.config.currency.clone(),
            idempotency_key: check_key(idempotency_key.0)?,
            created_at: Micros::now(),
        };
        let created = super::wired(self.desk.as_ref())?.create(new).await?;
        let location = location(created.order.order.id);
        let replayed = created.replayed.then(|| "true".to_owned());
        Ok(CreateAnswer::Created(ready(created.order)?, location, replayed))
    }

    /// Find an order
    #[oai(path = "/orders/:id", method = "get", operation_id = "findOrder")]
    async fn find(
        &self,
        /// The order's id.
        id: Path<Uuid>,
    ) -> Result<FindAnswer, FindProblem> {
        let app = super::wired(self.app.as_ref())?;
        if let Some(known) = app.cache.settled_order(id.0).await {
            return Ok(FindAnswer::Order(Ready::new(known.body)));
        }
        let order = super::in_time(orders::find(app.db.read(), id.0)).await?;
        let (user_id, settled) = (order.order.user_id, order.order.status != OrderStatus::Pending);
        let body = to_bytes(order)?;
        if settled {
            let order = SettledOrder {
                user_id,
                body: body.clone(),
            };
            app.cache.keep_settled_order(id.0, order).await;
        }
        Ok(FindAnswer::Order(Ready::new(body)))
    }

    /// Pay an order
    ///
    /// Simulates the payment and hands the order to the workers. `202` means that the payment is accepted for good:
    /// the order will become `PAID`, or `FAILED` if there is not enough stock. Paying again changes nothing.
    #[oai(path = "/orders/:id/pay", method = "post", operation_id = "payOrder")]
    async fn pay(
        &self,
        /// The order's id.
        id: Path<Uuid>,
        /// W3C Trace Context; handed on with the message.
        traceparent: Header<Option<String>>,
        body: Checked<PaymentBody>,
    ) -> Result<PayAnswer, PayProblem> {
        let app = super::wired(self.app.as_ref())?;
        if body.0.payment_method.as_deref() == Some(DECLINED) {
            let order = super::in_time(orders::find(app.db.read(), id.0)).await?;
            if order.order.status == OrderStatus::Pending && order.order.accepted_at.is_none() {
                return Err(Error::PaymentDeclined.into());
            }
            return paid_answer(order);
        }
        let traceparent = traceparent.0.filter(|value| is_traceparent(value));
        let order = super::wired(self.desk.as_ref())?
            .accept_payment(id.0, traceparent)
            .await?;
        paid_answer(order)
    }
}

fn paid_answer(order: Order) -> Result<PayAnswer, PayProblem> {
    let id = order.order.id;
    match order.order.status {
        OrderStatus::Pending => Ok(PayAnswer::Accepted(ready(order)?, location(id))),
        OrderStatus::Paid => Ok(PayAnswer::Paid(ready(order)?)),
        OrderStatus::Failed => Err(Error::OrderFailed(id).into()),
    }
}

fn location(id: OrderId) -> String {
    format!("/orders/{id}")
}

/// Up to 255 visible ASCII characters.
fn check_key(key: Option<String>) -> Result<Option<String>, Problem> {
    let Some(key) = key else { return Ok(None) };
    if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(key));
    }
    let detail = "`Idempotency-Key` must be 1 to 255 visible ASCII characters";
    Err(Problem::fault("/header/Idempotency-Key", detail))
}

/// W3C Trace Context, version 00.
fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    parts[0] == "00"
        && lengths == [2, 32, 16, 2]
        && parts.iter().all(|part| hex(part))
        && parts[1..3].iter().all(|part| part.bytes().any(|byte| byte != b'0'))
}

fn ready(order: Order) -> Result<Ready<OrderBody>, Error> {
    Ok(Ready::new(to_bytes(order)?))
}

fn to_bytes(order: Order) -> Result<Bytes, Error> {
    super::to_json(&OrderBody::from(order))
}

impl Rules for NewOrderBody {
    fn faults(&self) -> Vec<FaultBody> {
        let mut seen = HashSet::new();
        let repeated = |(place, item): (usize, &NewItemBody)| {
            let first = seen.insert(item.product_id);
            (!first).then(|| FaultBody {
                pointer: format!("/items/{place}/product_id"),
                detail: format!("product {} is in the order already; give it one line", item.product_id),
            })
        };
        self.items.iter().enumerate().filter_map(repeated).collect()
    }
}

impl Rules for PaymentBody {
    const BODY_OPTIONAL: bool = true;
}

impl NewItemBody {
    fn line(&self) -> Line {
        Line {
            product_id: self.product_id,
            quantity: self.quantity,
        }
    }
}

impl From<Order> for OrderBody {
    fn from(order: Order) -> Self {
        let Order { order, items } = order;
        Self {
            order_id: order.id,
            user_id: order.user_id,
            status: match order.status {
                OrderStatus::Pending => StatusBody::Pending,
                OrderStatus::Paid => StatusBody::Paid,
                OrderStatus::Failed => StatusBody::Failed,
            },
            total_price: order.total_price,
            currency: order.currency,
            created_at: order.created_at.to_utc(),
            items: items
                .into_iter()
                .map(|item| ItemBody {
                    id: item.id,
                    product_id: item.product_id,
                    quantity: item.quantity,
                    unit_price: item.unit_price,
                })
                .collect(),
            accepted_at: order.accepted_at.map(Micros::to_utc),
            settled_at: order.settled_at.map(Micros::to_utc),
            failure: order.failure.map(FailureBody::from),
        }
    }
}

impl From<Failure> for FailureBody {
    fn from(failure: Failure) -> Self {
        let lines = failure.lines.into_iter().map(|line| ShortLineBody {
            product_id: line.product_id,
            requested: line.requested,
            available: line.available,
        });
        Self {
            reason: match failure.reason {
                FailureReason::InsufficientStock => ReasonBody::InsufficientStock,
            },
            lines: lines.collect(),
        }
    }
}

impl Example for NewOrderBody {
    fn example() -> Self {
        let item = |product_id, quantity| NewItemBody { product_id, quantity };
        Self {
            user_id: 1,
            items: vec![item(1, 2), item(2, 1)],
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
        Self {
            order_id: uuid::uuid!("019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11"),
            user_id: 1,
            status: StatusBody::Pending,
            total_price: 4_990,
            currency: "USD".to_owned(),
            created_at: time::macros::datetime!(2026-01-15 09:31:02.123456 UTC),
            items: vec![ItemBody {
                id: 1,
                product_id: 1,
                quantity: 1,
                unit_price: 4_990,
            }],
            accepted_at: None,
            settled_at: None,
            failure: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_is_handed_on() {
        assert!(is_traceparent(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ));
        for bad in [
            "",
            "00",
            "00-0-0-0",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        assert!(!is_traceparent(
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01"
        ));
        assert!(is_traceparent(&crate::queue::new_traceparent()));
    }
}
