//! Removing a range in the kernel's order, one array of pointers a step.
//!
//! First what belongs to the range around its start, from the arrays of data pointers up; then the same around its end; then
//! whole branches. Within an array data goes forwards, and branches go backwards, each after all that it leads to. A branch
//! around the start goes if nothing before the range is in it; one around the end stays, even if it is empty then.
//!
//! Source: kernel `ext4_ind_truncate`, `ext4_ind_remove_space`, `ext4_find_shared`, `ext4_free_branches`, `ext4_free_data`.

use core::ops::Range;

use extant_format::indirect::{DIRECT, IndirectPath, pointer};
use extant_format::{LogicalBlock, LogicalRange, PhysicalBlock, PhysicalRange};
use smallvec::SmallVec;

use super::{Array, IndirectMap};
use crate::Error;
use crate::allocator::FreeFlags;
use crate::extent_tree::{TouchedGroups, free_blocks};
use crate::mapping::DataKind;
use crate::transaction::{BlockKind, Handle};

/// Blocks that are revoked one by one, freed in one step.
const REVOKES_PER_PIECE: u32 = 1024;
/// An array, those above it, the bitmaps and descriptors of those that become empty, the inode.
const ARRAY_CREDITS: u32 = 1 + 3 + 2 * 3 + 1;
/// Pointers in the inode.
const ROOTS: u32 = DIRECT + 3;

/// Where an end of a range meets the map.
struct Edge {
    /// The arrays on the way to it, the inode's first.
    arrays: SmallVec<[Array; 4]>,
    /// The last of them that has anything before it, else the inode's.
    level: usize,
    /// Whether all of the branch at that level's pointer is behind it.
    heads_branch: bool,
}

impl Edge {
    fn array(&self) -> &Array {
        &self.arrays[self.level]
    }
}

impl IndirectMap<'_> {
    /// Removes `range`. Stores the inode.
    ///
    /// # Errors
    /// [`Error::TransactionFull`] if the handle's credits do not allow all of it: what was done stays, and the same call
    /// goes on with the rest. Of reading arrays.
    pub(in crate::mapping) fn remove(
        &self,
        handle: &mut Handle<'_>,
        range: LogicalRange,
    ) -> Result<(), Error> {
        let path = |block| IndirectPath::to(block, self.mapper.geometry());
        let Some(from) = path(range.start()) else { return Ok(()) };
        let to = LogicalBlock::new(range.end()).and_then(path);
        if let Some(to) = to.filter(|to| to.offsets().len() == from.offsets().len()) {
            return self.remove_within(handle, from.offsets(), to.offsets());
        }
        self.remove_from(handle, from.offsets())?;
        if let Some(to) = to {
            self.remove_up_to(handle, to.offsets())?;
        }
        let between = DIRECT.max(from.offsets()[0] + 1)..to.map_or(ROOTS, |to| to.offsets()[0]);
        for (root, depth) in (DIRECT..ROOTS).zip(1..).filter(|(root, _)| between.contains(root)) {
            self.remove_pointers(handle, &Array::Inode, root..root + 1, depth)?;
        }
        Ok(())
    }

    /// Removes what a tree, or the pointers in the inode, have from a block on.
    fn remove_from(&self, handle: &mut Handle<'_>, offsets: &[u32]) -> Result<(), Error> {
        let lowest = offsets.len() - 1;
        if lowest == 0 {
            return self.clear(handle, &Array::Inode, offsets[0]..DIRECT);
        }
        let edge = self.edge(offsets)?;
        let (level, offset) = (edge.level, offsets[edge.level]);
        if edge.heads_branch {
            self.remove_pointers(handle, edge.array(), offset..offset + 1, lowest - level)?;
        }
        for level in (1..=level).rev() {
            let first = offsets[level] + u32::from(level < edge.level || edge.heads_branch);
            let array = &edge.arrays[level];
            self.remove_pointers(handle, array, first..self.per_block(), lowest - level)?;
        }
        Ok(())
    }

    /// Removes what a tree has before a block.
    fn remove_up_to(&self, handle: &mut Handle<'_>, offsets: &[u32]) -> Result<(), Error> {
        let edge = self.edge(offsets)?;
        for level in (1..=edge.level).rev() {
            let depth = offsets.len() - 1 - level;
            self.remove_pointers(handle, &edge.arrays[level], 0..offsets[level], depth)?;
        }
        Ok(())
    }

    /// Removes what lies between two blocks of one tree, or of the pointers in the inode.
    fn remove_within(
        &self,
        handle: &mut Handle<'_>,
        from: &[u32],
        to: &[u32],
    ) -> Result<(), Error> {
        let lowest = from.len() - 1;
        if lowest == 0 {
            return self.clear(handle, &Array::Inode, from[0]..to[0]);
        }
        let (start, end) = (self.edge(from)?, self.edge(to)?);
        let shared = ..=start.level.min(end.level);
        let (mut left, mut right) = (start.level, end.level);
        let mut first = from[left] + u32::from(start.heads_branch);
        let mut last = to[right];
        if start.heads_branch && from[shared] != to[shared] {
            self.remove_pointers(handle, start.array(), from[left]..first, lowest - left)?;
        }
        // From the lower of both ends up, until they meet in one array.
        while left > 0 || right > 0 {
            let (array, other) = (&start.arrays[left], &end.arrays[right]);
            if left == right && array.is_same(other) {
                return self.remove_pointers(handle, array, first..last, lowest - left);
            }
            let (goes_left, goes_right) = (left >= right, right >= left);
            if goes_left {
                self.remove_pointers(handle, array, first..self.per_block(), lowest - left)?;
                left -= 1;
                first = from[left] + 1;
            }
            if goes_right {
                self.remove_pointers(handle, other, 0..last, lowest - right)?;
                right -= 1;
                last = to[right];
            }
        }
        Ok(())
    }

    /// Where a block meets the map.
    fn edge(&self, offsets: &[u32]) -> Result<Edge, Error> {
        // A branch that begins with the block need not be gone into.
        let lowest = (1..offsets.len()).rev().find(|&level| offsets[level] > 0).unwrap_or(0);
        let mut arrays: SmallVec<[Array; 4]> = SmallVec::from_iter([Array::Inode]);
        for (level, &offset) in offsets[..lowest].iter().enumerate() {
            let Some(next) = self.view(&arrays[level], |bytes| pointer(bytes, offset)) else {
                break;
            };
            arrays.push(self.array_at(next)?);
        }
        let has_before = |level: usize| {
            let before = 0..offsets[level];
            self.view(&arrays[level], |bytes| {
                before.into_iter().any(|i| pointer(bytes, i).is_some())
            })
        };
        let level = (1..arrays.len()).rev().find(|&level| has_before(level)).unwrap_or(0);
        Ok(Edge { arrays, level, heads_branch: level < lowest || level == 0 })
    }

    /// The array in a block.
    fn array_at(&self, block: PhysicalBlock) -> Result<Array, Error> {
        self.check(block)?;
        self.mapper.transactions.read(block, BlockKind::Plain).map(Array::Block)
    }

    /// Removes all that pointers of an array lead to: data, or arrays of `depth` levels above it.
    fn remove_pointers(
        &self,
        handle: &mut Handle<'_>,
        array: &Array,
        mut offsets: Range<u32>,
        depth: usize,
    ) -> Result<(), Error> {
        if depth == 0 {
            return self.clear(handle, array, offsets);
        }
        let last = |offsets: Range<u32>| {
            self.view(array, |bytes| {
                offsets.rev().find_map(|i| pointer(bytes, i).map(|block| (i, block)))
            })
        };
        while let Some((offset, block)) = last(offsets.clone()) {
            let below = self.array_at(block)?;
            self.remove_pointers(handle, &below, 0..self.per_block(), depth - 1)?;
            handle.ensure_credits(ARRAY_CREDITS, 3)?;
            let flags = FreeFlags::METADATA | FreeFlags::FORGET;
            let removed = self
                .set(handle, array, offset..offset + 1, |_| None)
                .and_then(|()| self.free(handle, PhysicalRange::single(block), flags))
                .and_then(|()| self.mapper.inodes.store(handle, self.inode));
            self.all_or_abort(removed)?;
            offsets.end = offset;
        }
        Ok(())
    }

    /// Frees the data that pointers of an array lead to, as many runs a step as the handle's credits allow.
    fn clear(
        &self,
        handle: &mut Handle<'_>,
        array: &Array,
        mut offsets: Range<u32>,
    ) -> Result<(), Error> {
        while self.run_in(array, offsets.clone(), 1).is_some() {
            let (runs, end) = self.runs_for(handle, array, offsets.clone())?;
            let flags = self.mapper.free_flags(self.inode);
            let cleared = self
                .set(handle, array, offsets.start..end, |_| None)
                .and_then(|()| runs.iter().try_for_each(|&run| self.free(handle, run, flags)))
                .and_then(|()| self.mapper.inodes.store(handle, self.inode));
            self.all_or_abort(cleared)?;
            offsets.start = end;
        }
        Ok(())
    }

    /// The first runs that the handle's credits allow to free, one at the least, and where their pointers end.
    fn runs_for(
        &self,
        handle: &mut Handle<'_>,
        array: &Array,
        mut offsets: Range<u32>,
    ) -> Result<(SmallVec<[PhysicalRange; 8]>, u32), Error> {
        let revokes_data = self.mapper.data_kind(self.inode) != DataKind::Plain;
        let limit = if revokes_data { REVOKES_PER_PIECE } else { u32::MAX };
        let (mut revokes, mut groups, mut runs) = (3, TouchedGroups::default(), SmallVec::new());
        while let Some((start, len, end)) = self.run_in(array, offsets.clone(), limit) {
            let run = PhysicalRange::new(start, len.into()).expect("the start of a run");
            self.mapper.check_place(self.inode, run)?;
            revokes += if revokes_data { len } else { 0 };
            let room = match groups.add(self.mapper.geometry(), run) {
                Some(credits) => handle.ensure_credits(ARRAY_CREDITS + credits, revokes),
                None => Err(Error::TransactionFull),
            };
            match room {
                Err(Error::TransactionFull) if !runs.is_empty() => break,
                room => room?,
            }
            runs.push(run);
            offsets.start = end;
        }
        Ok((runs, offsets.start))
    }

    /// The first run of at most `limit` blocks that follow each other on the device, whatever holes of the file lie between
    /// them: where it begins, how many they are, and where their pointers end.
    ///
    /// Source: kernel `ext4_free_data`.
    fn run_in(
        &self,
        array: &Array,
        offsets: Range<u32>,
        limit: u32,
    ) -> Option<(PhysicalBlock, u32, u32)> {
        self.view(array, |bytes| {
            let mut placed =
                offsets.filter_map(|offset| pointer(bytes, offset).map(|block| (offset, block)));
            let (first, start) = placed.next()?;
            let (mut len, mut end) = (1, first + 1);
            for (offset, block) in placed {
                if len == limit || start.checked_add(len.into()) != Some(block) {
                    break;
                }
                (len, end) = (len + 1, offset + 1);
            }
            Some((start, len, end))
        })
    }

    fn per_block(&self) -> u32 {
        self.mapper.geometry().block_size / 4
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
