//! Removing a range, from its end to its start, one array of pointers a step.

use core::ops::Range;

use extant_format::indirect::pointer;
use extant_format::{LogicalRange, PhysicalBlock, PhysicalRange};
use smallvec::SmallVec;

use super::{Array, Chain, IndirectMap};
use crate::Error;
use crate::allocator::FreeFlags;
use crate::extent_tree::{TouchedGroups, free_blocks};
use crate::mapping::DataKind;
use crate::transaction::Handle;

/// Blocks that are revoked one by one, freed in one step.
const REVOKES_PER_PIECE: u32 = 1024;
/// An array, those above it, the bitmaps and descriptors of those that become empty, the inode.
const ARRAY_CREDITS: u32 = 1 + 3 + 2 * 3 + 1;

impl IndirectMap<'_> {
    /// Removes the end of `range`: as much as one array has and the handle's credits allow. Stores the inode. Returns where
    /// there may be more.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if the credits do not allow one run; nothing has changed then.
    /// # Source
    /// Kernel `ext4_ind_truncate`, `ext4_ind_remove_space`, `ext4_free_branches`.
    pub(in crate::mapping) fn remove(
        &self,
        handle: &mut Handle<'_>,
        range: LogicalRange,
    ) -> Result<Option<LogicalRange>, Error> {
        let Some(range) = self.reachable(range) else { return Ok(None) };
        let chain = self.chain(range.last())?.expect("the range was cut to what a map can reach");
        // Blocks before the range's last that share the pointer or the array at which the chain ends.
        let before =
            if chain.missing() == 0 { u64::from(chain.last_offset()) } else { self.gap(&chain).0 };
        let before = u32::try_from(before).unwrap_or(u32::MAX).min(range.len() - 1);
        let part =
            LogicalRange::new(range.end() - 1 - before, before + 1).expect("the end of the range");
        let done = if chain.missing() == 0 {
            self.clear(handle, &chain, part)?
        } else {
            handle.ensure_credits(ARRAY_CREDITS, 3)?;
            self.all_or_abort(self.drop_empty(handle, &chain))?;
            part
        };
        Ok(LogicalRange::between(range.start(), done.start().get()))
    }

    /// The part of `range` that a map can reach.
    fn reachable(&self, range: LogicalRange) -> Option<LogicalRange> {
        let per_block = u64::from(self.mapper.geometry().block_size / 4);
        let reach =
            (1..=3).fold(12_u64, |sum, level| sum.saturating_add(per_block.saturating_pow(level)));
        LogicalRange::between(
            range.start(),
            range.end().min(u32::try_from(reach).unwrap_or(u32::MAX)),
        )
    }

    /// Clears pointers of the chain's array for the end of `part`, which lies in it; returns the end that was cleared.
    fn clear(
        &self,
        handle: &mut Handle<'_>,
        chain: &Chain,
        part: LogicalRange,
    ) -> Result<LogicalRange, Error> {
        let (array, last) = (chain.last_array(), chain.last_offset());
        let first = last - (part.len() - 1);
        let revokes_data = self.mapper.data_kind(self.inode) != DataKind::Plain;
        let mut revokes = 3;
        let mut groups = TouchedGroups::default();
        let mut freed: SmallVec<[PhysicalRange; 8]> = SmallVec::new();
        let mut from = last + 1;
        handle.ensure_credits(ARRAY_CREDITS, revokes)?;
        while from > first {
            let Some((run, skipped)) = self.run_before(array, first..from) else {
                from = first;
                break;
            };
            let limit = if revokes_data { REVOKES_PER_PIECE.into() } else { u64::MAX };
            let len = run.len().min(limit);
            let start = PhysicalBlock::new(run.end().get() - len);
            let run = PhysicalRange::new(start, len).expect("the end of a run");
            let blocks = u32::try_from(len).expect("no longer than an array");
            self.mapper.check_place(self.inode, run)?;
            revokes += if revokes_data { blocks } else { 0 };
            let room = match groups.add(self.mapper.geometry(), run) {
                Some(credits) => handle.ensure_credits(ARRAY_CREDITS + credits, revokes),
                None => Err(Error::TransactionFull),
            };
            match room {
                Err(Error::TransactionFull) if from <= last => break,
                room => room?,
            }
            freed.push(run);
            from -= skipped + blocks;
        }
        let zeroed = if freed.is_empty() {
            Ok(())
        } else {
            self.set(handle, array, from..last + 1, |_| None)
        };
        let cleared = zeroed.and_then(|()| {
            let flags = self.mapper.free_flags(self.inode);
            freed.iter().try_for_each(|&run| self.free(handle, run, flags))?;
            self.drop_empty(handle, chain)
        });
        self.all_or_abort(cleared)?;
        Ok(LogicalRange::new(part.end() - (last + 1 - from), last + 1 - from)
            .expect("a part of the part"))
    }

    /// The last run of blocks that follow each other in the pointers at `offsets`, and the zero pointers behind it.
    fn run_before(&self, array: &Array, offsets: Range<u32>) -> Option<(PhysicalRange, u32)> {
        self.view(array, |bytes| {
            let last = offsets.clone().rev().find(|&i| pointer(bytes, i).is_some())?;
            let end = pointer(bytes, last)?;
            let before =
                |i: u32| end.checked_sub((last - i).into()).filter(|block| block.get() > 0);
            let first = (offsets.start..last)
                .rev()
                .take_while(|&i| pointer(bytes, i) == before(i) && before(i).is_some());
            let len = u64::try_from(first.count()).ok()? + 1;
            let run = PhysicalRange::new(PhysicalBlock::new(end.get() - (len - 1)), len)?;
            Some((run, offsets.end - 1 - last))
        })
    }

    /// Frees the arrays at the end of the chain that have no pointers any more, and stores the inode.
    fn drop_empty(&self, handle: &mut Handle<'_>, chain: &Chain) -> Result<(), Error> {
        for (level, array) in chain.arrays.iter().enumerate().rev() {
            let Array::Block(block) = array else { break };
            if !self.is_empty(block) {
                break;
            }
            let (above, offset) = (&chain.arrays[level - 1], chain.path.offsets()[level - 1]);
            self.set(handle, above, offset..offset + 1, |_| None)?;
            self.free(
                handle,
                PhysicalRange::single(block.number()),
                FreeFlags::METADATA | FreeFlags::FORGET,
            )?;
        }
        self.mapper.inodes.store(handle, self.inode)
    }

    fn free(
        &self,
        handle: &mut Handle<'_>,
        run: PhysicalRange,
        flags: FreeFlags,
    ) -> Result<(), Error> {
        free_blocks(&self.mapper.allocator, handle, self.inode, run, flags)
    }
}
