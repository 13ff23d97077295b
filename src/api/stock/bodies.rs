//! The JSON bodies of requests about stock, and of their answers.

use std::collections::HashSet;

use poem::http::HeaderMap;
use poem_openapi::{Object, types::Example};
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::{
        ProductId,
        catalog::{MovementPage, StockChange, StockTarget},
    },
    entities::product,
    http::{idempotency::IdempotencyKey, problem::FieldError, validation::ExtraValidation},
};

/// The most lines of one request.
pub const MAX_LINES: usize = 1_000;

/// A change of a product's stock: either `delta` or `set_to`.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "StockChange", example)]
pub struct StockChangeBody {
    /// Units to add, or to write off if negative; not 0, and 1,000,000,000,000 at most either way.
    #[oai(validator(minimum(value = "-1000000000000"), maximum(value = "1000000000000")))]
    delta: Option<i64>,
    /// The units that were counted, 0 to 1,000,000,000,000.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    set_to: Option<i64>,
    /// Make the change only if this many units are in stock.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    expected_stock: Option<i64>,
    /// Why, in 1 to 200 characters, none of them control characters, and not blank.
    #[oai(validator(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    ))]
    reason: String,
}

/// A change of one of many products: either `delta` or `set_to`.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "StockLine", example)]
pub struct StockLineBody {
    /// A product of the catalogue.
    #[oai(validator(minimum(value = "1")))]
    product_id: i64,
    /// Units to add, or to write off if negative; not 0, and 1,000,000,000,000 at most either way.
    #[oai(validator(minimum(value = "-1000000000000"), maximum(value = "1000000000000")))]
    delta: Option<i64>,
    /// The units that were counted, 0 to 1,000,000,000,000.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    set_to: Option<i64>,
    /// Make the changes only if this many units of the product are in stock.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    expected_stock: Option<i64>,
    /// Why, in 1 to 200 characters, none of them control characters, and not blank.
    #[oai(validator(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    ))]
    reason: String,
}

/// The stock of products after a change of many, in the order of its lines.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "StockLevels", example)]
pub struct StockLevelsBody {
    /// One a line of the request.
    #[oai(validator(max_items = 1000))]
    items: Vec<StockLevelBody>,
}

/// The stock of one product.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "StockLevel")]
pub struct StockLevelBody {
    product_id: i64,
    /// Units in stock.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    stock: i64,
    /// Units in stock that are not on hold for an order.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    available: i64,
}

/// Why the stock of a product changed, other than by a sale.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "StockMovement", example)]
pub struct MovementBody {
    /// A whole number, counted up.
    id: i64,
    /// Units that were added; if negative, they were written off, or sold by orders that are deleted since.
    #[oai(validator(minimum(value = "-1000000000000"), maximum(value = "1000000000000")))]
    delta: i64,
    /// In the words of whoever changed it.
    #[oai(validator(max_length = 200, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"))]
    reason: String,
    /// The administrator who changed it; left out where users are not known, for the seed, and for deleted
    /// orders.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<i64>,
    /// The key of the request that changed it, if it had one.
    #[oai(skip_serializing_if_is_none, validator(max_length = 255, pattern = "^[!-~]+$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    /// The refund that put the units back on the shelf, if one did.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_id: Option<Uuid>,
    /// When it changed; for what deleted orders had sold, when they were deleted.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// A page of stock movements, newest first.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "StockMovementPage", example)]
pub struct MovementPageBody {
    /// The movements of this page.
    #[oai(validator(max_items = 200))]
    items: Vec<MovementBody>,
    /// Send this as `cursor` to get the next page; null on the last one.
    #[oai(validator(max_length = 18, pattern = "^[0-9]{1,18}$"))]
    next_cursor: Option<String>,
}

impl ExtraValidation for StockChangeBody {
    fn extend_schemas(schemas: &mut Map<String, Value>) {
        schemas.entry("StockChange").and_modify(extend_change);
    }

    fn errors(headers: &HeaderMap, _body: &Value) -> Vec<FieldError> {
        IdempotencyKey::read(headers).err().into_iter().collect()
    }
}

impl ExtraValidation for Vec<StockLineBody> {
    /// As many lines as there may be, with all that they may say.
    const MAX_BODY: u64 = 1024 * 1024;

    fn extend_schemas(schemas: &mut Map<String, Value>) {
        schemas.entry("StockLine").and_modify(extend_change);
    }

    fn errors(headers: &HeaderMap, body: &Value) -> Vec<FieldError> {
        let mut seen = HashSet::new();
        let repeated = |(index, line): (usize, &Value)| {
            let product = line["product_id"].as_i64()?;
            let first = seen.insert(product);
            (!first).then(|| FieldError {
                pointer: format!("/{index}/product_id"),
                detail: format!("product {product} has a line already; give it one"),
            })
        };

        let lines = body.as_array().map(Vec::as_slice).unwrap_or_default();
        let bad_count = (!(1..=MAX_LINES).contains(&lines.len())).then(|| FieldError {
            pointer: String::new(),
            detail: format!("the body must list 1 to {MAX_LINES} lines"),
        });
        let bad_key = IdempotencyKey::read(headers).err();
        let repeated = lines.iter().enumerate().filter_map(repeated);
        bad_count.into_iter().chain(bad_key).chain(repeated).collect()
    }
}

/// Either `delta`, which is not 0, or `set_to`.
fn extend_change(schema: &mut Value) {
    schema["properties"]["delta"]["not"] = json!({ "enum": [0] });
    schema["oneOf"] = json!([{ "required": ["delta"] }, { "required": ["set_to"] }]);
}

impl StockChangeBody {
    pub fn change(self, product_id: ProductId) -> StockChange {
        StockChange {
            product_id,
            target: target(self.delta, self.set_to),
            expected_stock: self.expected_stock,
            reason: self.reason,
        }
    }
}

impl StockLineBody {
    pub fn change(self) -> StockChange {
        StockChange {
            product_id: self.product_id,
            target: target(self.delta, self.set_to),
            expected_stock: self.expected_stock,
            reason: self.reason,
        }
    }
}

/// The schema asks for exactly one of them.
fn target(delta: Option<i64>, set_to: Option<i64>) -> StockTarget {
    match set_to {
        Some(units) => StockTarget::SetTo(units),
        None => StockTarget::Delta(delta.unwrap_or_default()),
    }
}

impl From<Vec<product::Model>> for StockLevelsBody {
    fn from(products: Vec<product::Model>) -> Self {
        let level = |product: product::Model| StockLevelBody {
            product_id: product.id,
            stock: product.stock,
            available: product.available(),
        };
        Self {
            items: products.into_iter().map(level).collect(),
        }
    }
}

impl From<MovementPage> for MovementPageBody {
    fn from(page: MovementPage) -> Self {
        let last = page.movements.last().filter(|_| page.more);
        let next_cursor = last.map(|last| last.id.to_string());
        let items = page.movements.into_iter().map(|movement| MovementBody {
            id: movement.id,
            delta: movement.delta,
            reason: movement.reason,
            user_id: movement.user_id,
            idempotency_key: movement.idempotency_key,
            refund_id: movement.refund_id,
            created_at: movement.created_at.to_utc(),
        });

        Self {
            items: items.collect(),
            next_cursor,
        }
    }
}

impl Example for StockChangeBody {
    fn example() -> Self {
        Self {
            delta: Some(100),
            set_to: None,
            expected_stock: None,
            reason: "delivery 4711".to_owned(),
        }
    }
}

impl Example for StockLineBody {
    fn example() -> Self {
        Self {
            product_id: 1,
            delta: None,
            set_to: Some(280),
            expected_stock: Some(279),
            reason: "counted".to_owned(),
        }
    }
}

impl Example for StockLevelsBody {
    fn example() -> Self {
        Self {
            items: vec![StockLevelBody {
                product_id: 1,
                stock: 280,
                available: 276,
            }],
        }
    }
}

impl Example for MovementBody {
    fn example() -> Self {
        Self {
            id: 51,
            delta: 100,
            reason: "delivery 4711".to_owned(),
            user_id: Some(1),
            idempotency_key: Some("delivery-4711".to_owned()),
            refund_id: None,
            created_at: time::macros::datetime!(2026-01-15 09:30 UTC),
        }
    }
}

impl Example for MovementPageBody {
    fn example() -> Self {
        Self {
            items: vec![MovementBody::example()],
            next_cursor: None,
        }
    }
}
