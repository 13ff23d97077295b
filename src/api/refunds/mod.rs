//! Refunding orders, and reading what was refunded.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use serde_json::json;
use uuid::Uuid;

pub mod answers;
pub mod bodies;

use answers::{CreateAnswer, CreateProblem, ListAnswer, ListProblem};
use bodies::{NewRefundBody, RefundBody, RefundPageBody};

use super::{READ_TIMEOUT, Tag, auth::Administrator};
use crate::{
    app::App,
    db::Txn,
    domain::{
        Caller,
        catalog::Origin,
        ids::new_id,
        orders::MAX_PAGE,
        refunds::{self, RefundQuery},
    },
    http::{
        header::Header,
        idempotency::RequiredIdempotencyKey,
        json::{RawJson, ValidJson},
    },
    intake::once,
};

pub struct RefundsApi;

#[OpenApi(tag = "Tag::Orders")]
impl RefundsApi {
    /// Refund an order
    ///
    /// For administrators. Refunds money of a PAID order, units of it, or both: never more than was paid, never more units
    /// than were ordered, however many refunds are asked for at once. An `amount` that is left out is the price of the
    /// items. Units with `restock` are put back on the shelf, as a stock movement. The order stays PAID and does not change.
    #[oai(path = "/orders/:id/refunds", method = "post", operation_id = "refundOrder")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        Administrator(sender): Administrator,
        /// The order's id.
        id: Path<Uuid>,
        body: ValidJson<NewRefundBody>,
        /// Makes it safe to send the request again: with the same key and body it is done once, and answered alike.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<RequiredIdempotencyKey>,
    ) -> Result<CreateAnswer, CreateProblem> {
        let Header(RequiredIdempotencyKey(key)) = idempotency_key;
        let keyed = once::keyed(Some(&key), "refundOrder", &json!([id.0, body.0]));
        let origin = &Origin {
            user_id: sender.user_id,
            idempotency_key: Some(key),
        };
        let (refund_id, now) = new_id(app.db.time());
        let new = &body.0.refund(refund_id, id.0);
        let low_stock_at = app.config.catalog.low_stock_at;
        let work = |txn: Txn| async move {
            let refund = refunds::create(&txn, now, new, origin, low_stock_at).await?;
            Ok(RefundBody::from(refund))
        };
        let answered = once::run(&app, keyed.as_ref(), work).await?;
        if new.items.iter().any(|item| item.restock) {
            app.cache.invalidate_pages().await;
        }

        Ok(CreateAnswer::Created(RawJson::new(answered.body), answered.replayed))
    }

    /// List the refunds of an order
    ///
    /// For the owner of the order and for administrators. Newest first, a page at a time.
    #[oai(path = "/orders/:id/refunds", method = "get", operation_id = "listRefunds")]
    async fn list(
        &self,
        app: Data<&Arc<App>>,
        caller: Caller,
        /// The order's id.
        id: Path<Uuid>,
        /// The number of refunds on a page.
        #[oai(default = "default_page", validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<i64>,
        /// `next_cursor` of the page before.
        cursor: Query<Option<Uuid>>,
    ) -> Result<ListAnswer, ListProblem> {
        let query = RefundQuery {
            order_id: id.0,
            limit: u64::try_from(limit.0).unwrap_or(MAX_PAGE).min(MAX_PAGE),
            before: cursor.0,
        };

        let list = app.db.snapshot(Some(READ_TIMEOUT), |txn| async move {
            refunds::list(&*txn, caller, query).await
        });
        let page = app.db.timeout(READ_TIMEOUT, list).await?;

        Ok(ListAnswer::Page(RawJson::of(&RefundPageBody::from(page))?))
    }
}

fn default_page() -> i64 {
    50
}
