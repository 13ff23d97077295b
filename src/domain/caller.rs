//! Who asks. Every function that reads or pays an order takes a [`Caller`], so that a missing check does not compile.

use super::{Error, UserId};

/// On whose behalf something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// May see and do everything: an administrator, or anybody where authentication is off.
    Admin,
    /// May see and do what is their own.
    User(UserId),
    /// Nobody in particular, to whom no order belongs.
    Anonymous,
}

impl Caller {
    /// Whether this caller may know of an order of `owner`.
    #[must_use]
    pub fn can_view(self, owner: UserId) -> bool {
        match self {
            Self::Admin => true,
            Self::User(user) => user == owner,
            Self::Anonymous => false,
        }
    }

    /// # Errors
    /// [`Error::Forbidden`] unless the caller may act for this user.
    pub fn authorize_for(self, user: UserId) -> Result<(), Error> {
        if self.can_view(user) {
            return Ok(());
        }
        Err(Error::Forbidden("you can only act for yourself".to_owned()))
    }

    /// # Errors
    /// [`Error::Forbidden`] unless the caller may change the catalogue.
    pub fn require_admin(self) -> Result<(), Error> {
        match self {
            Self::Admin => Ok(()),
            Self::User(_) | Self::Anonymous => Err(Error::Forbidden("this needs the scope shop:admin".to_owned())),
        }
    }
}
