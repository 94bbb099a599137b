//! Removing a range, from its end to its start, one leaf a step.

use core::ops::Range;

use extant_format::corruption::{Place, Rule};
use extant_format::extent::Extent;
use extant_format::{LogicalRange, PhysicalBlock};
use smallvec::SmallVec;

use super::nodes::NodeSpace;
use super::path::Node;
use super::{ExtentTree, Path, TouchedGroups, window};
use crate::Error;
use crate::allocator::FreeFlags;
use crate::transaction::Handle;

/// What one step of a removal did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cut {
    /// What the tree has no more, from right to left; its blocks are still to be freed.
    pub(crate) removed: SmallVec<[Extent; 8]>,
    /// Where there may be more to remove.
    pub(crate) rest: Option<LogicalRange>,
}

/// A piece freed in one step has at most as many blocks as so many groups.
const GROUPS_PER_PIECE: u32 = 8;
/// Blocks that are revoked one by one, freed in one step.
const REVOKES_PER_PIECE: u32 = 1024;

impl ExtentTree<'_> {
    /// Takes the end of `range` out of the tree: as much of it as one leaf has and the handle's credits allow. The caller
    /// frees what was removed, with the credits that are left, and stores the inode; with `revoke_data`, one revoke a block.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if the credits do not even allow one piece, [`Error::NoSpace`] if an extent has to be
    /// split for which no node is left; the tree is as before.
    /// # Source
    /// Kernel `ext4_ext_remove_space`, `ext4_ext_rm_leaf` (D22.4).
    pub(crate) fn cut(
        &self,
        handle: &mut Handle<'_>,
        range: LogicalRange,
        revoke_data: bool,
    ) -> Result<Cut, Error> {
        let path = self.find(range.last())?;
        let Some(last) = path.leaf().position else { return Ok(Cut::default()) };
        let (removed, entries) = self.choose(handle, &path, range, revoke_data, last)?;
        let Some(leftmost) = removed.last() else { return Ok(Cut::default()) };
        let rest = LogicalRange::between(range.start(), leftmost.blocks.start().get());
        let extent =
            |i| self.view(&path.leaf().node, |view| view.extent(i)).expect("just looked at");
        let (before, _) = window::around(extent(entries.start), leftmost.blocks);
        let (_, after) = window::around(extent(last), removed[0].blocks);
        let kept: SmallVec<[Extent; 2]> = before.into_iter().chain(after).collect();
        if !kept.is_empty() {
            self.splice(handle, &path, entries, &kept, NodeSpace::Reserved)?;
        } else if entries.len() < path.leaf().len || path.depth() == 0 {
            self.all_or_abort(self.replace(handle, &path, entries, &[]))?;
        } else {
            self.all_or_abort(self.drop_leaf(handle, &path))?;
        }
        Ok(Cut { removed, rest })
    }

    /// The pieces to remove, right to left, and the entries of the leaf that they come from.
    fn choose(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        range: LogicalRange,
        revoke_data: bool,
        last: usize,
    ) -> Result<(SmallVec<[Extent; 8]>, Range<usize>), Error> {
        let per_group = self.geometry().blocks_per_group;
        let limit = if revoke_data {
            REVOKES_PER_PIECE
        } else {
            per_group.saturating_mul(GROUPS_PER_PIECE)
        };
        let levels = u32::try_from(path.levels.len()).expect("six at most");
        // The nodes on the path and those of a split; bitmap and descriptor of each that is taken or freed; the inode.
        let (nodes, mut revokes) = (4 * levels + 1, levels - 1);
        let mut groups = TouchedGroups::default();
        let mut removed = SmallVec::new();
        let mut entries = last + 1..last + 1;
        for i in (0..=last).rev() {
            let Some(extent) = self.view(&path.leaf().node, |view| view.extent(i)) else { break };
            let Some(whole) = window::part(extent, range) else { break };
            let len = whole.blocks.len().min(limit);
            let tail =
                LogicalRange::new(whole.blocks.end() - len, len).expect("a part of the extent");
            let piece = window::part(extent, tail).expect("a part of the extent");
            let blocks = piece.device_blocks().expect("checked on the way down");
            let owns = self.allocator.may_own(self.inode.number(), blocks);
            Place::Inode(self.inode.number()).require(owns, Rule::ExtentPlace)?;
            revokes += if revoke_data { len } else { 0 };
            let room = match groups.add(self.geometry(), blocks) {
                Some(credits) => handle.ensure_credits(nodes + credits, revokes),
                None => Err(Error::TransactionFull),
            };
            match room {
                Err(Error::TransactionFull) if !removed.is_empty() => break,
                room => room?,
            }
            removed.push(piece);
            entries.start = i;
            if len < whole.blocks.len() {
                break;
            }
        }
        Ok((removed, entries))
    }

    /// Takes the path's leaf out of the tree, and the nodes above that have no other child.
    ///
    /// Source: kernel `ext4_ext_rm_idx`.
    fn drop_leaf(&self, handle: &mut Handle<'_>, path: &Path) -> Result<(), Error> {
        let mut freed: SmallVec<[PhysicalBlock; 5]> = SmallVec::new();
        for (depth, level) in path.levels.iter().enumerate().rev() {
            if let Some(child) = path.levels.get(depth + 1) {
                let at = level.child();
                let key = self.change(handle, &level.node, |mut node| {
                    node.remove(at..at + 1);
                    node.view().first_block(0)
                })?;
                debug_assert!(!matches!(child.node, Node::Root), "the root is nobody's child");
                match key {
                    Some(key) if at == 0 => {
                        self.correct_keys(handle, &path.levels[..=depth], key)?
                    }
                    _ => {}
                }
                if key.is_some() {
                    break;
                }
            }
            match &level.node {
                Node::Block(block) => freed.push(block.number()),
                Node::Root => self.change(handle, &level.node, |mut root| root.set_depth(0))?,
            }
        }
        freed.iter().try_for_each(|&block| {
            self.give_back(handle, block, FreeFlags::METADATA | FreeFlags::FORGET)
        })
    }
}
