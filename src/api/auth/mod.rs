//! Who is calling, and how often they may.

use poem::{FromRequest, Request, RequestBody};

use crate::{domain::Caller, http::problem::Problem};

pub mod jwt;
pub mod layer;
mod rate_limit;

/// The caller that [`layer::AuthLayer`] has found, as a parameter of operations.
impl<'a> FromRequest<'a> for Caller {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let caller = request.data::<Self>().copied();
        caller.ok_or_else(|| Problem::internal("a request came past the authentication").into())
    }
}
