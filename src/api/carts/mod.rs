//! Putting a cart together, and checking it out.

use std::{sync::Arc, time::Duration};

use metrics::counter;
use poem::web::Data;
use poem_openapi::{OpenApi, param::Path};

pub mod answers;
pub mod bodies;
mod checkout;

use answers::{
    CartAnswer, CheckoutAnswer, CheckoutProblem, CreateAnswer, CreateProblem, FindProblem, PutProblem, RemoveProblem,
};
use bodies::{CartBody, CartIdParameter, CheckoutBody, QuantityBody};
use checkout::Checkout;

use super::{READ_TIMEOUT, Tag, auth::jwt::Identity, orders};
use crate::{
    app::App,
    domain::{
        Error,
        carts::{self, Cart, CartId, PricedLine},
        orders::Line,
    },
    http::json::{NoBody, RawJson, ValidJson},
    intake::OrderIntake,
    telemetry::metrics::{CARTS_CHECKED_OUT, CARTS_CREATED},
};

pub struct CartsApi;

#[OpenApi(tag = "Tag::Carts")]
impl CartsApi {
    /// Make a cart
    ///
    /// Empty. With a token it is the user's alone; without authentication it belongs to whoever knows its id.
    #[oai(path = "/carts", method = "post", operation_id = "createCart")]
    async fn create(
        &self,
        app: Data<&Arc<App>>,
        identity: Identity,
        _body: NoBody,
    ) -> Result<CreateAnswer, CreateProblem> {
        let id = CartId::random()?;
        let cart = app
            .carts
            .request(id.key(), identity.user_id, app.db.time())
            .create()
            .await?;
        counter!(CARTS_CREATED).increment(1);

        let location = format!("/carts/{id}");
        let body = CartBody::new(id, &cart, Vec::new(), &app.config.catalog.currency);
        Ok(CreateAnswer::Created(RawJson::of(&body)?, location))
    }

    /// Find a cart
    ///
    /// With name, price and availability of its products as they are now.
    #[oai(path = "/carts/:id", method = "get", operation_id = "getCart")]
    async fn find(
        &self,
        app: Data<&Arc<App>>,
        identity: Identity,
        /// The cart's id.
        id: Path<CartIdParameter>,
    ) -> Result<CartAnswer, FindProblem> {
        let id = id.0.id()?;

        let cart = app
            .carts
            .request(id.key(), identity.user_id, app.db.time())
            .find()
            .await?;

        let lines = price(&app, &cart.lines).await?;
        Ok(answer(&app, id, &cart, lines)?)
    }

    /// Put a product into a cart
    ///
    /// Sets how many units of it are in the cart; 0 takes it out. Of two requests for the same product the last one
    /// holds, and other products are left as they are. Stock is not checked.
    #[oai(path = "/carts/:id/items/:product_id", method = "put", operation_id = "putCartItem")]
    async fn put(
        &self,
        app: Data<&Arc<App>>,
        identity: Identity,
        /// The cart's id.
        id: Path<CartIdParameter>,
        /// The product's id.
        product_id: Path<i64>,
        body: ValidJson<QuantityBody>,
    ) -> Result<CartAnswer, PutProblem> {
        let id = id.0.id()?;
        let line = Line {
            product_id: product_id.0,
            quantity: body.0.quantity,
        };

        let mut request = app.carts.request(id.key(), identity.user_id, app.db.time());
        if line.quantity > 0 {
            // Before the database is asked: without the cart it need not be.
            request.find().await?;
            check_product(&app, line).await?;
        }
        let cart = request.put(line).await?;

        let lines = price(&app, &cart.lines).await?;
        Ok(answer(&app, id, &cart, lines)?)
    }

    /// Take a product out of a cart
    ///
    /// It need not be in it.
    #[oai(
        path = "/carts/:id/items/:product_id",
        method = "delete",
        operation_id = "removeCartItem"
    )]
    async fn remove(
        &self,
        app: Data<&Arc<App>>,
        identity: Identity,
        /// The cart's id.
        id: Path<CartIdParameter>,
        /// The product's id.
        product_id: Path<i64>,
    ) -> Result<CartAnswer, RemoveProblem> {
        let id = id.0.id()?;
        let none = Line {
            product_id: product_id.0,
            quantity: 0,
        };

        let cart = app
            .carts
            .request(id.key(), identity.user_id, app.db.time())
            .put(none)
            .await?;

        let lines = price(&app, &cart.lines).await?;
        Ok(answer(&app, id, &cart, lines)?)
    }

    /// Check a cart out
    ///
    /// Makes an order of it, at the catalogue's prices of this moment. With `hold_seconds` its units are set aside, or the
    /// answer is `409` with the lines that are short. A cart becomes one order: checking it out again
    /// answers the same one, and it does not change any more. If the checkout is refused, the cart stays as it was.
    #[oai(path = "/carts/:id/checkout", method = "post", operation_id = "checkOutCart")]
    async fn check_out(
        &self,
        app: Data<&Arc<App>>,
        intake: Data<&OrderIntake>,
        identity: Identity,
        /// The cart's id.
        id: Path<CartIdParameter>,
        body: ValidJson<CheckoutBody>,
    ) -> Result<CheckoutAnswer, CheckoutProblem> {
        let (id, ValidJson(body)) = (id.0.id()?, body);
        identity.caller.authorize_for(body.user_id)?;

        let checkout = Checkout {
            key: id.key(),
            user_id: body.user_id,
            hold: body.hold_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        };
        let request = app.carts.request(id.key(), identity.user_id, app.db.time());
        let created = checkout.run(&app, &intake, request).await?;
        if !created.replayed {
            counter!(CARTS_CHECKED_OUT).increment(1);
        }

        let location = orders::location(created.order.row.id);
        let replayed = created.replayed.then(|| "true".to_owned());
        Ok(CheckoutAnswer::Created(
            orders::to_json(created.order)?,
            location,
            replayed,
        ))
    }
}

/// # Errors
/// [`Error::UnknownProduct`].
async fn check_product(app: &App, line: Line) -> Result<(), Error> {
    let priced = price(app, &[line]).await?;
    let is_known = priced.iter().all(|priced| priced.product.is_some());
    is_known.then_some(()).ok_or(Error::UnknownProduct(line.product_id))
}

async fn price(app: &App, lines: &[Line]) -> Result<Vec<PricedLine>, Error> {
    app.db.timeout(READ_TIMEOUT, carts::price(app.db.read(), lines)).await
}

fn answer(app: &App, id: CartId, cart: &Cart, lines: Vec<PricedLine>) -> serde_json::Result<CartAnswer> {
    let body = CartBody::new(id, cart, lines, &app.config.catalog.currency);
    RawJson::of(&body).map(CartAnswer::Cart)
}
