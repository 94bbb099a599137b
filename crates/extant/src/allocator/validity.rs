//! Which blocks belong to the file system itself, so that no file may own them.
//!
//! Source: kernel `fs/ext4/block_validity.c`. Differs: one sorted list instead of a tree; it also yields the bitmap of a
//! group that has none yet.

use super::layout::Layout;
use crate::Error;
use alloc::vec::Vec;
use extant_format::cast::usize_from;
use extant_format::corruption::{Place, Rule};
use extant_format::{
    BlockGroup, Geometry, GroupDescriptor, InodeNumber, PhysicalBlock, PhysicalRange, bitmap,
};

/// The blocks of superblocks, descriptors, bitmaps and inode tables; and those of inodes that nobody else may share.
#[derive(Debug, Default)]
pub(super) struct SystemZones {
    /// Start and end; ascending, disjoint, never adjacent.
    zones: Vec<(u64, u64)>,
    owned: Vec<(InodeNumber, PhysicalRange)>,
}

impl SystemZones {
    /// The zones of a volume with these descriptors.
    ///
    /// # Errors
    /// Two structures that overlap.
    pub(super) fn new(
        geometry: &Geometry,
        descriptors: impl Iterator<Item = (BlockGroup, GroupDescriptor)>,
    ) -> Result<Self, Error> {
        let mut all = Vec::new();
        // Each kind of structure mostly follows its neighbour's: joined at once, little is left to sort.
        let mut open = [(0, 0); 4];
        for (group, descriptor) in descriptors {
            let start =
                if group.0 == 0 { PhysicalBlock::new(0) } else { geometry.first_block_of(group) };
            let boot = if group.0 == 0 { geometry.first_data_block } else { 0 };
            let pieces = [
                (start, geometry.base_meta_blocks(group) + boot),
                (descriptor.block_bitmap, 1),
                (descriptor.inode_bitmap, 1),
                (descriptor.inode_table, geometry.itable_blocks()),
            ];
            for ((start, len), open) in pieces.into_iter().zip(&mut open) {
                if len > 0 && open.1 == start.get() {
                    open.1 += u64::from(len);
                } else if len > 0 {
                    all.push(core::mem::replace(open, (start.get(), start.get() + u64::from(len))));
                }
            }
        }
        all.extend(open);
        all.retain(|zone| zone.0 < zone.1);
        all.sort_unstable();
        let mut zones: Vec<(u64, u64)> = Vec::new();
        for (start, end) in all {
            match zones.last_mut() {
                Some(last) if start < last.1 => {
                    return Err(Place::Block(PhysicalBlock::new(start))
                        .breaks(Rule::CrossLinked)
                        .into());
                }
                Some(last) if start == last.1 => last.1 = end,
                _ => zones.push((start, end)),
            }
        }
        zones.shrink_to_fit();
        Ok(Self { zones, owned: Vec::new() })
    }

    /// Reserves `range` for `inode`.
    pub(super) fn protect(&mut self, inode: InodeNumber, range: PhysicalRange) {
        self.owned.push((inode, range));
    }

    /// Whether any block of `range` belongs to the file system, or to an inode other than `inode` that shares nothing.
    pub(super) fn overlaps(&self, inode: Option<InodeNumber>, range: PhysicalRange) -> bool {
        self.within(range.start().get(), range.end().get()).next().is_some()
            || self
                .owned
                .iter()
                .any(|&(owner, owned)| Some(owner) != inode && owned.overlaps(range))
    }

    /// Whether every cluster of the zones in `group` is set in its bitmap.
    pub(super) fn are_set_in(&self, layout: &Layout, group: BlockGroup, bits: &[u8]) -> bool {
        self.clusters(layout, group).all(|(start, end)| bitmap::count_zeros(bits, start..end) == 0)
    }

    /// The bitmap of a group of which only the zones, and what lies past its end, are in use.
    ///
    /// Source: kernel `fs/ext4/balloc.c`, `ext4_init_block_bitmap`.
    pub(super) fn fill_bitmap(&self, layout: &Layout, group: BlockGroup, bits: &mut [u8]) {
        bits.fill(0);
        for (start, end) in self.clusters(layout, group) {
            bitmap::set(bits, start..end);
        }
        bitmap::set(bits, layout.clusters_in(group)..u32::MAX);
    }

    /// The same in memory of its own, as large as a block.
    pub(super) fn bitmap(&self, layout: &Layout, group: BlockGroup) -> Vec<u8> {
        let mut bits = alloc::vec![0; usize_from(1 << layout.block_bits)];
        self.fill_bitmap(layout, group, &mut bits);
        bits
    }

    /// Clusters of `group` that lie outside the zones.
    pub(super) fn free_clusters(&self, layout: &Layout, group: BlockGroup) -> u32 {
        let clusters = layout.clusters_in(group);
        let (mut used, mut last) = (0, 0);
        for (start, end) in self.clusters(layout, group) {
            // Two zones may meet in one cluster.
            used += end.saturating_sub(start.max(last));
            last = end;
        }
        clusters.saturating_sub(used)
    }

    /// The zones' clusters in `group`, as start and end.
    fn clusters(&self, layout: &Layout, group: BlockGroup) -> impl Iterator<Item = (u32, u32)> {
        let (first, bits) = (layout.first_block(group), layout.cluster_bits);
        let end = first + u64::from(layout.blocks_per_group);
        let offset = move |block: u64| u32::try_from(block - first).unwrap_or(u32::MAX);
        self.within(first, end)
            .map(move |(start, end)| (offset(start) >> bits, offset(end).div_ceil(1 << bits)))
    }

    /// The parts of the zones between two blocks.
    fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.zones.partition_point(|zone| zone.1 <= start);
        let later = self.zones[first..].iter().take_while(move |zone| zone.0 < end);
        later.map(move |zone| (zone.0.max(start), zone.1.min(end)))
    }
}
