//! From paths to inodes.

use super::{Filesystem, InodeHandle};
use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::InodeNumber;

use crate::Error;
use crate::caller::Caller;
use crate::inode::Inode;

/// Symbolic links that one path may lead through.
///
/// Source: kernel `include/linux/namei.h`, `MAXSYMLINKS`.
pub(super) const MAX_LINKS: u32 = 40;

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
    let mut done = 0;
    core::iter::from_fn(move || {
        let name = next_name(path, done)?;
        done = name.end;
        Some(&path[name])
    })
}

/// Where the first name behind `from` is in a path.
fn next_name(path: &[u8], from: usize) -> Option<Range<usize>> {
    let mut start = from;
    loop {
        start += path[start..].iter().position(|&byte| byte != b'/')?;
        let end = path[start..].iter().position(|&byte| byte == b'/');
        let end = end.map_or(path.len(), |len| start + len);
        if &path[start..end] != b"." {
            return Some(start..end);
        }
        start = end;
    }
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

    /// The inode with this number, whatever its names are, if it is still the one of this generation: what a program keeps
    /// of a file instead of a handle.
    ///
    /// # Errors
    /// [`Error::Stale`] if it is gone, or another one has its number.
    pub fn inode_numbered(
        &self,
        number: InodeNumber,
        generation: u32,
    ) -> Result<InodeHandle, Error> {
        let inode = self.volume.inode_numbered(number)?;
        let handle = InodeHandle::new(&self.volume, inode).map_err(|_| Error::Stale(number))?;
        match handle.metadata()?.generation == generation {
            true => Ok(handle),
            false => Err(Error::Stale(number)),
        }
    }

    /// The inode that a path leads to.
    pub(super) fn resolve(&self, path: &[u8], last: Last) -> Result<InodeHandle, Error> {
        let root = self.root()?;
        let wants_directory = path.ends_with(b"/");
        let mut at = root.clone();
        // Where a link leads comes in front of what was left behind it.
        let mut path = Cow::Borrowed(path);
        let (mut done, mut links) = (0, 0);
        while let Some(name) = next_name(&path, done) {
            let found = self.volume.lookup(&Caller::ROOT, &at.inode, &path[name.clone()])?;
            let found = InodeHandle::new(&self.volume, found)?;
            done = name.end;
            let follows = last == Last::Follow || wants_directory;
            if found.is_symlink() && (follows || next_name(&path, done).is_some()) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::LinkLoop);
                }
                let mut target = self.volume.read_link(&found.inode)?;
                if target.is_empty() {
                    return Err(Error::NotFound);
                }
                if target.starts_with(b"/") {
                    at = root.clone();
                }
                target.push(b'/');
                target.extend_from_slice(&path[done..]);
                (path, done) = (Cow::Owned(target), 0);
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

    /// Where the symbolic link at `path` leads, as a path from the root.
    pub(super) fn behind_link(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        let (parent, name) = self.parent_of(path)?;
        let target =
            self.volume.read_link(&self.volume.lookup(&Caller::ROOT, &parent.inode, name)?)?;
        if target.starts_with(b"/") {
            return Ok(target);
        }
        let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        let mut whole = path[..end - name.len()].to_vec();
        whole.extend_from_slice(&target);
        Ok(whole)
    }

    /// What a slash behind the last name asks of a name that no directory is to have: that there be nothing, or none.
    ///
    /// # Errors
    /// [`Error::Exists`] if something has the name, else [`Error::NotFound`].
    fn refuse_slash(&self, path: &[u8], parent: &InodeHandle, name: &[u8]) -> Result<(), Error> {
        if !path.ends_with(b"/") {
            return Ok(());
        }
        self.volume.lookup(&Caller::ROOT, &parent.inode, name)?;
        Err(Error::Exists)
    }

    /// The directory and the name of something new that is no directory.
    ///
    /// # Errors
    /// As [`Self::parent_of`], and for a slash at the end.
    pub(super) fn place_of<'p>(&self, path: &'p [u8]) -> Result<(InodeHandle, &'p [u8]), Error> {
        let (parent, name) = self.parent_of(path)?;
        self.refuse_slash(path, &parent, name)?;
        Ok((parent, name))
    }

    /// Makes something new at `path`.
    pub(super) fn make(
        &self,
        path: &[u8],
        make: impl FnOnce(&Arc<Inode>, &[u8]) -> Result<Arc<Inode>, Error>,
    ) -> Result<InodeHandle, Error> {
        let (parent, name) = match self.parent_of(path) {
            // The root is there.
            Err(Error::Invalid(_)) => return Err(Error::Exists),
            found => found?,
        };
        InodeHandle::new(&self.volume, make(&parent.inode, name)?)
    }
}
