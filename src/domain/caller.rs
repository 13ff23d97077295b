//! Who asks. Whatever reads or changes an order takes a [`Caller`], so that nobody can forget to ask whose order it is.

use super::{Error, UserId};

/// On whose behalf something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// May see and do everything: an administrator, or anybody where nobody has to say who they are.
    Admin,
    /// May see and do what concerns themselves.
    User(UserId),
    /// Somebody unknown, to whom nothing belongs.
    Anonymous,
}

impl Caller {
    /// Whether an order of `owner` exists as far as this caller is told.
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
