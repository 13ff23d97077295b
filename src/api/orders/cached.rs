//! The layer that answers settled orders from the local cache before a request is routed and parsed. A settled order
//! does not change any more, so its answer is the bytes that were sent first.

use poem::{
    Endpoint, IntoResponse as _, Request, Response,
    http::{Method, Uri},
};

use super::answers::FindAnswer;
use crate::{
    api::auth::Identity,
    cache::{Cache, SettledOrder},
    domain::OrderId,
    http::conditional::IfNoneMatch,
};

/// Answers `GET /orders/{id}` from the local cache to those who may see the order.
pub struct CachedOrders<E> {
    inner: E,
    cache: Cache,
}

impl<E> CachedOrders<E> {
    pub fn new(inner: E, cache: Cache) -> Self {
        Self { inner, cache }
    }

    async fn cached(&self, request: &Request) -> Option<SettledOrder> {
        let id = order_id(request.uri()).filter(|_| matches!(*request.method(), Method::GET | Method::HEAD))?;
        let sender: &Identity = request.data()?;

        // Whatever is refused is refused by the handler.
        let order = self.cache.local_settled_order(id).await?;
        sender.caller.can_view(order.user_id).then_some(order)
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for CachedOrders<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        match self.cached(&request).await {
            Some(order) => {
                let if_none_match = IfNoneMatch::of(request.headers());
                Ok(FindAnswer::new(order.body, &if_none_match, None).into_response())
            }
            None => self.inner.call(request).await,
        }
    }
}

/// The order that a path names, and nothing below it or beside it: not its events, and no query.
fn order_id(uri: &Uri) -> Option<OrderId> {
    let id = uri.path().strip_prefix("/orders/")?;
    uri.query().is_none().then(|| id.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_an_order_names_one() {
        let id = "019bc0d2-3b7a-7c3e-9d52-5f0c7a4e8b11";
        let named = |uri: &str| order_id(&uri.parse().expect("a URI")).map(|id| id.to_string());

        assert_eq!(named(&format!("/orders/{id}")).as_deref(), Some(id));
        for other in ["/events", "/", "?limit=1"] {
            assert_eq!(named(&format!("/orders/{id}{other}")), None, "{other}");
        }
        assert_eq!(named("/orders/7"), None);
    }
}
