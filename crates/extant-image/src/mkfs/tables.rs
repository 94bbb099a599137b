//! Where bitmaps and inode tables go: those of a flex group side by side at its start, or each group's in the group.
//!
//! Source: what mke2fs 1.47 makes; kernel `Documentation/filesystems/ext4/blockgroup.rst`.

use alloc::vec::Vec;

use extant_format::cast::usize_from;
use extant_format::descriptor::GroupFlags;
use extant_format::{BlockGroup, Geometry, GroupDescriptor, PhysicalBlock};

use super::space::Space;

/// How tables are spread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    /// All of them at the front.
    pub(super) packed: bool,
    /// Without flex groups: blocks by which each group's tables are further on than the one's before, so that not all lie on
    /// one disk of a RAID.
    pub(super) stride: u64,
}

/// Takes the tables' blocks; `None` if they do not fit. Descriptors have their places, and nothing else.
pub(super) fn place(
    geometry: &Geometry,
    space: &mut Space,
    spread: Spread,
) -> Option<Vec<GroupDescriptor>> {
    let placer = Placer { geometry, stride: spread.stride };
    let table = u64::from(geometry.itable_blocks());
    if spread.packed && geometry.flex_bits > 0 {
        return packed(geometry, space, table);
    }
    let mut descriptors: Vec<GroupDescriptor> =
        Vec::with_capacity(usize_from(geometry.group_count));
    for group in geometry.groups() {
        let before = if placer.starts_flex_group(group) { None } else { descriptors.last() };
        let gap = placer.bitmaps_between(group);
        let after = |block: Option<PhysicalBlock>, len| block.map_or(0, |block| block.get() + len);
        let goal = after(before.map(|before| before.block_bitmap), 1);
        let block_bitmap = placer.bitmap(space, group, goal)?;
        let goal = match before {
            Some(before) => before.inode_bitmap.get() + 1,
            None => block_bitmap + gap,
        };
        let inode_bitmap = placer.bitmap(space, group, goal)?;
        let goal = match before {
            Some(before) => before.inode_table.get() + table,
            None => inode_bitmap + gap,
        };
        let inode_table = placer.table(space, group, goal, table)?;
        descriptors.push(descriptor(block_bitmap, inode_bitmap, inode_table));
    }
    Some(descriptors)
}

/// All block bitmaps, then all inode bitmaps, then all tables.
fn packed(geometry: &Geometry, space: &mut Space, table: u64) -> Option<Vec<GroupDescriptor>> {
    let mut goal = 0;
    let mut each = |len| -> Option<Vec<u64>> {
        let groups = geometry.groups();
        groups.map(|_| space.place(goal, len).inspect(|block| goal = *block)).collect()
    };
    let (block_bitmaps, inode_bitmaps, tables) = (each(1)?, each(1)?, each(table)?);
    let all = block_bitmaps.into_iter().zip(inode_bitmaps).zip(tables);
    Some(all.map(|((block, inode), table)| descriptor(block, inode, table)).collect())
}

fn descriptor(block_bitmap: u64, inode_bitmap: u64, inode_table: u64) -> GroupDescriptor {
    GroupDescriptor {
        block_bitmap: PhysicalBlock::new(block_bitmap),
        inode_bitmap: PhysicalBlock::new(inode_bitmap),
        inode_table: PhysicalBlock::new(inode_table),
        free_clusters: 0,
        free_inodes: 0,
        used_dirs: 0,
        itable_unused: 0,
        flags: GroupFlags::empty(),
        block_bitmap_csum: 0,
        inode_bitmap_csum: 0,
    }
}

/// Finds places for the tables of one group after the other.
#[derive(Clone, Copy)]
struct Placer<'a> {
    geometry: &'a Geometry,
    stride: u64,
}

impl Placer<'_> {
    fn starts_flex_group(&self, group: BlockGroup) -> bool {
        group.get().is_multiple_of(self.geometry.flex_size())
    }

    /// The last group of a group's flex group.
    fn last_of_flex(&self, group: BlockGroup) -> BlockGroup {
        let last = group.get() | (self.geometry.flex_size() - 1);
        BlockGroup(last.min(self.geometry.group_count - 1))
    }

    /// How far the first bitmap of one kind is from the first of the next in a flex group: a whole one, so that there is
    /// room to grow, but for a last one that ends the file system.
    fn bitmaps_between(&self, group: BlockGroup) -> u64 {
        let (flex, last) = (self.geometry.flex_size(), self.last_of_flex(group).get());
        let within = last & (flex - 1);
        let is_last = last == self.geometry.group_count - 1;
        u64::from(if is_last && within > 0 { within + 1 } else { flex })
    }

    fn first_of(&self, group: BlockGroup) -> u64 {
        self.geometry.first_block_of(group).get()
    }

    /// A group's last block.
    fn end_of(&self, group: BlockGroup) -> u64 {
        self.first_of(group) + u64::from(self.geometry.blocks_in(group)) - 1
    }

    fn bitmap(&self, space: &mut Space, group: BlockGroup, goal: u64) -> Option<u64> {
        let first = self.first_of(group);
        let block = if self.geometry.flex_bits > 0 {
            let goal = self.flex_goal(space, group, goal, 1);
            let last = self.end_of(self.last_of_flex(group));
            space.find(goal, last, 1).or_else(|| space.find(first, last, 1))?
        } else {
            let last = self.end_of(group);
            let goal = self.stride_goal(space, group);
            space.find(goal, last, 1).or_else(|| space.find(first, last, 1))?
        };
        space.take(block..block + 1);
        Some(block)
    }

    fn table(&self, space: &mut Space, group: BlockGroup, goal: u64, len: u64) -> Option<u64> {
        let block = if self.geometry.flex_bits > 0 {
            let goal = self.flex_goal(space, group, goal, len);
            let last = self.end_of(self.last_of_flex(group));
            space.find(goal, last, len).or_else(|| space.find(0, u64::MAX, len))?
        } else {
            space.find(self.first_of(group), self.end_of(group), len)?
        };
        space.take(block..block + len);
        Some(block)
    }

    /// Where to look for a place in the flex group: right behind the last piece, past small obstacles; or else at the first
    /// place that has room for all that are still to come, or for this one.
    fn flex_goal(&self, space: &Space, group: BlockGroup, goal: u64, len: u64) -> u64 {
        let last_group = self.last_of_flex(group);
        let to_come = u64::from(last_group.get() - group.get() + 1) * len;
        let most = u64::from(self.geometry.blocks_per_group / 4);
        let room = to_come.min(most);
        if goal > 0
            && goal < self.geometry.blocks_count
            && let Some(block) = space.find(goal, goal + room, len)
        {
            return block;
        }
        let flex = self.geometry.flex_size();
        let first = self.first_of(BlockGroup(group.get() / flex * flex));
        let last = self.end_of(last_group);
        let found = space.find(first, last, room).or_else(|| space.find(first, last, len));
        found.or_else(|| space.find(0, last, len)).unwrap_or(0)
    }

    fn stride_goal(&self, space: &Space, group: BlockGroup) -> u64 {
        let (first, last) = (self.first_of(group), self.end_of(group));
        if self.stride == 0 {
            return first;
        }
        let start = space.find(first, last, 1).unwrap_or(first);
        let start = start + u64::from(self.geometry.itable_blocks());
        let Some(room) = (last + 1).checked_sub(start).filter(|room| *room > 0) else {
            return first;
        };
        let goal = start + self.stride * u64::from(group.get()) % room;
        if goal >= last { first } else { goal }
    }
}
