//! Creating orders, paying and cancelling them, reading them, and waiting for them.

use std::{sync::Arc, time::Duration};

use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

pub mod answers;
pub mod bodies;
mod cached;
mod waiting;

use answers::{
    CancelAnswer, CancelProblem, CreateAnswer, CreateProblem, EventsAnswer, FindAnswer, FindProblem, ListAnswer,
    ListProblem, PayAnswer, PayProblem,
};
use bodies::{NewItemBody, NewOrderBody, OrderBody, OrderPageBody, PaymentBody, StatusBody};
pub use cached::CachedOrders;
use waiting::{Wait, event_id};

use super::{READ_TIMEOUT, Tag};
use crate::{
    app::App,
    cache::SettledOrder,
    domain::{
        Caller, Error, OrderId,
        ids::new_id,
        orders::{self, Labels, MAX_PAGE, Order, OrderQuery, Payment},
        transition::{Action, Change, transition},
    },
    entities::{Timestamp, order::OrderStatus},
    http::{
        conditional::IfNoneMatch,
        event_stream::LastEventId,
        header::Header,
        idempotency::IdempotencyKey,
        json::{self, NoBody, RawJson, ValidJson},
        prefer::{Prefer, wait_applied},
        trace::TraceParent,
    },
    intake::OrderIntake,
    tasks::order_watch::{OrderWatch, Progress},
};

/// The payment method that is always declined.
const DECLINED: &str = "pm_card_declined";

pub struct OrdersApi;

#[OpenApi(tag = "Tag::Orders")]
impl OrdersApi {
    /// Create an order
    ///
    /// The order is `PENDING` and keeps the catalogue's prices of this moment. With `hold_seconds` its units are set aside
    /// until `expires_at`, or the answer is `409` with the lines that are short and nothing is stored. Without it, stock is
    /// checked when the order is settled.
    #[oai(path = "/orders", method = "post", operation_id = "createOrder")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        intake: Data<&OrderIntake>,
        caller: Caller,
        body: ValidJson<NewOrderBody>,
        /// Makes it safe to send the request again: the same key and body give the first answer again.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<IdempotencyKey>,
    ) -> Result<CreateAnswer, CreateProblem> {
        let ValidJson(body) = body;
        let Header(IdempotencyKey(idempotency_key)) = idempotency_key;
        caller.authorize_for(body.user_id)?;

        let (id, created_at) = new_id(app.db.time());
        let new = orders::NewOrder {
            id,
            user_id: body.user_id,
            lines: body.items.iter().map(NewItemBody::line).collect(),
            currency: app.config.catalog.currency.clone(),
            idempotency_key,
            hold: body.hold_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            labels: Labels {
                reference: body.reference,
                metadata: body.metadata.map(|metadata| json!(metadata)),
            },
            created_at,
        };
        let created = intake.create(new).await?;

        let location = location(created.order.row.id);
        let replayed = created.replayed.then(|| "true".to_owned());
        Ok(CreateAnswer::Created(to_json(created.order)?, location, replayed))
    }

    /// List orders
    ///
    /// Newest first, a page at a time. A user lists their own orders, an administrator all orders.
    #[oai(path = "/orders", method = "get", operation_id = "listOrders")]
    #[expect(clippy::too_many_arguments, reason = "each is an extractor that the handler uses")]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        caller: Caller,
        /// Only orders of this user.
        #[oai(validator(minimum(value = "1")))]
        user_id: Query<Option<i64>>,
        /// Only orders with this status.
        status: Query<Option<StatusBody>>,
        /// The number of orders on a page.
        #[oai(default = "default_page", validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<i64>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
        /// Only orders with this reference: of one user there is one at most.
        #[oai(validator(min_length = 1, max_length = 64, pattern = "^[!-~]*$"))]
        reference: Query<Option<String>>,
        /// Only orders created at this time or later.
        created_from: Query<Option<OffsetDateTime>>,
        /// Only orders created before this time.
        created_to: Query<Option<OffsetDateTime>>,
    ) -> Result<ListAnswer, ListProblem> {
        let query = &OrderQuery {
            user_id: user_id.0,
            status: status.0.map(OrderStatus::from),
            reference: reference.0,
            created_from: created_from.0.map(Timestamp::not_before),
            created_to: created_to.0.map(Timestamp::not_before),
            limit: u64::try_from(limit.0).unwrap_or(MAX_PAGE).min(MAX_PAGE),
            before: cursor.0,
        };

        let list = app.db.snapshot(Some(READ_TIMEOUT), |txn| async move {
            orders::list(&*txn, caller, query).await
        });
        let page = app.db.timeout(READ_TIMEOUT, list).await?;

        Ok(ListAnswer::Page(RawJson::of(&OrderPageBody::from(page))?))
    }

    /// Pay an order
    ///
    /// Simulates the payment and hands the order to the workers. `202` means that the payment is accepted for good:
    /// the order will become `PAID`, or `FAILED` if there is not enough stock, which an order that is paid before its
    /// `expires_at` never lacks. After `expires_at` the answer is `409`. Paying again changes nothing. A
    /// `payment_reference` pays one order only: `409` if it has paid another one. With
    /// `Prefer: wait=N` the answer comes when the order is settled: `200` if it is PAID, `409` if it has FAILED, and
    /// `202` if it is not settled after N seconds.
    #[oai(path = "/orders/:id/pay", method = "post", operation_id = "payOrder")]
    #[expect(clippy::too_many_arguments, reason = "each is an extractor that the handler uses")]
    async fn pay(
        &self,
        app: Data<&Arc<App>>,
        intake: Data<&OrderIntake>,
        watch: Data<&OrderWatch>,
        caller: Caller,
        /// The order's id.
        id: Path<Uuid>,
        /// W3C Trace Context; passed on with the message.
        #[oai(name = "traceparent")]
        traceparent: Header<TraceParent>,
        /// `wait=N`: answer once the order is settled, after N seconds at most, 30 if N is more (RFC 7240).
        #[oai(name = "Prefer")]
        prefer: Header<Prefer>,
        body: ValidJson<PaymentBody>,
    ) -> Result<PayAnswer, PayProblem> {
        if body.0.payment_method.as_deref() == Some(DECLINED) {
            decline_unless_accepted(&app, caller, id.0).await?;
        }

        // Subscribed before the order can be settled.
        let wait = Wait::start(&watch, id.0, prefer.0).await;
        let Header(TraceParent(traceparent)) = traceparent;
        let payment = Payment {
            caller,
            order_id: id.0,
            reference: body.0.payment_reference,
        };
        let accepted = intake.accept_payment(payment, traceparent).await?;
        watch.notify(id.0, progress_of(&accepted));

        match wait {
            Some(wait) if accepted.row.status == OrderStatus::Pending => {
                let applied = wait.applied();
                let settled = wait.until_settled(&app, caller, accepted.clone()).await;
                // The payment is accepted even if the waiting fails.
                pay_answer(settled.unwrap_or(accepted), Some(applied))
            }
            _ => pay_answer(accepted, None),
        }
    }

    /// Cancel an order
    ///
    /// For its user or an administrator. The order becomes `FAILED` with the reason `cancelled`, and what it held is
    /// available again: `202`, or `200` with `Prefer: wait=N` or if it was cancelled before. Once its payment is accepted
    /// it cannot be cancelled any more: `409`.
    #[oai(path = "/orders/:id/cancel", method = "post", operation_id = "cancelOrder")]
    async fn cancel(
        &self,
        intake: Data<&OrderIntake>,
        watch: Data<&OrderWatch>,
        caller: Caller,
        /// The order's id.
        id: Path<Uuid>,
        /// `wait=N`: answer with the final order (RFC 7240).
        #[oai(name = "Prefer")]
        prefer: Header<Prefer>,
        _body: NoBody,
    ) -> Result<CancelAnswer, CancelProblem> {
        let cancelled = intake.cancel(caller, id.0).await?;
        watch.notify(id.0, Progress::Settled);

        let applied = prefer.0.wait.map(wait_applied);
        let body = to_json(cancelled.order)?;
        if applied.is_some() || !cancelled.newly_cancelled {
            return Ok(CancelAnswer::Cancelled(body, applied));
        }
        Ok(CancelAnswer::Accepted(body, location(id.0)))
    }

    /// Find an order
    ///
    /// As it is now, or with `Prefer: wait=N` once it is settled. A PAID or FAILED order does not change any more.
    #[oai(path = "/orders/:id", method = "get", operation_id = "getOrder")]
    async fn find(
        &self,
        app: Data<&Arc<App>>,
        watch: Data<&OrderWatch>,
        caller: Caller,
        /// The order's id.
        id: Path<Uuid>,
        /// `wait=N`: answer once the order is settled, after N seconds at most, 30 if N is more (RFC 7240).
        #[oai(name = "Prefer")]
        prefer: Header<Prefer>,
        /// The ETag of the order that the caller has.
        #[oai(name = "If-None-Match")]
        if_none_match: Header<IfNoneMatch>,
    ) -> Result<FindAnswer, FindProblem> {
        let current = app.cache.database_identity();
        if let Some(cached) = app.cache.settled_order(id.0).await {
            if !caller.can_view(cached.user_id) {
                return Err(Error::OrderNotFound(id.0).into());
            }
            return Ok(FindAnswer::new(cached.body, &if_none_match.0, None));
        }

        let wait = Wait::start(&watch, id.0, prefer.0).await;
        let applied = wait.as_ref().map(Wait::applied);
        let mut order = load(&app, caller, id.0).await?;
        if let Some(wait) = wait
            && order.row.status == OrderStatus::Pending
        {
            order = wait.until_settled(&app, caller, order).await?;
        }

        let (user_id, settled) = (order.row.user_id, order.row.status.is_final());
        let body = json::to_bytes(&OrderBody::from(order))?;
        if settled {
            let body = body.clone();
            let settled = SettledOrder { user_id, body };
            app.cache.put_settled_order(&current, id.0, settled).await;
        }
        Ok(FindAnswer::new(body, &if_none_match.0, applied))
    }

    /// Follow an order
    ///
    /// Server-sent events: the order as it is, then again after every change, until it is settled or five minutes have
    /// passed. An event is called `order`, and its data is an Order as JSON on one line. Nothing follows an order that is
    /// PAID or FAILED: close the stream then. A browser that reconnects all the same is answered `204`, and stops.
    #[oai(path = "/orders/:id/events", method = "get", operation_id = "followOrder")]
    async fn events(
        &self,
        app: Data<&Arc<App>>,
        watch: Data<&OrderWatch>,
        caller: Caller,
        /// The order's id.
        id: Path<Uuid>,
        /// The `id` of the event that was received last; a browser sends it by itself when it reconnects.
        #[oai(name = "Last-Event-ID")]
        last_event_id: Header<LastEventId>,
    ) -> Result<EventsAnswer, FindProblem> {
        // Before the stream starts, so that the status says so if the caller may not see the order.
        let order = load(&app, caller, id.0).await?;

        let Header(LastEventId(last_event_id)) = last_event_id;
        let is_settled = order.row.status != OrderStatus::Pending;
        if is_settled && last_event_id == Some(event_id(&order)) {
            return Ok(EventsAnswer::NothingToCome);
        }

        let subscription = watch.subscribe(id.0).ok_or(Error::Overloaded)?;
        let events = waiting::follow(app.0.clone(), caller, subscription, last_event_id);
        Ok(EventsAnswer::Events(events))
    }
}

/// # Errors
/// As [`orders::find`], and when the database does not answer within [`READ_TIMEOUT`].
async fn load(app: &App, caller: Caller, id: OrderId) -> Result<Order, Error> {
    app.db
        .timeout(READ_TIMEOUT, orders::find(app.db.read(), caller, id))
        .await
}

/// Declines the payment, unless the order cannot be paid: accepting the payment then says why.
async fn decline_unless_accepted(app: &App, caller: Caller, id: OrderId) -> Result<(), Error> {
    let order = load(app, caller, id).await?;
    if transition(&(&order.row).into(), Action::Pay, app.db.time()) == Ok(Change::Accept) {
        return Err(Error::PaymentDeclined);
    }
    Ok(())
}

fn progress_of(order: &Order) -> Progress {
    match order.row.status {
        OrderStatus::Pending => Progress::Accepted,
        OrderStatus::Paid | OrderStatus::Failed | OrderStatus::Other(_) => Progress::Settled,
    }
}

fn pay_answer(order: Order, applied: Option<String>) -> Result<PayAnswer, PayProblem> {
    let id = order.row.id;
    match order.row.status {
        OrderStatus::Pending => Ok(PayAnswer::Accepted(to_json(order)?, location(id), applied)),
        OrderStatus::Paid => Ok(PayAnswer::Paid(to_json(order)?, applied)),
        OrderStatus::Failed | OrderStatus::Other(_) => Err(Error::OrderFailed(id, order.row.failure).into()),
    }
}

pub(super) fn to_json(order: Order) -> serde_json::Result<RawJson<OrderBody>> {
    RawJson::of(&OrderBody::from(order))
}

fn default_page() -> i64 {
    50
}

pub(super) fn location(id: OrderId) -> String {
    format!("/orders/{id}")
}
