//! Who is calling, and how often they may.

use poem::{FromRequest, Request, RequestBody};

use crate::{domain::Caller, http::problem::Problem};

pub mod jwt;
pub mod layer;
mod rate_limit;

pub use jwt::Identity;

/// The sender that [`layer::AuthLayer`] has found, as a parameter of operations that note who did something.
impl<'a> FromRequest<'a> for Identity {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let identity = request.data::<Self>().copied();
        identity.ok_or_else(|| Problem::internal("a request came past the authentication").into())
    }
}

/// A sender who is an administrator, as a parameter of operations that nobody else may use: whatever else is wrong with the
/// request, others are told that, and their bodies are not read.
pub struct Administrator(pub Identity);

impl<'a> FromRequest<'a> for Administrator {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let identity = Identity::from_request(request, body).await?;
        identity.caller.require_admin().map_err(Problem::from)?;
        Ok(Self(identity))
    }
}

/// What the sender may see and do, as a parameter of operations.
impl<'a> FromRequest<'a> for Caller {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        Ok(Identity::from_request(request, body).await?.caller)
    }
}
