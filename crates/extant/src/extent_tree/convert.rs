//! Changing the state of a part of an extent: splits, joins, and zeroing instead of splitting.

use extant_format::extent::{Extent, ExtentState};
use extant_format::{LogicalRange, PhysicalBlock, PhysicalRange};
use smallvec::SmallVec;

use super::nodes::NodeSpace;
use super::window::{self, Window};
use super::{ExtentTree, Joining, Path};
use crate::Error;
use crate::transaction::Handle;

/// What is to become of a part of an extent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Conversion {
    /// The part.
    pub(crate) blocks: LogicalRange,
    /// What it becomes.
    pub(crate) state: ExtentState,
    /// With `Later` it stays an extent of its own.
    pub(crate) joining: Joining,
    /// Whether zeros may save a split.
    pub(crate) zero_out: ZeroOut,
    /// What pays for new nodes.
    pub(crate) space: NodeSpace,
}

/// When blocks may be zeroed to save a split: on the device, unless it says otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ZeroOut {
    /// Never: the extent passes the end of the file.
    Never,
    /// Only if a split finds no space.
    InNeed,
    /// Also pieces of up to so many blocks, to keep the tree small.
    UpTo(u32),
    /// Pieces of up to so many blocks alone, in the log: the file's data is journaled, and an older version of a block that went
    /// past the log could be written over it.
    InLog(u32),
}

/// What a conversion did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Converted {
    /// Where the first block of the part is.
    pub(crate) start: PhysicalBlock,
    /// What the part is now: written, whatever was asked for, if zeros saved a split for which there was no space.
    pub(crate) state: ExtentState,
    /// The rest of the extent, where it was zeroed and is written now.
    pub(crate) zeroed: SmallVec<[Extent; 2]>,
}

impl ExtentTree<'_> {
    /// Converts a part of the extent to which `path` leads; stores the inode at the end of I/O, else if its root or its count of
    /// blocks has changed. `split` is told the way to that part if it is split off first.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::TransactionFull`] with the tree as it was.
    /// # Source
    /// Kernel `ext4_ext_convert_to_initialized`, `ext4_split_convert_extents`, `convert_initialized_extent`
    /// (D20.8, D20.9, D20.12). Differs: one splice instead of up to two splits and a join.
    pub(crate) fn convert(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        conversion: Conversion,
        split: impl FnOnce(&Path),
    ) -> Result<Converted, Error> {
        let Conversion { blocks, state, joining, zero_out, space } = conversion;
        let extent = self.nearest(path).expect("the path leads to an extent");
        let start = extent.map(blocks.start()).expect("the caller cut the range to the extent");
        let mut zeroed = match (zero_out, extent.state, state) {
            (
                ZeroOut::UpTo(limit) | ZeroOut::InLog(limit),
                ExtentState::Unwritten,
                ExtentState::Written,
            ) => small_rest(extent, blocks, limit),
            _ => SmallVec::new(),
        };
        if let ZeroOut::InLog(_) = zero_out {
            let ranges = zeroed.iter().filter_map(Extent::device_blocks);
            ranges.into_iter().try_for_each(|range| handle.journal_zeros(range))?;
        } else {
            self.zero(&zeroed)?;
        }
        let part = zeroed.iter().fold(blocks, |sum, piece| hull(sum, piece.blocks));
        let pieces = window::pieces(extent, part, state);
        // Zeros have made it a start or an end of the extent: the kernel splits that off before it looks at what is beside.
        let is_new_end = !zeroed.is_empty() && pieces.len() == 2;
        let before = self.in_inode();
        if joining == Joining::Later && pieces.as_slice() == [extent] {
            // As the kernel, which sets the extent's state once more.
            if path.depth() == 0 && self.ensure(handle, 1, 0, 0).is_ok() {
                self.all_or_abort(self.store(handle))?;
            }
            return Ok(Converted { start, state, zeroed });
        }
        let mut converted_to = state;
        let exchanged = match joining {
            Joining::AfterSplit if pieces.len() > 1 && blocks.len() <= state.max_len() => {
                self.split_and_join(handle, path, extent, &pieces, (blocks, space), split)
            }
            Joining::Now if is_new_end => {
                self.split_and_join(handle, path, extent, &pieces, (part, space), split)
            }
            _ => self.exchange(handle, path, &pieces, joining, space),
        };
        match exchanged {
            Err(Error::NoSpace { .. })
                if matches!(zero_out, ZeroOut::InNeed | ZeroOut::UpTo(_)) =>
            {
                zeroed = self.zero_instead(handle, path, extent, blocks, state)?;
                converted_to = ExtentState::Written;
            }
            outcome => outcome?,
        }
        if joining == Joining::AfterSplit || self.in_inode() != before {
            self.all_or_abort(self.store(handle))?;
        }
        Ok(Converted { start, state: converted_to, zeroed })
    }

    /// The written extent beside to which `blocks`, an end of the unwritten `extent` at the path, go once they are written, so
    /// that nothing is split (D20.9).
    pub(crate) fn joins_beside(
        &self,
        path: &Path,
        extent: Extent,
        blocks: LogicalRange,
    ) -> Option<Extent> {
        let part = as_written(window::part(extent, blocks).filter(|_| blocks != extent.blocks)?);
        let at = path.leaf().position.unwrap_or(0);
        let beside =
            |i: Option<usize>| self.view(&path.leaf().node, |view| i.and_then(|i| view.extent(i)));
        if blocks.start() == extent.blocks.start() {
            beside(at.checked_sub(1)).filter(|left| window::can_join(left, &part))
        } else if blocks.end() == extent.blocks.end() {
            beside(at.checked_add(1)).filter(|right| window::can_join(&part, right))
        } else {
            None
        }
    }

    /// Keeps the extent whole and written, by zeros wherever it is, or should become, unwritten. Returns what was zeroed
    /// beside `blocks`.
    ///
    /// Source: kernel `ext4_split_extent_at`, its way out of `-ENOSPC`.
    fn zero_instead(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        extent: Extent,
        blocks: LogicalRange,
        state: ExtentState,
    ) -> Result<SmallVec<[Extent; 2]>, Error> {
        let mut beside = SmallVec::new();
        if extent.state == ExtentState::Unwritten {
            let (before, after) = window::around(extent, blocks);
            beside.extend(before.into_iter().chain(after).map(as_written));
            self.zero(&beside)?;
        }
        if state == ExtentState::Unwritten {
            self.zero(window::part(extent, blocks).as_slice())?;
        }
        if extent.state == ExtentState::Unwritten {
            let whole = [as_written(extent)];
            self.exchange(handle, path, &whole, Joining::Later, NodeSpace::Reserved)?;
        }
        Ok(beside)
    }

    /// Puts `pieces` in the place of the extent to which `path` leads.
    pub(super) fn exchange(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        pieces: &[Extent],
        joining: Joining,
        space: NodeSpace,
    ) -> Result<(), Error> {
        let at = path.leaf().position.expect("the path leads to an extent");
        match joining {
            Joining::Later => self.splice(handle, path, at..at + 1, pieces, space),
            Joining::Now | Joining::AfterSplit => {
                let (old, mut new) = self.with_neighbours(path, at..at + 1, pieces);
                self.splice_joined(handle, path, old, &mut new, space)
            }
        }
    }

    /// Splits `extent`, to which `path` leads, into the places of `pieces`; tells `split`; only then gives the piece of `blocks`
    /// its state, and joins it with those beside it. A failure in between leaves an extent in pieces that are alike.
    fn split_and_join(
        &self,
        handle: &mut Handle<'_>,
        path: &Path,
        extent: Extent,
        pieces: &[Extent],
        (blocks, space): (LogicalRange, NodeSpace),
        split: impl FnOnce(&Path),
    ) -> Result<(), Error> {
        let alike: Window =
            pieces.iter().map(|&piece| Extent { state: extent.state, ..piece }).collect();
        self.exchange(handle, path, &alike, Joining::Later, space)?;
        let changed = pieces.iter().find(|piece| piece.blocks == blocks);
        let changed = *changed.expect("the part is a piece");
        let joined = self.find(blocks.start()).and_then(|path| {
            split(&path);
            self.exchange(handle, &path, &[changed], Joining::Now, space)
        });
        if joined.is_err() {
            self.all_or_abort(self.store(handle))?;
        }
        joined
    }

    /// Writes zeros over the extents on the device.
    fn zero(&self, extents: &[Extent]) -> Result<(), Error> {
        let blocks: SmallVec<[PhysicalRange; 2]> =
            extents.iter().filter_map(Extent::device_blocks).collect();
        if blocks.is_empty() { Ok(()) } else { self.transactions.io().zero(&blocks) }
    }
}

/// What is cheaper to zero than to split off (D20.9): the rest behind `blocks`, if both are at most `limit` blocks; and
/// the rest before, if all of that together is less. Nothing, if there is nothing behind.
fn small_rest(extent: Extent, blocks: LogicalRange, limit: u32) -> SmallVec<[Extent; 2]> {
    let (before, after) = window::around(extent, blocks);
    let Some(after) = after else { return SmallVec::new() };
    let behind = Some(after).filter(|rest| blocks.len() + rest.blocks.len() <= limit);
    let len = blocks.len() + behind.map_or(0, |rest| rest.blocks.len());
    let before = before.filter(|rest| rest.blocks.len() + len < limit);
    before.into_iter().chain(behind).map(as_written).collect()
}

fn as_written(extent: Extent) -> Extent {
    Extent { state: ExtentState::Written, ..extent }
}

/// From the start of the earlier to the end of the later.
fn hull(a: LogicalRange, b: LogicalRange) -> LogicalRange {
    LogicalRange::between(a.start().min(b.start()), a.end().max(b.end())).expect("neither is empty")
}
