//! Removing a range, from its end to its start, leaf by leaf.

use core::ops::Range;

use extant_format::corruption::{Place, Rule};
use extant_format::extent::Extent;
use extant_format::{LogicalBlock, LogicalRange, PhysicalBlock};
use smallvec::SmallVec;

use super::path::Node;
use super::{ExtentTree, Path, TouchedGroups, window};
use crate::Error;
use crate::allocator::FreeFlags;
use crate::trace::Event;
use crate::transaction::Handle;

/// What is to be taken out of one leaf.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Cut {
    /// From right to left: each extent as it is, and the block from which on it goes.
    pub(crate) removed: SmallVec<[(Extent, LogicalBlock); 8]>,
    /// The extent left of them in the leaf.
    pub(crate) left: Option<Extent>,
    /// The leaf has more of the range than the handle has credits for.
    pub(crate) is_short: bool,
    /// The leaf goes as a whole.
    pub(crate) empties: bool,
    entries: Range<usize>,
}

/// Where a removal goes on to the left: in the kernel's order, which also looks into one leaf that keeps all it has.
///
/// Source: kernel `ext4_ext_more_to_rm`.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// Levels whose next child to the left is looked into, whatever became of this one.
    looks_on: SmallVec<[bool; 6]>,
}

impl Walk {
    /// Begins at the leaf to which `path` leads. One that begins in the middle of the tree looks further left on each level.
    pub(crate) fn at(path: &Path, in_the_middle: bool) -> Self {
        Self { looks_on: SmallVec::from_elem(in_the_middle, path.depth()) }
    }

    /// A block in the next leaf to be looked at, if the leaf to which `path` leads `goes` or stays.
    pub(crate) fn next(
        &mut self,
        tree: &ExtentTree<'_>,
        path: &Path,
        mut goes: bool,
    ) -> Option<LogicalBlock> {
        for (depth, level) in path.levels[..path.depth()].iter().enumerate().rev() {
            let looks_on = self.looks_on.get_mut(depth).is_some_and(core::mem::take);
            if level.child() > 0 && (goes || looks_on) {
                let key = tree.view(&level.node, |view| view.index(level.child()))?.first;
                return key.checked_sub(1);
            }
            goes &= level.len == 1; // then the node goes with its only child
        }
        None
    }
}

/// A piece freed in one step has at most as many blocks as so many groups.
const GROUPS_PER_PIECE: u32 = 8;
/// Blocks that are revoked one by one, freed in one step.
const REVOKES_PER_PIECE: u32 = 1024;

impl ExtentTree<'_> {
    /// What of `range`, whose end is at no extent's inside, the path's leaf has, as far as the handle's credits allow; with
    /// `revoke_data`, one revoke a block is asked for. Changes nothing.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if the credits do not even allow one piece, [`Error::Corrupt`].
    /// # Source
    /// Kernel `ext4_ext_rm_leaf` (D22.4).
    pub(crate) fn plan_cut(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        range: LogicalRange,
        revoke_data: bool,
    ) -> Result<Cut, Error> {
        let extent = |i| self.view(&path.leaf().node, |view| view.extent(i));
        let Some(last) = self.view(&path.leaf().node, |view| view.search(range.last())) else {
            return Ok(Cut::default());
        };
        let per_group = self.geometry().blocks_per_group;
        let limit = if revoke_data {
            REVOKES_PER_PIECE
        } else {
            per_group.saturating_mul(GROUPS_PER_PIECE)
        };
        let levels = u32::try_from(path.levels.len()).expect("six at most");
        // The nodes on the path; bitmap and descriptor of each that is freed; the inode.
        let (nodes, mut revokes) = (4 * levels + 1, levels - 1);
        let mut groups = TouchedGroups::default();
        let mut cut = Cut { entries: last + 1..last + 1, ..Cut::default() };
        for i in (0..=last).rev() {
            let Some(whole) = extent(i) else { break };
            let Some(part) = window::part(whole, range) else { break };
            let len = part.blocks.len().min(limit);
            let from = part
                .blocks
                .start()
                .max(LogicalBlock::new(part.blocks.end() - len).expect("a block of the extent"));
            let blocks = part.device_blocks().expect("checked on the way down");
            let owns = self.allocator.may_own(self.inode.number(), blocks);
            Place::Inode(self.inode.number()).require(owns, Rule::ExtentPlace)?;
            revokes += if revoke_data { len } else { 0 };
            let room = match groups.add(self.geometry(), blocks) {
                Some(credits) => handle.ensure_credits(nodes + credits, revokes),
                None => Err(Error::TransactionFull),
            };
            match room {
                Err(Error::TransactionFull) if !cut.removed.is_empty() => {
                    cut.is_short = true;
                    break;
                }
                room => room?,
            }
            cut.removed.push((whole, from));
            cut.entries.start = i;
            if len < part.blocks.len() {
                cut.is_short = true;
                break;
            }
        }
        cut.left = cut.entries.start.checked_sub(1).and_then(extent);
        let is_whole =
            cut.removed.last().is_some_and(|(extent, from)| extent.blocks.start() == *from);
        cut.empties = is_whole && cut.entries.len() == path.leaf().len && path.depth() > 0;
        Ok(cut)
    }

    /// Takes out of the path's leaf what was planned, whose blocks have been freed.
    ///
    /// # Errors
    /// None that leave the tree as it was: the journal is aborted.
    pub(crate) fn apply_cut(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        cut: &Cut,
    ) -> Result<(), Error> {
        let Some(&(leftmost, from)) = cut.removed.last() else { return Ok(()) };
        if cut.empties {
            return self.all_or_abort(self.drop_leaf(handle, path));
        }
        let head = LogicalRange::between(leftmost.blocks.start(), from.get());
        let head = head.and_then(|head| window::part(leftmost, head));
        self.all_or_abort(self.replace(handle, path, cut.entries.clone(), head.as_slice()))
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
            let ino = self.inode.number();
            self.transactions.tracer().emit(|| Event::ExtRmIdx { ino, pblk: block.get() });
            self.give_back(handle, block, FreeFlags::METADATA | FreeFlags::FORGET)
        })
    }
}
