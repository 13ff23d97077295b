//! The JSON bodies of requests about products, and of their answers.

use poem::http::HeaderMap;
use poem_openapi::{Object, types::Example};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    domain::catalog::{NewProduct, ProductChange},
    entities::product,
    http::{idempotency::IdempotencyKey, problem::FieldError, validation::ExtraValidation},
};

/// A product of the catalogue.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Product", example)]
pub struct ProductBody {
    /// A whole number, counted up.
    pub id: i64,
    /// What it is called.
    #[oai(validator(max_length = 200, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"))]
    pub name: String,
    /// Stock keeping unit, unique; left out where there is none.
    #[oai(skip_serializing_if_is_none, validator(max_length = 64, pattern = "^[!-~]*$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// Whether it is listed and can be ordered.
    pub active: bool,
    /// In the currency's minor unit: 1999 is 19.99 USD.
    #[oai(validator(minimum(value = "0")))]
    pub price: i64,
    /// ISO 4217.
    #[oai(validator(max_length = 3, pattern = "^[A-Z]{3}$"))]
    pub currency: String,
    /// Units in stock.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    pub stock: i64,
    /// Units in stock that are not on hold for an order.
    #[oai(validator(minimum(value = "0")))]
    pub available: i64,
    /// When it was added to the catalogue.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A page of products, by id.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "ProductPage", example)]
pub struct ProductPageBody {
    /// The products of this page.
    #[oai(validator(max_items = 200))]
    pub items: Vec<ProductBody>,
    /// Send this as `cursor` to get the next page; null on the last one.
    #[oai(validator(max_length = 18, pattern = "^[0-9]{1,18}$"))]
    pub next_cursor: Option<String>,
}

/// A product to add.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "NewProduct", example)]
pub struct NewProductBody {
    /// 1 to 200 characters, none of them control characters, and not blank.
    #[oai(validator(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    ))]
    name: String,
    /// Stock keeping unit: 1 to 64 visible ASCII characters, unique.
    #[oai(validator(min_length = 1, max_length = 64, pattern = "^[!-~]*$"))]
    sku: Option<String>,
    /// Whether it is listed and can be ordered; true if it is left out.
    active: Option<bool>,
    /// In the currency's minor unit, not negative.
    #[oai(validator(minimum(value = "0")))]
    price: i64,
    /// Its first stock in units, 0 to 1,000,000,000,000.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    stock: i64,
}

/// A change of a product.
#[derive(Debug, Object)]
#[oai(rename = "ProductChange", example)]
pub struct ProductChangeBody {
    /// 1 to 200 characters, none of them control characters, and not blank.
    #[oai(validator(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    ))]
    name: Option<String>,
    /// Stock keeping unit: 1 to 64 visible ASCII characters, unique.
    #[oai(validator(min_length = 1, max_length = 64, pattern = "^[!-~]*$"))]
    sku: Option<String>,
    /// `false` takes the product off the list: it is not listed and cannot be ordered. `true` puts it back.
    active: Option<bool>,
    /// In the currency's minor unit, not negative.
    #[oai(validator(minimum(value = "0")))]
    price: Option<i64>,
}

impl ExtraValidation for ProductChangeBody {}

impl ExtraValidation for NewProductBody {
    fn errors(headers: &HeaderMap, _body: &Value) -> Vec<FieldError> {
        IdempotencyKey::read(headers).err().into_iter().collect()
    }
}

impl NewProductBody {
    pub fn product(self) -> NewProduct {
        NewProduct {
            name: self.name,
            sku: self.sku,
            active: self.active.unwrap_or(true),
            price: self.price,
            stock: self.stock,
        }
    }
}

impl ProductChangeBody {
    pub fn change(self) -> ProductChange {
        ProductChange {
            name: self.name,
            sku: self.sku,
            active: self.active,
            price: self.price,
        }
    }
}

impl From<product::Model> for ProductBody {
    fn from(product: product::Model) -> Self {
        Self {
            available: product.available(),
            id: product.id,
            name: product.name,
            sku: product.sku,
            active: product.active,
            price: product.price,
            currency: product.currency,
            stock: product.stock,
            created_at: product.created_at.to_utc(),
        }
    }
}

impl Example for ProductBody {
    fn example() -> Self {
        Self {
            id: 1,
            name: "Rattan Water Bottle".to_owned(),
            sku: Some("RWB-1".to_owned()),
            active: true,
            price: 3_460,
            currency: "USD".to_owned(),
            stock: 279,
            available: 275,
            created_at: time::macros::datetime!(2026-01-15 09:30 UTC),
        }
    }
}

impl Example for ProductPageBody {
    fn example() -> Self {
        Self {
            items: vec![ProductBody::example()],
            next_cursor: Some("1".to_owned()),
        }
    }
}

impl Example for NewProductBody {
    fn example() -> Self {
        Self {
            name: "Rattan Water Bottle".to_owned(),
            sku: Some("RWB-1".to_owned()),
            active: None,
            price: 3_460,
            stock: 279,
        }
    }
}

impl Example for ProductChangeBody {
    fn example() -> Self {
        Self {
            name: Some("Rattan Water Bottle".to_owned()),
            sku: None,
            active: Some(true),
            price: Some(3_290),
        }
    }
}
