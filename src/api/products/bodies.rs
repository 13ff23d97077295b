//! The JSON bodies of requests about products, and of their answers.

use poem_openapi::{Object, types::Example};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    domain::catalog::{NewProduct, ProductChange},
    entities::product,
    http::validation::ExtraValidation,
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
#[derive(Debug, Object)]
#[oai(rename = "NewProduct", example)]
pub struct NewProductBody {
    /// 1 to 200 characters, none of them control characters, and not blank.
    #[oai(validator(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    ))]
    name: String,
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
    /// In the currency's minor unit, not negative.
    #[oai(validator(minimum(value = "0")))]
    price: Option<i64>,
}

/// A change of a product's stock.
#[derive(Debug, Object)]
#[oai(rename = "StockChange", example)]
pub struct StockChangeBody {
    /// Units to add, or to write off if negative; not 0, and 1,000,000,000,000 at most either way.
    #[oai(validator(minimum(value = "-1000000000000"), maximum(value = "1000000000000")))]
    pub delta: i64,
    /// Why, in 1 to 200 characters, none of them control characters, and not blank.
    #[oai(validator(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    ))]
    pub reason: String,
}

impl ExtraValidation for NewProductBody {}
impl ExtraValidation for ProductChangeBody {}

impl ExtraValidation for StockChangeBody {
    fn extend_schema(schema: &mut Value) {
        schema["properties"]["delta"]["not"] = json!({ "enum": [0] });
    }
}

impl NewProductBody {
    pub fn product(self) -> NewProduct {
        NewProduct {
            name: self.name,
            price: self.price,
            stock: self.stock,
        }
    }
}

impl ProductChangeBody {
    pub fn change(self) -> ProductChange {
        ProductChange {
            name: self.name,
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
            price: 3_460,
            stock: 279,
        }
    }
}

impl Example for ProductChangeBody {
    fn example() -> Self {
        Self {
            name: Some("Rattan Water Bottle".to_owned()),
            price: Some(3_290),
        }
    }
}

impl Example for StockChangeBody {
    fn example() -> Self {
        Self {
            delta: 100,
            reason: "delivery 4711".to_owned(),
        }
    }
}
