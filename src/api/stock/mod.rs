//! Changing stock, and reading why it changed.

use std::sync::Arc;

use poem::web::Data;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use serde_json::json;

pub mod answers;
pub mod bodies;

use answers::{ChangeAnswer, ChangeProblem, ChangesAnswer, ChangesProblem, MovementsAnswer, MovementsProblem};
use bodies::{MovementPageBody, StockChangeBody, StockLevelsBody, StockLineBody};

use super::{
    READ_TIMEOUT, Tag,
    auth::{Administrator, Identity},
    products::bodies::ProductBody,
};
use crate::{
    app::App,
    db::Txn,
    domain::catalog::{self, MAX_PAGE, MovementQuery, Origin, StockChange},
    http::{
        header::Header,
        idempotency::IdempotencyKey,
        json::{RawJson, ValidJson},
        problem::Problem,
    },
    intake::once,
};

pub struct StockApi;

#[OpenApi(tag = "Tag::Stock")]
impl StockApi {
    /// Change a product's stock
    ///
    /// For administrators. `delta` adds units to the stock, or writes them off if it is negative; `set_to` sets what was
    /// counted. The stock never falls below zero. With `expected_stock` the change is made only if the stock is that.
    /// The reason is kept with the stock movement, so that every unit can be accounted for.
    #[oai(path = "/products/:id/stock", method = "post", operation_id = "changeStock")]
    async fn change_stock(
        &self,
        app: Data<&Arc<App>>,
        Administrator(sender): Administrator,
        /// The product's id.
        id: Path<i64>,
        body: ValidJson<StockChangeBody>,
        /// Makes it safe to send the request again: with the same key and body it is done once, and answered alike.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<IdempotencyKey>,
    ) -> Result<ChangeAnswer, ChangeProblem> {
        let Header(IdempotencyKey(key)) = idempotency_key;
        let keyed = once::keyed(key.as_deref(), "changeStock", &json!([id.0, body.0]));
        let origin = &origin(&sender, key);
        let change = &body.0.change(id.0);
        let low_stock_at = app.config.catalog.low_stock_at;
        let now = app.db.time();
        let work = |txn: Txn| async move {
            let product = catalog::change_stock(&txn, now, change, origin, low_stock_at).await?;
            Ok(ProductBody::from(product))
        };
        let answered = once::run(&app, keyed.as_ref(), work).await?;
        app.cache.invalidate_pages().await;

        Ok(ChangeAnswer::Changed(RawJson::new(answered.body), answered.replayed))
    }

    /// Change the stock of many products
    ///
    /// For administrators. Every line is a change as of one product. All are made, or none: then one answer names every
    /// line that does not hold.
    #[oai(path = "/stock-changes", method = "post", operation_id = "changeStocks")]
    async fn change_stocks(
        &self,
        app: Data<&Arc<App>>,
        Administrator(sender): Administrator,
        body: ValidJson<Vec<StockLineBody>>,
        /// Makes it safe to send the request again: with the same key and body it is done once, and answered alike.
        #[oai(name = "Idempotency-Key")]
        idempotency_key: Header<IdempotencyKey>,
    ) -> Result<ChangesAnswer, ChangesProblem> {
        let Header(IdempotencyKey(key)) = idempotency_key;
        let keyed = once::keyed(key.as_deref(), "changeStocks", &json!(body.0));
        let origin = &origin(&sender, key);
        let changes: &Vec<StockChange> = &body.0.into_iter().map(StockLineBody::change).collect();
        let low_stock_at = app.config.catalog.low_stock_at;
        let now = app.db.time();
        let work = |txn: Txn| async move {
            let products = catalog::change_stocks(&txn, now, changes, origin, low_stock_at).await?;
            Ok(StockLevelsBody::from(products))
        };
        let answered = once::run(&app, keyed.as_ref(), work).await?;
        app.cache.invalidate_pages().await;

        Ok(ChangesAnswer::Changed(RawJson::new(answered.body), answered.replayed))
    }

    /// List a product's stock movements
    ///
    /// For administrators. Newest first, a page at a time: every change of the stock that is not a sale, why it was made,
    /// by whom, and under which key; and what orders had sold that are deleted since.
    #[oai(
        path = "/products/:id/movements",
        method = "get",
        operation_id = "listStockMovements"
    )]
    async fn movements(
        &self,
        app: Data<&Arc<App>>,
        _administrator: Administrator,
        /// The product's id.
        id: Path<i64>,
        /// The number of movements on a page.
        #[oai(default = "default_page", validator(minimum(value = "1"), maximum(value = "200")))]
        limit: Query<i64>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 18, pattern = "^[0-9]{1,18}$"))]
        cursor: Query<Option<String>>,
    ) -> Result<MovementsAnswer, MovementsProblem> {
        let query = MovementQuery {
            product_id: id.0,
            limit: u64::try_from(limit.0).unwrap_or(MAX_PAGE).min(MAX_PAGE),
            before: parse_cursor(cursor.0.as_deref())?,
        };

        let list = app.db.snapshot(Some(READ_TIMEOUT), |txn| async move {
            catalog::list_movements(&*txn, query).await
        });
        let page = app.db.timeout(READ_TIMEOUT, list).await?;

        Ok(MovementsAnswer::Page(RawJson::of(&MovementPageBody::from(page))?))
    }
}

/// Who changes the stock, and under which key.
pub fn origin(sender: &Identity, idempotency_key: Option<String>) -> Origin {
    Origin {
        user_id: sender.user_id,
        idempotency_key,
    }
}

/// A cursor is the last id of the page before; to callers it is an opaque text.
fn parse_cursor(cursor: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };

    let id = cursor.parse().map(Some);
    id.map_err(|_| Problem::invalid_field("/query/cursor", "`cursor` is not one that this server gave out"))
}

fn default_page() -> i64 {
    50
}
