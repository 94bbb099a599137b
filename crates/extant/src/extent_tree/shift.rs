//! Moving extents along the file, one leaf a step: what collapse and insert do to what lies behind them.

use extant_format::corruption::{Place, Rule};
use extant_format::extent::Extent;
use extant_format::{LogicalBlock, LogicalRange};

use super::nodes::NodeSpace;
use super::{ExtentTree, Path, window};
use crate::Error;
use crate::transaction::Handle;

/// Which way extents move, and by how many blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shift {
    /// Towards the start of the file, into a hole at least as long.
    Down(u32),
    /// Towards the end.
    Up(u32),
}

impl Shift {
    /// Where `blocks` come to lie; `None` if no file has such blocks.
    pub(crate) fn of(self, blocks: LogicalRange) -> Option<LogicalRange> {
        let start = match self {
            Self::Down(by) => blocks.start().get().checked_sub(by),
            Self::Up(by) => blocks.start().get().checked_add(by),
        };
        LogicalRange::new(start?, blocks.len())
    }
}

impl ExtentTree<'_> {
    /// Cuts the extent that has `block` inside in two, so that one begins there; stores the inode.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::TransactionFull`] with the tree as it was.
    /// # Source
    /// Kernel `ext4_split_extent_at`, as `ext4_insert_range` calls it.
    pub(crate) fn split_at(
        &self,
        handle: &mut Handle<'_>,
        block: LogicalBlock,
    ) -> Result<(), Error> {
        let path = self.find(block)?;
        let (Some(extent), Some(at)) = (self.nearest(&path), path.leaf().position) else {
            return Ok(());
        };
        let end = extent.blocks.end();
        let (Some(head), Some(tail)) = (
            LogicalRange::between(extent.blocks.start(), block.get().min(end)),
            LogicalRange::between(block, end),
        ) else {
            return Ok(());
        };
        let pieces = [head, tail].map(|blocks| window::part(extent, blocks).expect("a part of it"));
        self.splice(handle, &path, at..at + 1, &pieces, NodeSpace::Reserved)?;
        self.all_or_abort(self.store(handle))
    }

    /// Where the last extent ends; 0 in an empty tree.
    pub(crate) fn end(&self) -> Result<u32, Error> {
        let path = self.find(LogicalBlock::LAST)?;
        Ok(self.nearest(&path).map_or(0, |extent| extent.blocks.end()))
    }

    /// How many leaves may have blocks of `from` or behind it. Reads them all.
    pub(crate) fn leaves_from(&self, from: LogicalBlock) -> Result<u32, Error> {
        let (mut leaves, mut next) = (0, Some(from));
        while let Some(block) = next {
            leaves += 1;
            next = LogicalBlock::new(self.find(block)?.leaf().expected.end);
        }
        Ok(leaves)
    }

    /// Moves those extents of one leaf that begin in `reach`, into which none reaches from before; stores the inode. Takes
    /// the leaves in the order in which none gets in the way of the next. Returns where there may be more.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] with the tree as it was; [`Error::Corrupt`] if an extent would leave the file.
    /// # Source
    /// Kernel `ext4_ext_shift_extents`, `ext4_ext_shift_path_extents`.
    pub(crate) fn shift_leaf(
        &self,
        handle: &mut Handle<'_>,
        reach: LogicalRange,
        shift: Shift,
    ) -> Result<Option<LogicalRange>, Error> {
        let path = match shift {
            Shift::Down(_) => self.find(reach.start())?,
            Shift::Up(_) => self.find(reach.last())?,
        };
        let extents = self.leaf_extents(&path);
        let begins = |extent: &Extent| extent.blocks.start();
        let first = extents.partition_point(|extent| begins(extent) < reach.start());
        let last = extents.partition_point(|extent| begins(extent).get() < reach.end());
        if first < last {
            self.ensure(handle, path.levels.len(), 0, 0)?;
            let moved = extents[first..last].iter().map(|extent| {
                let blocks = shift.of(extent.blocks);
                Ok(Extent { blocks: blocks.ok_or_else(|| self.breaks())?, ..*extent })
            });
            let moved = moved.collect::<Result<alloc::vec::Vec<_>, Error>>()?;
            let done = self.replace(handle, &path, first..last, &moved);
            self.all_or_abort(done.and_then(|()| self.store(handle)))?;
        }
        Ok(match shift {
            Shift::Down(_) => LogicalBlock::new(path.leaf().expected.end)
                .and_then(|next| LogicalRange::between(next, reach.end())),
            Shift::Up(_) => path
                .leaf()
                .expected
                .first
                .filter(|first| first.get() < reach.end()) // else it is the first leaf of all
                .and_then(|first| LogicalRange::between(reach.start(), first.get())),
        })
    }

    /// Joins the extent that begins at `block`, if one does, with its neighbours in the leaf; stores the inode.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] with the tree as it was.
    pub(crate) fn join_at(
        &self,
        handle: &mut Handle<'_>,
        block: LogicalBlock,
    ) -> Result<(), Error> {
        let path: Path = self.find(block)?;
        let (Some(extent), Some(at)) = (self.nearest(&path), path.leaf().position) else {
            return Ok(());
        };
        if extent.blocks.start() != block {
            return Ok(());
        }
        let (old, mut new) = self.with_neighbours(&path, at..at + 1, &[extent]);
        self.splice_joined(handle, &path, old, &mut new, NodeSpace::Reserved)?;
        self.all_or_abort(self.store(handle))
    }

    fn breaks(&self) -> Error {
        Place::Inode(self.inode.number()).breaks(Rule::ExtentOrder).into()
    }
}
