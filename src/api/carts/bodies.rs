//! The JSON bodies of requests about carts, and of their answers; and a cart's id in a path.

use std::borrow::Cow;

use poem_openapi::{
    Object,
    registry::{MetaSchema, MetaSchemaRef},
    types::{Example, ParseFromParameter, ParseResult, Type},
};
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::{
        Error,
        carts::{self, Cart, CartId, ID_LENGTH, PricedLine},
    },
    http::validation::ExtraValidation,
};

/// A cart's id in the examples.
const EXAMPLE_ID: &str = "5e0c9a1f7b3d4826a9d1c07be4f36d52";

/// What a customer has put together, with what it costs now.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "Cart", example)]
pub struct CartBody {
    /// A secret of 32 hexadecimal digits: whoever knows it can use the cart, unless the cart is a user's.
    #[oai(validator(max_length = 32, pattern = "^[0-9a-f]{32}$"))]
    cart_id: String,
    /// When it is dropped, unless it changes before.
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
    /// The lines, in the order in which they were put in.
    #[oai(validator(max_items = 100))]
    items: Vec<CartItemBody>,
    /// The sum over the lines at today's prices, in the currency's minor unit. Left out if it does not fit 64 bits.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "0")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    total_price: Option<i64>,
    /// ISO 4217.
    #[oai(validator(max_length = 3, pattern = "^[A-Z]{3}$"))]
    currency: String,
    /// The order that it became. Such a cart does not change any more.
    #[oai(skip_serializing_if_is_none)]
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<Uuid>,
}

/// A line of a cart, with its product as it is now.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "CartItem")]
pub struct CartItemBody {
    /// The product.
    product_id: i64,
    /// Units.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    quantity: i64,
    /// What the product is called. Left out if it is not in the catalogue any more.
    #[oai(
        skip_serializing_if_is_none,
        validator(max_length = 200, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The catalogue's price, in the currency's minor unit. Left out if the product is not in the catalogue any more.
    #[oai(skip_serializing_if_is_none, validator(minimum(value = "0")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<i64>,
    /// Units in stock that are not on hold for an order; 0 if the product is not in the catalogue any more.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    available: i64,
}

/// How many units of a product are to be in a cart.
#[derive(Debug, Object)]
#[oai(rename = "CartQuantity", example)]
pub struct QuantityBody {
    /// Units, 0 to 10,000; 0 takes the product out.
    #[oai(validator(minimum(value = "0"), maximum(value = "10000")))]
    pub quantity: i64,
}

/// How a cart becomes an order.
#[derive(Debug, Object)]
#[oai(rename = "Checkout", example)]
pub struct CheckoutBody {
    /// Whose order it becomes.
    #[oai(validator(minimum(value = "1")))]
    pub user_id: i64,
    /// Sets the units of the order aside for so many seconds, 30 to 3,600, as for an order that is created.
    #[oai(validator(minimum(value = "30"), maximum(value = "3600")))]
    pub hold_seconds: Option<u32>,
}

impl ExtraValidation for QuantityBody {}
impl ExtraValidation for CheckoutBody {}

impl CartBody {
    pub fn new(id: CartId, cart: &Cart, lines: Vec<PricedLine>, currency: &str) -> Self {
        Self {
            cart_id: id.to_string(),
            expires_at: cart.expires_at.to_utc(),
            total_price: carts::total(&lines).ok(),
            items: lines.into_iter().map(CartItemBody::from).collect(),
            currency: currency.to_owned(),
            order_id: cart.order_id,
        }
    }
}

impl From<PricedLine> for CartItemBody {
    fn from(priced: PricedLine) -> Self {
        let PricedLine { line, product } = priced;
        let available = product.as_ref().map_or(0, |product| product.available);
        let (name, price) = product.map(|product| (product.name, product.price)).unzip();

        Self {
            product_id: line.product_id,
            quantity: line.quantity,
            name,
            price,
            available,
        }
    }
}

/// A cart's id in a path; nothing if it has another form than ids have. Clients need not know the form, so there is no such
/// cart then, as of an id that nobody was given.
pub struct CartIdParameter(Option<CartId>);

impl CartIdParameter {
    /// # Errors
    /// [`Error::CartNotFound`].
    pub fn id(&self) -> Result<CartId, Error> {
        self.0.ok_or(Error::CartNotFound)
    }
}

impl Type for CartIdParameter {
    const IS_REQUIRED: bool = true;

    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "CartId".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            max_length: Some(ID_LENGTH),
            pattern: Some(format!("^[0-9a-f]{{{ID_LENGTH}}}$")),
            example: Some(json!(EXAMPLE_ID)),
            ..MetaSchema::new("string")
        }))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ParseFromParameter for CartIdParameter {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(CartId::parse(value)))
    }
}

impl Example for CartBody {
    fn example() -> Self {
        let item = |product_id, quantity, name: &str, price, available| CartItemBody {
            product_id,
            quantity,
            name: Some(name.to_owned()),
            price: Some(price),
            available,
        };

        Self {
            cart_id: EXAMPLE_ID.to_owned(),
            expires_at: time::macros::datetime!(2026-01-22 09:30:12.345678 UTC),
            items: vec![
                item(1, 2, "Rattan Water Bottle", 3_460, 279),
                item(2, 1, "Steel Door Mat", 3_680, 142),
            ],
            total_price: Some(10_600),
            currency: "USD".to_owned(),
            order_id: None,
        }
    }
}

impl Example for QuantityBody {
    fn example() -> Self {
        Self { quantity: 2 }
    }
}

impl Example for CheckoutBody {
    fn example() -> Self {
        Self {
            user_id: 1,
            hold_seconds: Some(600),
        }
    }
}
