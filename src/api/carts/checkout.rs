//! Making a cart an order, once. The database decides that: the order carries an idempotency key that is made from the
//! cart, so whatever becomes of the cart, and however many check it out at once, there is one order.

use std::time::Duration;

use crate::{
    api::READ_TIMEOUT,
    app::App,
    cache::carts::CartRequest,
    domain::{
        Error, UserId,
        carts::CartKey,
        ids::new_id,
        orders::{self, Created, Labels, Line, NewOrder},
    },
    intake::OrderIntake,
};

/// What a cart becomes.
#[derive(Clone, Copy)]
pub struct Checkout {
    pub key: CartKey,
    /// Whose order it becomes.
    pub user_id: UserId,
    /// How long its units are set aside, if they are.
    pub hold: Option<Duration>,
}

impl Checkout {
    /// The order that the cart becomes, or became before. It is made of the lines as they are when this begins; until it
    /// is over, the cart does not change.
    ///
    /// # Errors
    /// Those of carts, and as [`orders::create`].
    pub async fn run(self, app: &App, intake: &OrderIntake, mut cart: CartRequest<'_>) -> Result<Created, Error> {
        let lines = match cart.begin_checkout(self.user_id).await {
            Ok(cart) => cart.lines,
            // It may have become an order before it vanished.
            Err(Error::CartNotFound) => return self.find_order(app).await?.ok_or(Error::CartNotFound),
            Err(error) => return Err(error),
        };

        match self.create_order(app, intake, lines).await {
            Ok(created) => {
                let finished = cart.finish_checkout(created.order.row.id).await;
                if let Err(error) = finished {
                    // The cart can still be changed; checking it out gives this order all the same.
                    tracing::debug!(%error, "a cart that is checked out could not be marked so");
                }
                Ok(created)
            }
            Err(error) => {
                if error.is_refusal() {
                    // If that fails, the cart cannot be changed for some seconds.
                    let _ = cart.release_checkout().await;
                }
                Err(error)
            }
        }
    }

    async fn create_order(self, app: &App, intake: &OrderIntake, lines: Vec<Line>) -> Result<Created, Error> {
        let (id, created_at) = new_id(app.db.time());
        let new = NewOrder {
            id,
            user_id: self.user_id,
            lines,
            currency: app.config.catalog.currency.clone(),
            idempotency_key: Some(self.key.idempotency_key()),
            hold: self.hold,
            labels: Labels::default(),
            created_at,
        };

        match intake.create(new).await {
            // The first checkout asked for another hold, or the cart was changed after one whose outcome nobody came to know.
            Err(Error::IdempotencyKeyReused) => {
                let order = self.find_order(app).await?;
                order.ok_or_else(|| Error::Internal("the order of a cart was not found".to_owned()))
            }
            Err(Error::UnknownProducts(lines)) => {
                let gone = lines.into_iter().map(|(_, product_id)| product_id);
                Err(Error::ProductsGone(gone.collect()))
            }
            created => created,
        }
    }

    /// The order that the cart became.
    async fn find_order(self, app: &App) -> Result<Option<Created>, Error> {
        let key = self.key.idempotency_key();
        app.db
            .timeout(READ_TIMEOUT, orders::find_by_key(app.db.read(), self.user_id, &key))
            .await
    }
}
