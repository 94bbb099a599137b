//! Names as callers give them, checked once.

use extant_format::directory::MAX_NAME_BYTES;

use crate::Error;

/// What a caller's name leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Name<'a> {
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// A name that a directory can hold.
    Entry(&'a [u8]),
}

impl<'a> Name<'a> {
    /// Checks a caller's bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] for no bytes at all, as for an empty path; [`Error::NameTooLong`] beyond 255 bytes;
    /// [`Error::Invalid`] for a slash or a zero inside.
    pub(super) fn parse(name: &'a [u8]) -> Result<Self, Error> {
        match name {
            b"" => Err(Error::NotFound),
            b"." => Ok(Self::Dot),
            b".." => Ok(Self::DotDot),
            _ if name.len() > MAX_NAME_BYTES => Err(Error::NameTooLong),
            _ if name.iter().any(|byte| matches!(byte, 0 | b'/')) => {
                Err(Error::Invalid("a name has no slash and no zero"))
            }
            _ => Ok(Self::Entry(name)),
        }
    }

    /// The name of something to be made.
    ///
    /// # Errors
    /// As [`Self::parse`]; [`Error::Exists`] for the dots.
    /// # Source
    /// Kernel `fs/namei.c`, `filename_create`.
    pub(super) fn to_create(name: &'a [u8]) -> Result<&'a [u8], Error> {
        Self::entry(name, Error::Exists, Error::Exists)
    }

    /// The name of a file to be removed; the dots are directories.
    ///
    /// Source: kernel `fs/namei.c`, `do_unlinkat`.
    pub(super) fn to_unlink(name: &'a [u8]) -> Result<&'a [u8], Error> {
        Self::entry(name, Error::IsDirectory, Error::IsDirectory)
    }

    /// The name of a directory to be removed.
    ///
    /// Source: kernel `fs/namei.c`, `do_rmdir`.
    pub(super) fn to_rmdir(name: &'a [u8]) -> Result<&'a [u8], Error> {
        Self::entry(
            name,
            Error::Invalid("a directory cannot be removed by its own dot"),
            Error::NotEmpty,
        )
    }

    /// A name to be moved, or moved to.
    ///
    /// Source: kernel `fs/namei.c`, `do_renameat2`.
    pub(super) fn to_rename(name: &'a [u8]) -> Result<&'a [u8], Error> {
        const DOTS: Error = Error::Busy("the dots of a directory stay");
        Self::entry(name, DOTS, DOTS)
    }

    fn entry(name: &'a [u8], dot: Error, dot_dot: Error) -> Result<&'a [u8], Error> {
        match Self::parse(name)? {
            Self::Entry(name) => Ok(name),
            Self::Dot => Err(dot),
            Self::DotDot => Err(dot_dot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Errno;

    fn errno(result: Result<&[u8], Error>) -> Errno {
        result.expect_err("refused").errno()
    }

    #[test]
    fn every_operation_refuses_what_is_no_name() {
        for check in [Name::to_create, Name::to_unlink, Name::to_rmdir, Name::to_rename] {
            assert_eq!(errno(check(b"")), Errno::NOENT);
            assert_eq!(errno(check(&[b'x'; 256])), Errno::NAMETOOLONG);
            assert_eq!(errno(check(b"a/b")), Errno::INVAL);
            assert_eq!(errno(check(b"a\0b")), Errno::INVAL);
            assert!(check(&[b'x'; 255]).is_ok() && check(b"...").is_ok());
        }
    }

    #[test]
    fn dots_have_the_errno_of_their_operation() {
        assert_eq!(errno(Name::to_create(b"..")), Errno::EXIST);
        assert_eq!(errno(Name::to_unlink(b".")), Errno::ISDIR);
        assert_eq!(errno(Name::to_rmdir(b".")), Errno::INVAL);
        assert_eq!(errno(Name::to_rmdir(b"..")), Errno::NOTEMPTY);
        assert_eq!(errno(Name::to_rename(b".")), Errno::BUSY);
        assert_eq!(Name::parse(b"..").unwrap(), Name::DotDot);
    }
}
