//! Carts in Redis, shared by all processes. Every operation is one run of a script, which no other command interrupts.
//! Redis is trusted with nothing: what it holds is a cart within the bounds of carts, or no cart.

use bytes::Bytes;

use super::{Access, CHECKOUT_LEASE, Operation};
use crate::{
    cache::redis::Redis,
    domain::{
        Error, UserId,
        carts::{Cart, CartKey, MAX_LINES, MAX_QUANTITY},
        orders::Line,
    },
    entities::Timestamp,
};

const SCRIPT: &str = include_str!("cart.lua");

/// Part of every cart's key. It changes when what is stored does, and not with every version of the program: carts are to
/// outlive an upgrade, and both versions use them meanwhile.
const FORMAT: &str = "1";

/// Runs `operation` on the cart under `key`, of the database that `access` names.
pub(super) async fn run(redis: &Redis, key: CartKey, access: &Access, operation: Operation) -> Result<Cart, Error> {
    let database = access.database_identity.database();
    let database = database.ok_or_else(|| Error::CartsUnavailable("the database is not known yet".to_owned()))?;

    let (name, arguments) = match operation {
        Operation::Create => ("create", Vec::new()),
        Operation::Find => ("find", Vec::new()),
        Operation::Put(line) => ("put", put_arguments(line)),
        Operation::BeginCheckout(user_id) => ("begin", begin_arguments(user_id)),
        Operation::ReleaseCheckout => ("release", Vec::new()),
        Operation::FinishCheckout(order_id) => ("finish", vec![order_id.to_string()]),
    };
    let common = [
        name.to_owned(),
        access.user.map(|user| user.to_string()).unwrap_or_default(),
        access.ttl.as_millis().to_string(),
        access.expires_at.0.to_string(),
    ];
    let arguments = common.into_iter().chain(arguments).collect();

    let name = format!("cart:{FORMAT}:{key}");
    let answer = redis.eval(SCRIPT, database, &name, arguments).await;
    let answer = answer.map_err(Error::CartsUnavailable)?;
    read_answer(&answer)
}

fn put_arguments(line: Line) -> Vec<String> {
    vec![
        line.product_id.to_string(),
        line.quantity.to_string(),
        MAX_LINES.to_string(),
    ]
}

fn begin_arguments(user_id: UserId) -> Vec<String> {
    vec![user_id.to_string(), CHECKOUT_LEASE.as_millis().to_string()]
}

fn read_answer(answer: &[Bytes]) -> Result<Cart, Error> {
    let (status, fields) = answer.split_first().ok_or_else(unreadable)?;

    match &**status {
        b"ok" => read_cart(fields).ok_or_else(unreadable),
        b"checked-out" => Err(Error::CartCheckedOut),
        b"full" => Err(Error::CartFull),
        b"empty" => Err(Error::CartEmpty),
        b"another-user" => Err(Error::CartOfAnotherOrder),
        _ => Err(Error::CartNotFound),
    }
}

/// Something else than a cart is stored there, so there is no cart.
fn unreadable() -> Error {
    tracing::warn!("a cart in Redis cannot be read; it is answered as one that does not exist");
    Error::CartNotFound
}

/// The cart whose fields these are, each followed by its value, if all of them are what they should be.
fn read_cart(fields: &[Bytes]) -> Option<Cart> {
    let mut lines: Vec<(u64, Line)> = Vec::new();
    let (mut owner, mut order_id, mut expires_at) = (None, None, None);

    for field in fields.chunks(2) {
        let [name, value] = field else { return None };
        let (name, value) = (str::from_utf8(name).ok()?, str::from_utf8(value).ok()?);
        match name {
            "owner" if value.is_empty() => {}
            "owner" => owner = Some(value.parse().ok()?),
            "order" => order_id = Some(value.parse().ok()?),
            "expires_at" => expires_at = Some(Timestamp(value.parse().ok()?)),
            "next_line" | "user" | "attempts" | "frozen_until" => {}
            _ => lines.push(read_line(name, value)?),
        }
    }

    lines.sort_unstable_by_key(|(number, _)| *number);
    let lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
    Some(Cart {
        owner,
        lines: Some(lines).filter(|lines| lines.len() <= MAX_LINES)?,
        order_id,
        expires_at: expires_at?,
    })
}

fn read_line(product_id: &str, value: &str) -> Option<(u64, Line)> {
    let (number, quantity) = value.split_once(' ')?;
    let line = Line {
        product_id: product_id
            .parse()
            .ok()
            .filter(|id: &i64| id.to_string() == product_id)?,
        quantity: quantity.parse().ok()?,
    };

    let within = line.product_id >= 1 && (1..=MAX_QUANTITY).contains(&line.quantity);
    within.then_some((number.parse().ok()?, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[&str]) -> Option<Cart> {
        let fields: Vec<Bytes> = fields
            .iter()
            .map(|field| Bytes::copy_from_slice(field.as_bytes()))
            .collect();
        read_cart(&fields)
    }

    #[test]
    fn the_lines_of_a_cart_are_in_the_order_in_which_they_were_put_in() {
        let cart = read(&[
            "owner",
            "7",
            "12",
            "3 1",
            "9",
            "1 2",
            "expires_at",
            "5",
            "next_line",
            "3",
        ])
        .expect("a cart");
        let lines: Vec<(i64, i64)> = cart.lines.iter().map(|line| (line.product_id, line.quantity)).collect();
        assert_eq!((cart.owner, cart.expires_at), (Some(7), Timestamp(5)));
        assert_eq!(lines, [(9, 2), (12, 1)]);
    }

    #[test]
    fn what_is_not_a_cart_within_its_bounds_is_none() {
        for fields in [
            &["owner", "seven", "expires_at", "5"][..],
            &["owner", "", "expires_at"],
            &["owner", "", "expires_at", "soon"],
            &["owner", ""],
            &["owner", "", "expires_at", "5", "order", "none"],
            &["owner", "", "expires_at", "5", "1", "1 10001"],
            &["owner", "", "expires_at", "5", "1", "1 0"],
            &["owner", "", "expires_at", "5", "1", "many"],
            &["owner", "", "expires_at", "5", "0", "1 1"],
            &["owner", "", "expires_at", "5", "+1", "1 1"],
            &["owner", "", "expires_at", "5", "price", "1 1"],
        ] {
            assert!(read(fields).is_none(), "{fields:?}");
        }

        let many: Vec<String> = (1..=101)
            .flat_map(|id: i64| [id.to_string(), format!("{id} 1")])
            .collect();
        let mut fields = vec!["owner", "", "expires_at", "5"];
        fields.extend(many.iter().map(String::as_str));
        assert!(read(&fields).is_none());
        assert!(read(&fields[..204]).is_some());
    }
}
