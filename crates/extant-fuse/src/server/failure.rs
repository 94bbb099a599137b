//! [`Failure`]: why a request is refused, as far as the server has to know.

use extant::{Errno, Error};

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server's own reasons have a number each.
    Number(Errno),
    /// The volume's say more: what is damaged, and where.
    Volume(Error),
}

impl Failure {
    /// What the kernel is told.
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Number(errno) => *errno,
            Self::Volume(error) => error.errno(),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Number(errno)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Volume(error)
    }
}
