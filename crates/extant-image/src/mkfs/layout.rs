//! Where everything goes: tables, directories and the journal; and what each group then has left.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::cast::{low_u32, u64_from, usize_from};
use extant_format::descriptor::GroupFlags;
use extant_format::{
    BlockGroup, Compat, Extent, ExtentState, Geometry, GroupDescriptor, LogicalRange,
    PhysicalBlock, Superblock, bitmap,
};

use super::MkfsError;

/// Where everything goes.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) geometry: Geometry,
    pub(super) time_seconds: u32,
    /// One a group; sums of bitmaps are set.
    pub(super) groups: Vec<GroupDescriptor>,
    pub(super) root: u64,
    pub(super) lost_and_found: Range<u64>,
    /// The double indirect block of the inode that owns the reserved descriptor blocks.
    pub(super) resize: Option<u64>,
    pub(super) journal: Option<JournalPlace>,
    space: Space,
}

/// Where the journal goes.
#[derive(Debug)]
pub(super) struct JournalPlace {
    pub(super) len: u32,
    pub(super) extents: Vec<Extent>,
    /// The extent block, if the inode has no room for all extents.
    pub(super) node: Option<u64>,
}

impl Layout {
    pub(super) fn plan(
        geometry: &Geometry,
        journal_len: Option<u32>,
        time_seconds: u32,
        zeroed_tables: bool,
    ) -> Result<Self, MkfsError> {
        let mut space = Space::new(geometry);
        let too_small = || MkfsError::TooSmall {
            bytes: geometry.blocks_count << geometry.block_bits,
            needed_bytes: least_blocks(geometry, journal_len) << geometry.block_bits,
            journal_bytes: u64::from(journal_len.unwrap_or(0)) << geometry.block_bits,
        };
        let mut groups = place_tables(geometry, &mut space).ok_or_else(too_small)?;
        let mut place = |len: u64| space.place(0, len).ok_or_else(too_small);
        let root = place(1)?;
        let lost_and_found_len = (LOST_AND_FOUND_BYTES >> geometry.block_bits).clamp(2, 12);
        let start = place(lost_and_found_len)?;
        let lost_and_found = start..start + lost_and_found_len;
        let resize =
            geometry.compat.contains(Compat::RESIZE_INODE).then(|| place(1)).transpose()?;
        let journal = journal_len
            .map(|len| place_journal(geometry, &mut space, len).ok_or_else(too_small))
            .transpose()?;
        if journal
            .as_ref()
            .is_some_and(|journal| journal.extents.len() > geometry.block_len() / 12 - 1)
        {
            return Err(too_small());
        }
        for (group, descriptor) in geometry.groups().zip(&mut groups) {
            count(geometry, &space, group, descriptor, zeroed_tables);
        }
        let geometry = *geometry;
        Ok(Self { geometry, time_seconds, groups, root, lost_and_found, resize, journal, space })
    }

    /// Fills in what the superblock says of all groups together.
    pub(super) fn describe(&self, superblock: &mut Superblock) {
        let free_blocks = self.groups.iter().map(|group| u64::from(group.free_clusters)).sum();
        let free_inodes = self.groups.iter().map(|group| group.free_inodes).sum::<u32>();
        let files = 1
            + (self.lost_and_found.end - self.lost_and_found.start)
            + u64::from(self.resize.is_some());
        let node = self.journal.as_ref().is_some_and(|journal| journal.node.is_some());
        let raw = superblock.raw_mut();
        raw.set_free_blocks_count(free_blocks);
        raw.free_inodes_count = free_inodes.into();
        let overhead = self.geometry.blocks_count - free_blocks - files - u64::from(node);
        raw.overhead_clusters = u32::try_from(overhead).unwrap_or(0).into();
    }

    /// A group's block bitmap; bits past its last block are set.
    pub(super) fn block_bitmap(&self, group: BlockGroup) -> Vec<u8> {
        block_bitmap(&self.geometry, &self.space, group)
    }

    /// A group's inode bitmap.
    pub(super) fn inode_bitmap(&self, group: BlockGroup) -> Vec<u8> {
        inode_bitmap(&self.geometry, group)
    }
}

/// Bitmaps of a flex group side by side, then its inode bitmaps, then its inode tables.
fn place_tables(geometry: &Geometry, space: &mut Space) -> Option<Vec<GroupDescriptor>> {
    let mut descriptors = Vec::with_capacity(usize_from(geometry.group_count));
    for first in (0..geometry.group_count).step_by(usize_from(geometry.flex_size())) {
        let count = geometry.flex_size().min(geometry.group_count - first);
        let goal = geometry.first_block_of(BlockGroup(first)).get();
        let block_bitmaps = place_each(space, goal, count, 1)?;
        let inode_bitmaps = place_each(space, goal, count, 1)?;
        let inode_tables = place_each(space, goal, count, geometry.itable_blocks().into())?;
        for (block_bitmap, (inode_bitmap, inode_table)) in
            block_bitmaps.iter().zip(inode_bitmaps.iter().zip(inode_tables))
        {
            descriptors.push(GroupDescriptor {
                block_bitmap: PhysicalBlock::new(*block_bitmap),
                inode_bitmap: PhysicalBlock::new(*inode_bitmap),
                inode_table: PhysicalBlock::new(inode_table),
                free_clusters: 0,
                free_inodes: 0,
                used_dirs: 0,
                itable_unused: 0,
                flags: GroupFlags::empty(),
                block_bitmap_csum: 0,
                inode_bitmap_csum: 0,
            });
        }
    }
    Some(descriptors)
}

/// `count` pieces of `len` blocks, side by side if there is such a place.
fn place_each(space: &mut Space, goal: u64, count: u32, len: u64) -> Option<Vec<u64>> {
    if let Some(start) = space.place(goal, len * u64::from(count)) {
        return Some((0..count).map(|n| start + len * u64::from(n)).collect());
    }
    (0..count).map(|_| space.place(goal, len)).collect()
}

/// The journal lies in the middle, where the way from any file is shortest, in as few extents as possible.
fn place_journal(geometry: &Geometry, space: &mut Space, len: u32) -> Option<JournalPlace> {
    let middle = geometry.first_block_of(BlockGroup(geometry.group_count / 2)).get();
    let mut extents = Vec::new();
    let mut done = 0;
    while done < len {
        let run =
            space.take_some(middle, (len - done).min(ExtentState::Written.max_len()).into())?;
        let blocks = LogicalRange::new(done, low_u32(run.end - run.start))?;
        done += blocks.len();
        extents.push(Extent {
            blocks,
            start: PhysicalBlock::new(run.start),
            state: ExtentState::Written,
        });
    }
    let node = if extents.len() > extant_format::extent::ROOT_CAPACITY {
        Some(space.place(middle, 1)?)
    } else {
        None
    };
    Some(JournalPlace { len, extents, node })
}

/// Fills in what a group has left, and the sums of its bitmaps.
fn count(
    geometry: &Geometry,
    space: &Space,
    group: BlockGroup,
    descriptor: &mut GroupDescriptor,
    zeroed_tables: bool,
) {
    let blocks = blocks_of(geometry, group);
    let used = space.taken_in(blocks.clone());
    descriptor.free_clusters = low_u32(blocks.end - blocks.start - used);
    let (used_inodes, used_dirs) =
        if group.get() == 0 { (geometry.first_inode, 2) } else { (0, 0) };
    descriptor.free_inodes = geometry.inodes_per_group - used_inodes;
    descriptor.used_dirs = used_dirs;
    if geometry.has_gdt_csum() {
        descriptor.itable_unused = descriptor.free_inodes;
        descriptor.flags.set(GroupFlags::INODE_UNINIT, used_inodes == 0);
        let computable = used == own_metadata(geometry, group, descriptor, &blocks);
        descriptor
            .flags
            .set(GroupFlags::BLOCK_UNINIT, computable && group.get() + 1 < geometry.group_count);
        descriptor.flags.set(GroupFlags::INODE_ZEROED, zeroed_tables);
    }
    if !geometry.has_metadata_csum() {
        return;
    }
    if !descriptor.block_bitmap_is_uninitialized(geometry) {
        descriptor.block_bitmap_csum =
            bitmap::block_bitmap_csum(geometry, &block_bitmap(geometry, space, group));
    }
    if !descriptor.inodes_are_uninitialized(geometry) {
        descriptor.inode_bitmap_csum =
            bitmap::inode_bitmap_csum(geometry, &inode_bitmap(geometry, group));
    }
}

/// What a reader takes for used where a block bitmap was never written: the group's head, and its own tables.
fn own_metadata(
    geometry: &Geometry,
    group: BlockGroup,
    descriptor: &GroupDescriptor,
    blocks: &Range<u64>,
) -> u64 {
    let tables = [
        (descriptor.block_bitmap, 1),
        (descriptor.inode_bitmap, 1),
        (descriptor.inode_table, u64::from(geometry.itable_blocks())),
    ];
    let inside = |(start, len): (PhysicalBlock, u64)| {
        (start.get() + len).min(blocks.end).saturating_sub(start.get().max(blocks.start))
    };
    u64::from(geometry.base_meta_blocks(group)) + tables.into_iter().map(inside).sum::<u64>()
}

fn block_bitmap(geometry: &Geometry, space: &Space, group: BlockGroup) -> Vec<u8> {
    let blocks = blocks_of(geometry, group);
    let mut bits = vec![0; geometry.block_len()];
    let all = low_u32(u64_from(bits.len()) * 8);
    for run in space.taken(blocks.clone()) {
        bitmap::set(&mut bits, low_u32(run.start - blocks.start)..low_u32(run.end - blocks.start));
    }
    bitmap::set(&mut bits, low_u32(blocks.end - blocks.start)..all);
    bits
}

fn inode_bitmap(geometry: &Geometry, group: BlockGroup) -> Vec<u8> {
    let mut bits = vec![0; geometry.block_len()];
    bitmap::init_inode_bitmap(geometry, &mut bits);
    if group.get() == 0 {
        bitmap::set(&mut bits, 0..geometry.first_inode);
    }
    bits
}

fn blocks_of(geometry: &Geometry, group: BlockGroup) -> Range<u64> {
    let start = geometry.first_block_of(group).get();
    start..start + u64::from(geometry.blocks_in(group))
}

/// Blocks that hold everything if there is one group.
fn least_blocks(geometry: &Geometry, journal_len: Option<u32>) -> u64 {
    let tables = geometry.base_meta_blocks(BlockGroup(0))
        + (2 + geometry.itable_blocks()) * geometry.group_count;
    u64::from(geometry.first_data_block + tables + journal_len.unwrap_or(0)) + SPARE_BLOCKS
}

/// Which blocks are taken.
#[derive(Debug)]
struct Space {
    all: Range<u64>,
    /// First block to end; ranges neither overlap nor touch.
    taken: BTreeMap<u64, u64>,
}

impl Space {
    /// Takes the superblocks and descriptors with their reserve.
    fn new(geometry: &Geometry) -> Self {
        let all = geometry.first_data_block.into()..geometry.blocks_count;
        let mut space = Self { all, taken: BTreeMap::new() };
        for group in geometry.groups() {
            let start = geometry.first_block_of(group).get();
            space.take(start..start + u64::from(geometry.base_meta_blocks(group)));
        }
        space
    }

    fn take(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        let Range { mut start, mut end } = run;
        if let Some((&before, &touching)) = self.taken.range(..start).next_back()
            && touching == start
        {
            start = before;
        }
        if let Some(after) = self.taken.remove(&end) {
            end = after;
        }
        self.taken.insert(start, end);
    }

    /// Takes the first `len` free blocks in a row at or after `goal`, or else anywhere.
    fn place(&mut self, goal: u64, len: u64) -> Option<u64> {
        let fits = |run: &Range<u64>| run.end - run.start >= len;
        let start = self.free(goal).find(fits).or_else(|| self.free(0).find(fits))?.start;
        self.take(start..start + len);
        Some(start)
    }

    /// Takes the first free run at or after `goal`, or else anywhere, but no more than `most` of it.
    fn take_some(&mut self, goal: u64, most: u64) -> Option<Range<u64>> {
        let run = self.free(goal).next().or_else(|| self.free(0).next())?;
        let run = run.start..run.end.min(run.start + most);
        self.take(run.clone());
        Some(run)
    }

    /// Free runs from `from` on; the first may be the rest of one.
    fn free(&self, from: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let from = from.max(self.all.start);
        let before = self.taken.range(..=from).next_back().map_or(from, |(_, &end)| end.max(from));
        let mut start = before;
        let ends = self.taken.range(from + 1..).map(|(&start, &end)| (start, end));
        ends.chain([(self.all.end, self.all.end)]).filter_map(move |(next, end)| {
            let run = start..next;
            start = end.max(start);
            (run.start < run.end).then_some(run)
        })
    }

    /// The taken parts of `range`.
    fn taken(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first =
            self.taken.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        let runs = self.taken.range(first..range.end.max(first));
        runs.map(move |(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|run| !run.is_empty())
    }

    fn taken_in(&self, range: Range<u64>) -> u64 {
        self.taken(range).map(|run| run.end - run.start).sum()
    }
}

const LOST_AND_FOUND_BYTES: u64 = 16 << 10;
const SPARE_BLOCKS: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let mut space = Space { all: 1..100, taken: BTreeMap::new() };
        space.take(1..10);
        space.take(50..60);
        space
    }

    #[test]
    fn places_at_the_goal_or_else_anywhere() {
        let mut space = space();
        assert_eq!(space.place(55, 5), Some(60));
        assert_eq!(space.place(70, 40), Some(10));
        assert_eq!(space.place(0, 36), None);
        assert_eq!(space.taken, BTreeMap::from([(1, 65)]));
    }

    #[test]
    fn takes_what_is_there_first() {
        let mut space = space();
        assert_eq!(space.take_some(45, 100), Some(45..50));
        assert_eq!(space.take_some(45, 10), Some(60..70));
        assert_eq!(space.take_some(95, 10), Some(95..100));
        assert_eq!(space.take_some(95, 10), Some(10..20));
    }

    #[test]
    fn counts_what_is_taken_in_a_range() {
        let space = space();
        assert_eq!(space.taken_in(5..55), 10);
        assert_eq!(space.taken_in(10..50), 0);
        assert_eq!(space.taken_in(52..54), 2);
        assert_eq!(space.free(0).collect::<Vec<_>>(), [10..50, 60..100]);
        assert_eq!(space.free(52).next(), Some(60..100));
    }
}
