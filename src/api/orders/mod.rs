//! Making orders, paying them, looking at them, waiting for them.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use poem::{Request, http::HeaderMap};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Path, Query},
    payload::EventStream,
};
use uuid::Uuid;

pub mod bodies;
mod waiting;

use bodies::{NewItemBody, NewOrderBody, OrderBody, OrderPageBody, PaymentBody, StatusBody};
pub use waiting::{applied, preferred_wait};

use super::READ_TIMEOUT;
use super::{Tag, auth::layer::caller};
use crate::{
    app::App,
    cache::SettledOrder,
    domain::{
        Error, OrderId,
        orders::{self, MAX_PAGE, Order, OrderQuery},
    },
    entities::{Timestamp, order::OrderStatus},
    http::{
        json::{RawJson, ValidJson},
        problem::{FieldError, Problem, problems},
        trace::TraceParent,
    },
    intake::OrderIntake,
    tasks::order_watch::{OrderWatch, Progress},
};

/// The payment method that is always declined.
const DECLINED: &str = "pm_card_declined";

pub struct OrdersApi {
    pub app: Option<App>,
    pub desk: Option<OrderIntake>,
    pub watch: Option<OrderWatch>,
}

#[derive(ApiResponse)]
pub enum CreateAnswer {
    /// The order was made, or had been made before under the same Idempotency-Key.
    #[oai(status = 201)]
    Created(
        RawJson<OrderBody>,
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
    Order(
        RawJson<OrderBody>,
        /// `wait=N` if `Prefer: wait=N` was heeded (RFC 7240).
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
pub enum ListAnswer {
    /// A page of orders.
    #[oai(status = 200)]
    Page(RawJson<OrderPageBody>),
}

#[derive(ApiResponse)]
pub enum EventsAnswer {
    /// The order as it is, then again after every change, until it is settled. An event is called `order`.
    #[oai(status = 200)]
    Events(EventStream<BoxStream<'static, OrderBody>>),
}

#[derive(ApiResponse)]
pub enum PayAnswer {
    /// The order has been paid and settled already.
    #[oai(status = 200)]
    Paid(
        RawJson<OrderBody>,
        /// `wait=N` if `Prefer: wait=N` was heeded (RFC 7240).
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
    /// The payment is accepted, and the order will be settled.
    #[oai(status = 202)]
    Accepted(
        RawJson<OrderBody>,
        /// Where the order is.
        #[oai(header = "Location")]
        String,
        /// `wait=N` if `Prefer: wait=N` was heeded (RFC 7240).
        #[oai(header = "Preference-Applied")]
        Option<String>,
    ),
}

problems!(CreateProblem:
    InvalidRequest, Unauthorized, Forbidden, RequestTimeout, PayloadTooLarge, UnsupportedMediaType, UnknownProduct, TotalTooLarge, IdempotencyKeyReused,
    TooManyRequests, Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(FindProblem:
    InvalidRequest, Unauthorized, NotFound, TooManyRequests, Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(ListProblem:
    InvalidRequest, Unauthorized, Forbidden, TooManyRequests, Internal, Overloaded, DatabaseUnavailable, Timeout);
problems!(PayProblem:
    InvalidRequest, Unauthorized, PaymentDeclined, NotFound, RequestTimeout, OrderFailed, PayloadTooLarge, UnsupportedMediaType,
    TooManyRequests, Internal, Overloaded, DatabaseUnavailable, Timeout);

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
        body: ValidJson<NewOrderBody>,
    ) -> Result<CreateAnswer, CreateProblem> {
        let app = super::wired(self.app.as_ref())?;
        caller(request)?.authorize_for(body.0.user_id)?;
        let new = orders::NewOrder {
            id: Uuid::now_v7(),
            user_id: body.0.user_id,
            lines: body.0.items.iter().map(NewItemBody::line).collect(),
            currency: app.config.catalog.currency.clone(),
            idempotency_key: idempotency_key(request.headers()).map_err(|fault| Problem::faults(vec![fault]))?,
            created_at: Timestamp::now(),
        };
        let created = super::wired(self.desk.as_ref())?.create(new).await?;
        let location = location(created.order.row.id);
        let replayed = created.replayed.then(|| "true".to_owned());
        Ok(CreateAnswer::Created(ready(created.order)?, location, replayed))
    }

    /// List orders
    ///
    /// Newest first, a page at a time. Of one's own orders; an administrator sees everybody's.
    #[oai(path = "/orders", method = "get", operation_id = "listOrders")]
    async fn list(
        &self,
        request: &Request,
        /// Only orders of this user.
        #[oai(validator(minimum(value = "1")))]
        user_id: Query<Option<i64>>,
        /// Only orders with this status.
        status: Query<Option<StatusBody>>,
        /// How many orders to a page.
        #[oai(default = "default_page", validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<i64>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<ListAnswer, ListProblem> {
        let app = super::wired(self.app.as_ref())?;
        let query = &OrderQuery {
            user_id: user_id.0,
            status: status.0.map(OrderStatus::from),
            limit: u64::try_from(limit.0).unwrap_or(MAX_PAGE).min(MAX_PAGE),
            before: cursor.0,
        };
        let caller = caller(request)?;
        let list = app.db.snapshot(Some(READ_TIMEOUT), |txn| async move {
            orders::list(&*txn, caller, query).await
        });
        let page = app.db.timeout(READ_TIMEOUT, list).await?;
        let body = super::to_json(&OrderPageBody::from(page))?;
        Ok(ListAnswer::Page(RawJson::new(body)))
    }

    /// Pay an order
    ///
    /// Simulates the payment and hands the order to the workers. `202` means that the payment is accepted for good:
    /// the order will become `PAID`, or `FAILED` if there is not enough stock. Paying again changes nothing. With
    /// `Prefer: wait=N` the answer comes when the order is settled: `200` if it is PAID, `409` if it has FAILED, and
    /// `202` if neither is so after N seconds.
    #[oai(path = "/orders/:id/pay", method = "post", operation_id = "payOrder")]
    async fn pay(
        &self,
        request: &Request,
        /// The order's id.
        id: Path<Uuid>,
        /// W3C Trace Context; handed on with the message.
        #[oai(name = "traceparent")]
        _traceparent: Header<Option<String>>,
        /// `wait=N`: answer once the order is settled, after N seconds at most, 30 if N is more (RFC 7240).
        #[oai(name = "Prefer")]
        _prefer: Header<Option<String>>,
        body: ValidJson<PaymentBody>,
    ) -> Result<PayAnswer, PayProblem> {
        let (app, caller) = (super::wired(self.app.as_ref())?, caller(request)?);
        if body.0.payment_method.as_deref() == Some(DECLINED) {
            let order = app
                .db
                .timeout(READ_TIMEOUT, orders::find(app.db.read(), caller, id.0))
                .await?;
            if order.row.status == OrderStatus::Pending && order.row.accepted_at.is_none() {
                return Err(Error::PaymentDeclined.into());
            }
            // It has been paid already, by another card.
        }
        let traceparent = request.data::<TraceParent>().map(|handed_on| handed_on.0.clone());
        // Whoever waits begins before the order can be settled.
        let (wait, watcher) = self.watcher(request, id.0).await;
        let order = super::wired(self.desk.as_ref())?
            .accept_payment(caller, id.0, traceparent)
            .await?;
        if let Some(watch) = &self.watch {
            watch.notify(id.0, Progress::Accepted);
        }
        match watcher {
            Some(watcher) if order.row.status == OrderStatus::Pending => {
                // Accepted it is, whatever becomes of the waiting.
                let settled = waiting::until_settled(app, caller, watcher, wait).await;
                paid_answer(settled.unwrap_or(order), applied(wait))
            }
            _ => paid_answer(order, None),
        }
    }

    /// Find an order
    ///
    /// As it is now. PAID and FAILED are for ever. With `Prefer: wait=N`, as it is once it is settled.
    #[oai(path = "/orders/:id", method = "get", operation_id = "findOrder")]
    async fn find(
        &self,
        request: &Request,
        /// The order's id.
        id: Path<Uuid>,
        /// `wait=N`: answer once the order is settled, after N seconds at most, 30 if N is more (RFC 7240).
        #[oai(name = "Prefer")]
        _prefer: Header<Option<String>>,
    ) -> Result<FindAnswer, FindProblem> {
        let (app, caller) = (super::wired(self.app.as_ref())?, caller(request)?);
        if let Some(known) = app.cache.settled_order(id.0).await {
            if !caller.can_view(known.user_id) {
                return Err(Error::OrderNotFound(id.0).into());
            }
            return Ok(FindAnswer::Order(RawJson::new(known.body), None));
        }
        let (wait, watcher) = self.watcher(request, id.0).await;
        let (order, applied) = match watcher {
            Some(watcher) => (waiting::until_settled(app, caller, watcher, wait).await?, applied(wait)),
            None => (
                app.db
                    .timeout(READ_TIMEOUT, orders::find(app.db.read(), caller, id.0))
                    .await?,
                None,
            ),
        };
        let (user_id, settled) = (order.row.user_id, order.row.status != OrderStatus::Pending);
        let body = to_bytes(order)?;
        if settled {
            let order = SettledOrder {
                user_id,
                body: body.clone(),
            };
            app.cache.put_settled_order(id.0, order).await;
        }
        Ok(FindAnswer::Order(RawJson::new(body), applied))
    }

    /// Follow an order
    ///
    /// Server-sent events: the order as it is, then again after every change, until it is settled or five minutes have
    /// passed. Close the stream when the order is PAID or FAILED: nothing more will come.
    #[oai(path = "/orders/:id/events", method = "get", operation_id = "followOrder")]
    async fn events(
        &self,
        request: &Request,
        /// The order's id.
        id: Path<Uuid>,
    ) -> Result<EventsAnswer, FindProblem> {
        let (app, caller) = (super::wired(self.app.as_ref())?, caller(request)?);
        let watch = super::wired(self.watch.as_ref())?;
        // Before a stream is begun, so that who may not see the order is told so by the status.
        app.db
            .timeout(READ_TIMEOUT, orders::find(app.db.read(), caller, id.0))
            .await?;
        let watcher = watch.subscribe(id.0).ok_or(Error::Overloaded)?;
        Ok(EventsAnswer::Events(waiting::stream(app.clone(), caller, watcher)))
    }
}

impl OrdersApi {
    /// A watcher, if the request would rather wait and there is a place for it to do so.
    async fn watcher(
        &self,
        request: &Request,
        id: OrderId,
    ) -> (std::time::Duration, Option<crate::tasks::order_watch::Subscription>) {
        let wait = preferred_wait(request.headers());
        let watcher = wait.and_then(|_| self.watch.as_ref()?.subscribe(id));
        if let Some(watcher) = &watcher {
            watcher.until_listening().await;
        }
        (wait.unwrap_or_default(), watcher)
    }
}

fn paid_answer(order: Order, applied: Option<String>) -> Result<PayAnswer, PayProblem> {
    let id = order.row.id;
    match order.row.status {
        OrderStatus::Pending => Ok(PayAnswer::Accepted(ready(order)?, location(id), applied)),
        OrderStatus::Paid => Ok(PayAnswer::Paid(ready(order)?, applied)),
        OrderStatus::Failed => Err(Error::OrderFailed(id, order.row.failure).into()),
    }
}

fn default_page() -> i64 {
    50
}

fn location(id: OrderId) -> String {
    format!("/orders/{id}")
}

/// One key of up to 255 visible ASCII characters. Read as it was sent: the framework takes a value that is not ASCII for
/// none at all, and whoever sent it would believe that the order is safe to repeat.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, FieldError> {
    let mut keys = headers.get_all("idempotency-key").iter();
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
    Err(FieldError {
        pointer: "/header/Idempotency-Key".to_owned(),
        detail: "`Idempotency-Key` must be one key of 1 to 255 visible ASCII characters".to_owned(),
    })
}

fn ready(order: Order) -> Result<RawJson<OrderBody>, Error> {
    Ok(RawJson::new(to_bytes(order)?))
}

fn to_bytes(order: Order) -> Result<Bytes, Error> {
    super::to_json(&OrderBody::from(order))
}
