//! The numbers of a volume that placement depends on, and the way between block numbers and places in groups.

use extant_format::{BlockGroup, Geometry, PhysicalBlock};

/// A flex group of at least this many groups keeps its first group for directories and metadata.
///
/// Source: kernel `EXT4_FLEX_SIZE_DIR_ALLOC_SCHEME`.
pub(super) const FLEX_SIZE_DIRECTORY_SCHEME: u32 = 4;

/// Sizes and counts that never change while the volume is mounted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Layout {
    /// log2 of the block size.
    pub(super) block_bits: u32,
    /// log2 of the blocks in a cluster.
    pub(super) cluster_bits: u32,
    pub(super) first_data_block: u64,
    /// Blocks of the whole volume.
    pub(super) blocks: u64,
    pub(super) blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) groups: u32,
    /// log2 of the groups in a flex group; 0 without flex groups.
    pub(super) flex_bits: u32,
}

/// A run of clusters inside one group; may be empty.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Run {
    pub(super) group: BlockGroup,
    /// First cluster, counted from the group's start.
    pub(super) start: u32,
    /// How many clusters.
    pub(super) len: u32,
}

impl Run {
    /// The cluster after the last.
    pub(super) fn end(self) -> u32 {
        self.start + self.len
    }
}

impl From<&Geometry> for Layout {
    fn from(geometry: &Geometry) -> Self {
        Self {
            block_bits: geometry.block_bits,
            cluster_bits: geometry.cluster_bits,
            first_data_block: geometry.first_data_block.into(),
            blocks: geometry.blocks_count,
            blocks_per_group: geometry.blocks_per_group,
            inodes_per_group: geometry.inodes_per_group,
            groups: geometry.group_count,
            flex_bits: geometry.flex_bits,
        }
    }
}

impl Layout {
    /// Blocks in a cluster.
    pub(super) fn cluster_ratio(&self) -> u32 {
        1 << self.cluster_bits
    }

    /// Clusters of a full group.
    pub(super) fn clusters_per_group(&self) -> u32 {
        self.blocks_per_group >> self.cluster_bits
    }

    /// Clusters that hold any of `blocks` aligned blocks.
    pub(super) fn clusters(&self, blocks: u32) -> u32 {
        blocks.div_ceil(self.cluster_ratio())
    }

    /// Groups in a flex group; 1 without flex groups.
    pub(super) fn flex_size(&self) -> u32 {
        1 << self.flex_bits
    }

    /// Flex groups of the volume.
    pub(super) fn flex_groups(&self) -> u32 {
        self.groups.div_ceil(self.flex_size())
    }

    /// The flex group of `group`.
    pub(super) fn flex_of(&self, group: BlockGroup) -> u32 {
        group.0 >> self.flex_bits
    }

    /// Whether data avoids `group` because directories and metadata gather there.
    pub(super) fn is_first_of_large_flex(&self, group: BlockGroup) -> bool {
        self.flex_size() >= FLEX_SIZE_DIRECTORY_SCHEME && group.0.is_multiple_of(self.flex_size())
    }

    /// First block of `group`.
    pub(super) fn first_block(&self, group: BlockGroup) -> u64 {
        self.first_data_block + u64::from(group.0) * u64::from(self.blocks_per_group)
    }

    /// Clusters that `group` really has; only the last has fewer than the others.
    pub(super) fn clusters_in(&self, group: BlockGroup) -> u32 {
        let left = self
            .blocks
            .saturating_sub(self.first_block(group))
            .min(u64::from(self.blocks_per_group));
        u32::try_from(left).map_or(self.blocks_per_group, |blocks| self.clusters(blocks))
    }

    /// Whether `block` belongs to a group of this volume.
    pub(super) fn contains(&self, block: PhysicalBlock) -> bool {
        (self.first_data_block..self.blocks).contains(&block.get())
    }

    /// The group of `block` and the cluster in it, or `None` outside the volume.
    pub(super) fn place(&self, block: PhysicalBlock) -> Option<(BlockGroup, u32)> {
        if !self.contains(block) {
            return None;
        }
        let offset = block.get() - self.first_data_block;
        let per_group = u64::from(self.blocks_per_group);
        let group = u32::try_from(offset / per_group).ok()?;
        let cluster = u32::try_from((offset % per_group) >> self.cluster_bits).ok()?;
        Some((BlockGroup(group), cluster))
    }

    /// The first block of cluster `start` of `group`.
    pub(super) fn block(&self, group: BlockGroup, start: u32) -> PhysicalBlock {
        PhysicalBlock::new(self.first_block(group) + (u64::from(start) << self.cluster_bits))
    }
}
