//! From paths to inodes.

use super::{Filesystem, InodeHandle};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;

/// Symbolic links that one path may lead through.
///
/// Source: kernel `include/linux/namei.h`, `MAXSYMLINKS`.
const MAX_LINKS: u32 = 40;

/// What to do with a symbolic link at the path's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Last {
    /// Go where it leads.
    Follow,
    /// It is what was asked for.
    Keep,
}

/// The names in a path; "." leads nowhere.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

impl Filesystem {
    /// The root directory.
    ///
    /// # Errors
    /// Of reading its inode.
    pub fn root(&self) -> Result<InodeHandle, Error> {
        InodeHandle::new(&self.volume, self.volume.root()?)
    }

    /// What is at `path`; a symbolic link is followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::LinkLoop`].
    pub fn inode(&self, path: impl AsRef<[u8]>) -> Result<InodeHandle, Error> {
        self.resolve(path.as_ref(), Last::Follow)
    }

    /// What is at `path`, itself a symbolic link or not.
    ///
    /// # Errors
    /// As [`Self::inode`].
    pub fn symlink_inode(&self, path: impl AsRef<[u8]>) -> Result<InodeHandle, Error> {
        self.resolve(path.as_ref(), Last::Keep)
    }

    /// The inode that a path leads to.
    pub(super) fn resolve(&self, path: &[u8], last: Last) -> Result<InodeHandle, Error> {
        let root = self.root()?;
        let mut todo: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let wants_directory = path.ends_with(b"/");
        let mut at = root.clone();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            let found = InodeHandle::new(
                &self.volume,
                self.volume.lookup(&Caller::ROOT, &at.inode, &name)?,
            )?;
            let is_last = todo.is_empty();
            if found.is_symlink() && (!is_last || last == Last::Follow || wants_directory) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::LinkLoop);
                }
                let target = self.volume.read_link(&found.inode)?;
                if target.is_empty() {
                    return Err(Error::NotFound);
                }
                if target.starts_with(b"/") {
                    at = root.clone();
                }
                for name in components(&target).map(<[u8]>::to_vec).rev_into() {
                    todo.push_front(name);
                }
                continue;
            }
            at = found;
        }
        if wants_directory && !at.is_dir() {
            return Err(Error::NotDirectory);
        }
        Ok(at)
    }

    /// The directory that a path's last name belongs to, and that name.
    pub(super) fn parent_of<'p>(&self, path: &'p [u8]) -> Result<(InodeHandle, &'p [u8]), Error> {
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        let path = &path[..end];
        if path.is_empty() {
            return Err(Error::Invalid("the root directory has no name"));
        }
        let start = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let parent = self.resolve(&path[..start], Last::Follow)?;
        if !parent.is_dir() {
            return Err(Error::NotDirectory);
        }
        Ok((parent, &path[start..]))
    }

    /// Makes something new at `path`.
    pub(super) fn make(
        &self,
        path: &[u8],
        make: impl FnOnce(&Arc<Inode>, &[u8]) -> Result<Arc<Inode>, Error>,
    ) -> Result<InodeHandle, Error> {
        let (parent, name) = self.parent_of(path)?;
        InodeHandle::new(&self.volume, make(&parent.inode, name)?)
    }
}

/// Names from last to first, for putting them in front of others.
trait ReverseIntoIter: Iterator + Sized {
    fn rev_into(self) -> core::iter::Rev<alloc::vec::IntoIter<Self::Item>> {
        self.collect::<Vec<_>>().into_iter().rev()
    }
}

impl<I: Iterator> ReverseIntoIter for I {}
