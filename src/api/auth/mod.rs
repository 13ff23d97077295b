//! Who is calling, and how often they may.

use poem::{FromRequest, Request, RequestBody};

use jwt::Identity;

use crate::{domain::Caller, http::problem::Problem};

pub mod jwt;
pub mod layer;
mod rate_limit;

/// The caller that [`layer::AuthLayer`] has found, as a parameter of operations.
impl<'a> FromRequest<'a> for Caller {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let identity = Identity::from_request(request, body).await?;
        Ok(identity.caller)
    }
}

/// The caller with the user that they are, where users are known.
impl<'a> FromRequest<'a> for Identity {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let identity = request.data::<Self>().copied();
        identity.ok_or_else(|| Problem::internal("a request came past the authentication").into())
    }
}
