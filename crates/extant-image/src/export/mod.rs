//! A tree of a mounted file system as a tar: pax, with everything that an inode has and a tar can say.
//!
//! [`export`] walks from a root on and writes as it goes; what it is told of on the way goes to an [`Observer`]. Entries come in one
//! order, which is the tree's own: parents first, names sorted as bytes. So the same tree gives the same bytes.
//!
//! # Invariants
//! Every name in a tar is a path below its root: a name of an image that has a slash in it is left out and told. What an entry's header
//! promises follows, also if reading fails half way: zeros take the place of what cannot be read, and that is told. Memory holds
//! one directory's names a level, and the paths of files whose further names are still to come.
//! # Locking
//! None of its own.
//! # Not here
//! Compression, and where the bytes go; copies into directories (the command line's `cp`).
//! # Source
//! POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Extended Header"; GNU tar's manual, "Extended File Attributes" and
//! "Storing Sparse Files", "PAX Format, Version 1.0"; star(5) for `SCHILY.xattr` and
//! `SCHILY.acl`: access lists are both, since GNU tar takes them from the latter alone.

mod entry;
mod header;
#[cfg(test)]
mod tests;
mod walk;

use std::io;

use extant::{Error, InodeHandle};

/// What is written beside the usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportOptions {
    /// Times of access too.
    pub access_times: bool,
}

/// Who listens to an export.
pub trait Observer {
    /// An entry begins; an error ends the export.
    ///
    /// # Errors
    /// Whatever shall end it.
    fn entry(&mut self, path: &[u8]) -> io::Result<()>;

    /// So many bytes of contents were written.
    fn bytes(&mut self, count: u64) {
        let _ = count;
    }

    /// Something is not in the tar as it is in the image; the export goes on.
    fn left_out(&mut self, path: &[u8], why: &LeftOut);
}

/// Why something is not in a tar as it is in the image.
#[derive(Debug, thiserror::Error)]
pub enum LeftOut {
    /// A tar has no way to say it.
    #[error("a socket cannot be in a tar, and is left out")]
    Socket,
    /// The name would be a path.
    #[error("a name with a slash or a zero in it is left out")]
    Name,
    /// The file cannot be read, or not to its end: then zeros follow.
    #[error(transparent)]
    Unreadable(#[from] Error),
}

/// Writes the tree at `root` to `out`, to its end marker: a directory with all that is below it, or one file called `name`.
///
/// # Errors
/// Those of `out` and of the observer.
pub fn export(
    root: &InodeHandle,
    name: &[u8],
    options: ExportOptions,
    out: &mut dyn io::Write,
    observer: &mut dyn Observer,
) -> io::Result<()> {
    walk::Walk::new(options, out, observer).run(root, name)
}
