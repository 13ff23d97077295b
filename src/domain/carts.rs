//! Carts: what customers put together before they order. A cart lives in the cache and never in the database, so it may
//! be lost; the order that it became is not. Here is what a cart holds, what its id is, and what its products cost now.

use std::{collections::HashMap, fmt};

use rand::{TryRng as _, rngs::SysRng};
use sea_orm::ConnectionTrait;
use sha2::{Digest as _, Sha256};

use super::{Error, OrderId, ProductId, UserId, money, orders::Line};
use crate::{
    db::sql::{Column, sql},
    entities::Timestamp,
};

/// The most lines of a cart, as of an order.
pub const MAX_LINES: usize = 100;
/// The most units of a line, as of an order's.
pub const MAX_QUANTITY: i64 = 10_000;

/// The bytes of a [`CartId`], and of a [`CartKey`].
const ID_BYTES: usize = 16;
/// The length of a [`CartId`] as text.
pub const ID_LENGTH: usize = 2 * ID_BYTES;

/// What a client names a cart by: 128 random bits, in hexadecimal. Whoever knows it can use the cart, so it is stored
/// nowhere and written into no log; it has no `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CartId([u8; ID_BYTES]);

/// What the shop names a cart by: a hash of its id, from which nobody finds the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CartKey([u8; ID_BYTES]);

/// A cart as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cart {
    /// The user who made it, where users are known.
    pub owner: Option<UserId>,
    /// In the order in which they were put in, no product twice, [`MAX_LINES`] at most.
    pub lines: Vec<Line>,
    /// The order that it became.
    pub order_id: Option<OrderId>,
    /// When it is dropped unless it changes before.
    pub expires_at: Timestamp,
}

/// A line of a cart with what the catalogue says of its product now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PricedLine {
    pub line: Line,
    /// Nothing if the product is not in the catalogue any more.
    pub product: Option<PricedProduct>,
}

/// What a cart shows of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PricedProduct {
    pub name: String,
    /// Minor units.
    pub price: i64,
    /// Units that are not on hold for an order.
    pub available: i64,
}

impl CartId {
    /// A new one from the generator of the operating system.
    ///
    /// # Errors
    /// [`Error::Internal`] when the system has no random numbers.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; ID_BYTES];
        SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Error::Internal(format!("no random numbers: {error}")))?;
        Ok(Self(bytes))
    }

    /// Reads [`ID_LENGTH`] hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != ID_LENGTH || !text.bytes().all(is_digit) {
            return None;
        }

        let number = u128::from_str_radix(text, 16).ok()?;
        Some(Self(number.to_be_bytes()))
    }

    #[must_use]
    pub fn key(self) -> CartKey {
        let hash = Sha256::digest(self.0);
        let mut key = [0; ID_BYTES];
        key.copy_from_slice(&hash[..ID_BYTES]);
        CartKey(key)
    }
}

impl fmt::Display for CartId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for CartKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl CartKey {
    /// The idempotency key of the order that the cart becomes, so that the database lets it become one only. No client
    /// can send it: it holds a space.
    #[must_use]
    pub fn idempotency_key(self) -> String {
        format!("cart {self}")
    }
}

impl Cart {
    /// Whether this user may use the cart. `None` asks for anybody, where users are not known; a cart without an owner
    /// belongs to whoever knows its id.
    #[must_use]
    pub fn is_open_to(&self, user: Option<UserId>) -> bool {
        self.owner.is_none() || user.is_none() || self.owner == user
    }
}

/// The lines with what the catalogue says of their products now.
pub async fn price(connection: &impl ConnectionTrait, lines: &[Line]) -> Result<Vec<PricedLine>, Error> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }

    let ids = lines.iter().map(|line| line.product_id).collect();
    let mut products: HashMap<ProductId, PricedProduct> = sql("
        SELECT id, name, price, stock - held
          FROM products
         WHERE id = ANY(:ids) AND active
         ORDER BY id")
    .list("ids", Column::BigInt(ids))
    .rows(connection, |row| {
        let product = PricedProduct {
            name: row.try_get_by_index(1)?,
            price: row.try_get_by_index(2)?,
            available: row.try_get_by_index(3)?,
        };
        Ok((row.try_get_by_index(0)?, product))
    })
    .await?
    .into_iter()
    .collect();

    let priced = lines.iter().map(|line| PricedLine {
        line: *line,
        product: products.remove(&line.product_id),
    });
    Ok(priced.collect())
}

/// The sum over the lines whose products are in the catalogue.
///
/// # Errors
/// [`Error::TotalTooLarge`].
pub fn total(lines: &[PricedLine]) -> Result<i64, Error> {
    let priced = lines
        .iter()
        .filter_map(|priced| Some((priced.line.quantity, priced.product.as_ref()?.price)));
    money::total(priced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_in_no_other_form() {
        let id = CartId::random().expect("random numbers");
        let text = id.to_string();
        assert_eq!(text.len(), ID_LENGTH);
        assert!(CartId::parse(&text) == Some(id));

        let bad = ["", "0", &text.to_uppercase(), &text[1..], &format!("+{}", &text[1..])];
        for text in bad.into_iter().filter(|bad| **bad != text) {
            assert!(CartId::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_tells_nothing_of_the_id_and_is_no_key_that_a_client_can_send() {
        let (id, other) = (CartId([7; ID_BYTES]), CartId([8; ID_BYTES]));
        assert_ne!(id.key(), other.key());
        assert_eq!(id.key(), CartId([7; ID_BYTES]).key());

        let key = id.key().idempotency_key();
        assert!(!key.contains(&id.to_string()));
        assert!(!key.bytes().all(|byte| byte.is_ascii_graphic()));
    }

    #[test]
    fn the_cart_of_a_user_is_open_to_no_other() {
        let cart = |owner| Cart {
            owner,
            lines: Vec::new(),
            order_id: None,
            expires_at: Timestamp(0),
        };
        assert!(cart(Some(7)).is_open_to(Some(7)) && !cart(Some(7)).is_open_to(Some(8)));
        assert!(cart(None).is_open_to(Some(8)) && cart(Some(7)).is_open_to(None));
    }
}
