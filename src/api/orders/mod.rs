//! Making orders, paying them, looking at them.

use bytes::Bytes;
use poem::Request;
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path},
};
use uuid::Uuid;

pub mod bodies;

use bodies::{NewItemBody, NewOrderBody, OrderBody, PaymentBody};

use super::{
    Tag,
    desk::Desk,
    payload::{Checked, Ready},
    problem::{Problem, problems},
};
use crate::{
    app::App,
    cache::SettledOrder,
    domain::{
        Error, OrderId,
        orders::{self, Order},
    },
    entities::{Micros, order::OrderStatus},
};

/// The payment method that is always declined.
const DECLINED: &str = "pm_card_declined";

pub struct OrdersApi {
    pub app: Option<App>,
    pub desk: Option<Desk>,
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
    Accepted(
        Ready<OrderBody>,
        /// Where the order is.
        #[oai(header = "Location")]
        String,
    ),
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
        request: &Request,
        /// Makes it safe to send the request again: the same key and body give the first answer again.
        #[oai(name = "Idempotency-Key")]
        _idempotency_key: Header<Option<String>>,
        body: Checked<NewOrderBody>,
    ) -> Result<CreateAnswer, CreateProblem> {
        let app = super::wired(self.app.as_ref())?;
        let new = orders::NewOrder {
            id: Uuid::now_v7(),
            user_id: body.0.user_id,
            lines: body.0.items.iter().map(NewItemBody::line).collect(),
            currency: app.config.currency.clone(),
            idempotency_key: idempotency_key(request)?,
            created_at: Micros::now(),
        };
        let created = super::wired(self.desk.as_ref())?.create(new).await?;
        let location = location(created.order.order.id);
        let replayed = created.replayed.then(|| "true".to_owned());
        Ok(CreateAnswer::Created(ready(created.order)?, location, replayed))
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

    /// Find an order
    ///
    /// As it is now. PAID and FAILED are for ever.
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

/// One key of up to 255 visible ASCII characters. Read as it was sent: the framework takes a value that is not ASCII for
/// none at all, and whoever sent it would believe that the order is safe to repeat.
fn idempotency_key(request: &Request) -> Result<Option<String>, Problem> {
    let mut keys = request.headers().get_all("idempotency-key").iter();
    let (Some(key), another) = (keys.next(), keys.next()) else {
        return Ok(None);
    };
    let readable = key
        .to_str()
        .ok()
        .filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic()));
    if let (Some(key), None) = (readable, another)
        && (1..=255).contains(&key.len())
    {
        return Ok(Some(key.to_owned()));
    }
    let detail = "`Idempotency-Key` must be one key of 1 to 255 visible ASCII characters";
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
