//! Inserting an extent where the tree has a hole.

use extant_format::corruption::{Place, Rule};
use extant_format::extent::Extent;

use super::nodes::NodeSpace;
use super::{ExtentTree, Path, window};
use crate::Error;
use crate::transaction::Handle;

/// Whether an extent may join its neighbours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Joining {
    /// At once.
    Now,
    /// Once it is an extent of its own: the tree has to have room for all pieces of the one that it was part of.
    AfterSplit,
    /// Not before the end of the I/O that is about to fill it (`PRE_IO`).
    Later,
}

impl ExtentTree<'_> {
    /// Inserts `extent`, to whose first block `path` leads, and stores the inode if its root or its count of blocks changes.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::TransactionFull`] with the tree as it was; [`Error::Corrupt`] if there is an extent.
    /// # Source
    /// Kernel `ext4_ext_insert_extent`, `ext4_ext_dirty` (D20.10, D20.11).
    pub(crate) fn insert(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        extent: Extent,
        joining: Joining,
        space: NodeSpace,
    ) -> Result<(), Error> {
        let at = path.insertion_point();
        let is_free = extent.blocks.end() <= self.next_start(path)
            && self
                .nearest(path)
                .is_none_or(|before| before.blocks.end() <= extent.blocks.start().get());
        Place::Inode(self.inode.number()).require(is_free, Rule::ExtentOrder)?;
        let before = self.in_inode();
        match joining {
            Joining::Later => self.splice(handle, path, at..at, &[extent], space)?,
            Joining::Now if self.joins_once_inside(path, extent) => {
                self.splice(handle, path, at..at, &[extent], space)?;
                let path = self.all_or_abort(self.find(extent.blocks.start()))?;
                match self.exchange(handle, &path, &[extent], Joining::Now, space) {
                    // The handle has room for no more: it stays an extent of its own.
                    Err(Error::TransactionFull) => {}
                    joined => self.all_or_abort(joined)?,
                }
            }
            Joining::Now | Joining::AfterSplit => {
                let (old, mut new) = self.with_neighbours(path, at..at, &[extent]);
                self.splice_joined(handle, path, old, &mut new, space)?;
            }
        }
        if self.in_inode() == before {
            return Ok(());
        }
        self.all_or_abort(self.store(handle))
    }

    /// Whether `extent` joins the one behind it only once it is in the tree, for which a full leaf has to be split: the kernel
    /// looks there at once only if the one before does not end where this begins.
    ///
    /// Source: kernel `ext4_ext_insert_extent`.
    fn joins_once_inside(&self, path: &Path, extent: Extent) -> bool {
        let leaf = path.leaf();
        let behind = || self.view(&leaf.node, |view| view.extent(path.insertion_point()));
        leaf.len == leaf.capacity
            && self.nearest(path).is_some_and(|before| {
                before.blocks.end() == extent.blocks.start().get()
                    && !window::can_join(&before, &extent)
            })
            && behind().is_some_and(|behind| window::can_join(&extent, &behind))
    }

    /// Joins the extents of `new` and puts them where `old` was; the tree may become shallower.
    pub(super) fn splice_joined(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        mut old: core::ops::Range<usize>,
        new: &mut window::Window,
        space: NodeSpace,
    ) -> Result<(), Error> {
        window::join(new);
        // Neighbours that stay as they are stay where they are, so that a full leaf is split at the new extent; only what
        // comes first in its leaf takes the one behind it along.
        let leaf = path.leaf();
        let same = |i: usize, extent: Option<&Extent>| {
            self.view(&leaf.node, |view| view.extent(i)).as_ref() == extent
        };
        if old.len() > 1 && new.len() > 1 && same(old.end - 1, new.last()) {
            new.pop();
            old.end -= 1;
        }
        if !old.is_empty() && new.len() > 1 && same(old.start, new.first()) {
            new.remove(0);
            old.start += 1;
        }
        let in_place = leaf.len - old.len() + new.len() <= leaf.capacity;
        self.splice(handle, path, old, new, space)?;
        if in_place { self.collapse(handle, path) } else { Ok(()) }
    }
}
