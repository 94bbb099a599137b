//! Sizes and counts that never change while mounted, and where things lie that follow from them alone.
//!
//! Only a checked superblock makes a [`Geometry`], so its numbers are within the bounds that the constructor lists; sums
//! below saturate only to satisfy the rule that nothing may overflow.
//!
//! Source: kernel `fs/ext4/super.c` (checks, `descriptor_loc`, `ext4_max_size`, `ext4_max_bitmap_size`),
//! `fs/ext4/balloc.c` (`ext4_bg_has_super`, `ext4_bg_num_gdb`, `ext4_num_base_meta_blocks`).

use crate::cast::{self, usize_from};
use crate::corruption::{Corruption, Place, Rule};
use crate::features::{Compat, Incompat, RoCompat};
use crate::numbers::{
    BlockGroup, InodeNumber, LogicalBlock, LogicalCluster, PhysicalBlock, PhysicalCluster,
    PhysicalRange,
};
use crate::superblock::RawSuperblock;

/// The numbers of one file system; plain data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Geometry {
    /// Bytes in a block: a power of two, 1024 to 65,536.
    pub block_size: u32,
    /// Binary logarithm of `block_size`: 10 to 16.
    pub block_bits: u32,
    /// Binary logarithm of the blocks in a cluster; 0 unless `bigalloc`.
    pub cluster_bits: u32,
    /// All blocks; more than `first_data_block`.
    pub blocks_count: u64,
    /// The block where group 0 starts: 1 for blocks of 1 KiB, else 0.
    pub first_data_block: u32,
    /// Groups; at least one.
    pub group_count: u32,
    /// Blocks in every group but the last: `clusters_per_group` times the blocks in a cluster.
    pub blocks_per_group: u32,
    /// Clusters in every group but the last; at most one bitmap's bits.
    pub clusters_per_group: u32,
    /// Inodes in every group; at most one bitmap's bits.
    pub inodes_per_group: u32,
    /// All inodes: groups times inodes per group.
    pub inodes_count: u32,
    /// Bytes in an inode: a power of two, 128 to the block size.
    pub inode_size: u32,
    /// The first inode that is not reserved.
    pub first_inode: u32,
    /// Bytes of extra fields that a new inode gets.
    pub want_extra_isize: u16,
    /// Bytes in a group descriptor: a power of two, 32 to 1024.
    pub desc_size: u32,
    /// Blocks of descriptors in the whole file system.
    pub desc_blocks: u32,
    /// Blocks that each full descriptor table keeps free for growth.
    pub reserved_gdt_blocks: u32,
    /// With `meta_bg`, the first descriptor block that lies in its own groups.
    pub first_meta_bg: u32,
    /// With `sparse_super2`, the groups with a backup; 0 for none.
    pub backup_groups: [u32; 2],
    /// Binary logarithm of the groups in a flex group; 0 without.
    pub flex_bits: u32,
    /// Features that may be ignored.
    pub compat: Compat,
    /// Features that a reader must know.
    pub incompat: Incompat,
    /// Features that a writer must know.
    pub ro_compat: RoCompat,
    /// Seed of metadata checksums.
    pub csum_seed: u32,
    /// The file system's UUID.
    pub uuid: [u8; 16],
}

impl Geometry {
    /// Whether metadata carries crc32c checksums.
    pub const fn has_metadata_csum(&self) -> bool {
        self.ro_compat.contains(RoCompat::METADATA_CSUM)
    }

    /// Whether group descriptors carry a checksum of either kind, so that their flags count.
    pub const fn has_gdt_csum(&self) -> bool {
        self.ro_compat.intersects(RoCompat::METADATA_CSUM.union(RoCompat::GDT_CSUM))
    }

    /// Blocks in a cluster.
    pub const fn cluster_ratio(&self) -> u32 {
        1 << self.cluster_bits
    }

    /// Bytes in a block, as a length.
    pub const fn block_len(&self) -> usize {
        usize_from(self.block_size)
    }

    /// Groups in a flex group; 1 without.
    pub const fn flex_size(&self) -> u32 {
        1 << self.flex_bits
    }

    /// Descriptors in a block.
    pub const fn desc_per_block(&self) -> u32 {
        self.block_size.wrapping_shr(self.desc_size.trailing_zeros())
    }

    /// Inodes in a block.
    pub const fn inodes_per_block(&self) -> u32 {
        self.block_size.wrapping_shr(self.inode_size.trailing_zeros())
    }

    /// Blocks in a group's inode table.
    pub const fn itable_blocks(&self) -> u32 {
        self.inodes_per_group.div_ceil(self.inodes_per_block())
    }

    /// All groups in order.
    pub fn groups(
        &self,
    ) -> impl DoubleEndedIterator<Item = BlockGroup> + ExactSizeIterator + use<> {
        (0..self.group_count).map(BlockGroup)
    }

    /// Whether the file system has that block.
    pub fn has_block(&self, block: PhysicalBlock) -> bool {
        block.get() < self.blocks_count
    }

    /// Whether a file may own all of `range`: it lies inside the file system and after the first data block.
    ///
    /// Source: kernel `fs/ext4/block_validity.c`, `ext4_sb_block_valid`, without its table of metadata.
    pub fn may_hold_data(&self, range: PhysicalRange) -> bool {
        range.start().get() > self.first_data_block.into() && range.end().get() <= self.blocks_count
    }

    /// The group that `block` is in, or `None` before the first or past the last.
    pub fn group_of(&self, block: PhysicalBlock) -> Option<BlockGroup> {
        self.place_of(block).map(|(group, _)| group)
    }

    /// The group that `block` is in and its place there, in blocks.
    pub fn place_of(&self, block: PhysicalBlock) -> Option<(BlockGroup, u32)> {
        let relative = block.get().checked_sub(self.first_data_block.into())?;
        let per_group = u64::from(self.blocks_per_group);
        let group = u32::try_from(relative.checked_div(per_group)?).ok()?;
        let offset = u32::try_from(relative.checked_rem(per_group)?).ok()?;
        self.has_block(block).then_some((BlockGroup(group), offset))
    }

    /// A group's first block.
    pub const fn first_block_of(&self, group: BlockGroup) -> PhysicalBlock {
        let before = u64_of(group.get()).saturating_mul(u64_of(self.blocks_per_group));
        PhysicalBlock::new(before.saturating_add(u64_of(self.first_data_block)))
    }

    /// Blocks in a group; the last may have fewer.
    pub fn blocks_in(&self, group: BlockGroup) -> u32 {
        let rest = self.blocks_count.saturating_sub(self.first_block_of(group).get());
        u32::try_from(rest).map_or(self.blocks_per_group, |rest| rest.min(self.blocks_per_group))
    }

    /// Clusters in a group; the last may have fewer, and its last cluster may be cut off.
    pub fn clusters_in(&self, group: BlockGroup) -> u32 {
        self.blocks_in(group).div_ceil(self.cluster_ratio())
    }

    /// A block's cluster, counted from the first data block; `None` before that.
    pub fn cluster_of(&self, block: PhysicalBlock) -> Option<PhysicalCluster> {
        let relative = block.get().checked_sub(self.first_data_block.into())?;
        Some(PhysicalCluster(relative >> self.cluster_bits))
    }

    /// A cluster's first block.
    pub fn first_block_of_cluster(&self, cluster: PhysicalCluster) -> PhysicalBlock {
        let relative = cluster.0.saturating_mul(self.cluster_ratio().into());
        PhysicalBlock::new(relative.saturating_add(self.first_data_block.into()))
    }

    /// The cluster of a file's block.
    pub const fn logical_cluster_of(&self, block: LogicalBlock) -> LogicalCluster {
        LogicalCluster(block.get() >> self.cluster_bits)
    }

    /// A block's place inside its cluster of the file.
    pub const fn offset_in_cluster(&self, block: LogicalBlock) -> u32 {
        block.get() & self.cluster_ratio().wrapping_sub(1)
    }

    /// Clusters that hold `blocks` blocks which start at a cluster's start.
    pub fn clusters_for(&self, blocks: u64) -> u64 {
        blocks.div_ceil(self.cluster_ratio().into())
    }

    /// An inode's group and its place there, or `None` if the file system has no such inode.
    pub fn inode_place(&self, inode: InodeNumber) -> Option<(BlockGroup, u32)> {
        let index = inode.get().checked_sub(1)?;
        let group = index.checked_div(self.inodes_per_group)?;
        let place = index.checked_rem(self.inodes_per_group)?;
        (inode.get() <= self.inodes_count).then_some((BlockGroup(group), place))
    }

    /// The inode at a place of a group, or `None` if there is none.
    pub fn inode_at(&self, group: BlockGroup, index: u32) -> Option<InodeNumber> {
        let before = group.get().checked_mul(self.inodes_per_group)?;
        let number = before.checked_add(index)?.checked_add(1)?;
        (index < self.inodes_per_group && number <= self.inodes_count)
            .then(|| InodeNumber::new(number))
            .flatten()
    }

    /// The block, and the byte in it, of the inode at `index` of a table that starts at `table`.
    pub fn inode_location(&self, table: PhysicalBlock, index: u32) -> (PhysicalBlock, usize) {
        let bytes = u64::from(index).saturating_mul(self.inode_size.into());
        let block = table.get().saturating_add(bytes >> self.block_bits);
        let within = cast::low_u32(bytes) & self.block_size.wrapping_sub(1);
        (PhysicalBlock::new(block), usize_from(within))
    }

    /// Whether a group starts with a copy of the superblock.
    pub fn has_super(&self, group: BlockGroup) -> bool {
        let n = group.get();
        if n == 0 {
            return true;
        }
        if self.compat.contains(Compat::SPARSE_SUPER2) {
            return self.backup_groups.contains(&n);
        }
        n == 1
            || !self.ro_compat.contains(RoCompat::SPARSE_SUPER)
            || [3, 5, 7].iter().any(|&base| is_power(n, base))
    }

    /// The block that holds the superblock's primary copy.
    pub const fn superblock_block(&self) -> PhysicalBlock {
        PhysicalBlock::new(if self.block_size == 1024 { 1 } else { 0 })
    }

    /// The byte of that block at which it begins: 1,024 from the start of the device, whatever the block size.
    pub const fn superblock_offset(&self) -> usize {
        if self.block_size > 1024 { 1024 } else { 0 }
    }

    /// Blocks of group 0 that come before the superblock's: the boot block of 1 KiB blocks under `bigalloc`.
    fn boot_blocks(&self, group: BlockGroup) -> u32 {
        u32::from(group.get() == 0 && self.block_size == 1024 && self.first_data_block == 0)
    }

    /// Descriptor blocks that lie right after each copy of the superblock; the others are scattered by `meta_bg`.
    pub const fn full_table_blocks(&self) -> u32 {
        if self.incompat.contains(Incompat::META_BG) {
            self.first_meta_bg
        } else {
            self.desc_blocks
        }
    }

    /// Where descriptor block `index` lies: the primary copy.
    pub fn descriptor_block(&self, index: u32) -> PhysicalBlock {
        self.descriptor_block_copy(index, BlockGroup(0)).unwrap_or_else(|| {
            let group = BlockGroup(index.saturating_mul(self.desc_per_block()));
            self.after_super(group, 0)
        })
    }

    /// Where `group` keeps a copy of descriptor block `index`, if it does; group 0 has the primary one unless `meta_bg`
    /// scatters it, and then the first group of its meta group has.
    pub fn descriptor_block_copy(&self, index: u32, group: BlockGroup) -> Option<PhysicalBlock> {
        if index >= self.desc_blocks {
            return None;
        }
        if index < self.full_table_blocks() {
            return self.has_super(group).then(|| self.after_super(group, index));
        }
        let (meta_group, _) = self.descriptor_place(group);
        (meta_group == index && self.meta_group_holds(group)).then(|| self.after_super(group, 0))
    }

    /// The descriptor block and the byte in it where a group's descriptor lies.
    pub fn descriptor_place(&self, group: BlockGroup) -> (u32, usize) {
        let per_block = self.desc_per_block();
        let index = group.get().checked_div(per_block).unwrap_or(0);
        let within = group.get().checked_rem(per_block).unwrap_or(0);
        (index, usize_from(within.saturating_mul(self.desc_size)))
    }

    /// Blocks at a group's start that hold the superblock, descriptors, and room for more descriptors; counted with the
    /// boot block, if it lies in the group.
    pub fn base_meta_blocks(&self, group: BlockGroup) -> u32 {
        let superblock = u32::from(self.has_super(group)).saturating_add(self.boot_blocks(group));
        let (meta_group, _) = self.descriptor_place(group);
        if self.incompat.contains(Incompat::META_BG) && meta_group >= self.first_meta_bg {
            return superblock.saturating_add(self.meta_group_holds(group).into());
        }
        if !self.has_super(group) {
            return 0;
        }
        superblock.saturating_add(self.full_table_blocks()).saturating_add(self.reserved_gdt_blocks)
    }

    /// The largest file with extents, in bytes.
    pub fn max_extent_file_bytes(&self) -> u64 {
        u64::from(u32::MAX).min(self.max_counted_blocks()) << self.block_bits
    }

    /// The largest file with indirect blocks, in bytes: neither the triple indirect block nor the count may overflow.
    pub fn max_indirect_file_bytes(&self) -> u64 {
        let per_block = u64::from(self.block_size >> 2);
        let reachable =
            (1..=3).fold(12_u64, |sum, level| sum.saturating_add(per_block.saturating_pow(level)));
        let (mut fits, mut fails) = (0_u64, reachable.min(u32::MAX.into()).saturating_add(1));
        while fits.saturating_add(1) < fails {
            let middle = fits.midpoint(fails);
            let all = middle.saturating_add(self.indirect_blocks(middle));
            if all <= self.max_counted_blocks() { fits = middle } else { fails = middle }
        }
        fits << self.block_bits
    }

    /// Indirect blocks that a file of `blocks` blocks without holes needs.
    pub fn indirect_blocks(&self, blocks: u64) -> u64 {
        let per_block = u64::from(self.block_size >> 2);
        let mut rest = blocks.saturating_sub(12);
        let mut sum = 0_u64;
        for level in 1..=3 {
            let here = rest.min(per_block.saturating_pow(level));
            for below in 1..=level {
                sum = sum.saturating_add(here.div_ceil(per_block.saturating_pow(below)));
            }
            rest = rest.saturating_sub(here);
        }
        sum
    }

    /// Blocks that an inode can count: 32 bits of 512 bytes each, or 48 bits of blocks with `huge_file`.
    fn max_counted_blocks(&self) -> u64 {
        if self.ro_compat.contains(RoCompat::HUGE_FILE) {
            return (1 << 48) - 1;
        }
        u64::from(u32::MAX) >> self.block_bits.saturating_sub(9)
    }

    /// The block `index` places after a group's superblock copy, or after its start if it has none.
    fn after_super(&self, group: BlockGroup, index: u32) -> PhysicalBlock {
        let skip = u64::from(self.has_super(group)).saturating_add(self.boot_blocks(group).into());
        PhysicalBlock::new(
            self.first_block_of(group).get().saturating_add(skip).saturating_add(index.into()),
        )
    }

    /// Whether a group is the first, second or last of its meta group.
    fn meta_group_holds(&self, group: BlockGroup) -> bool {
        let per_block = self.desc_per_block();
        let within = group.get().checked_rem(per_block).unwrap_or(0);
        within <= 1 || within == per_block.saturating_sub(1)
    }
}

impl TryFrom<&RawSuperblock> for Geometry {
    type Error = Corruption;

    fn try_from(raw: &RawSuperblock) -> Result<Self, Corruption> {
        let at = Place::Superblock;
        let (compat, incompat, ro_compat) = (raw.compat(), raw.incompat(), raw.ro_compat());
        at.require(raw.log_block_size.get() <= 6, Rule::BlockSize)?;
        let block_bits = raw.log_block_size.get().saturating_add(10);
        let cluster_bits = checked_cluster_bits(raw)?;
        let (inode_size, first_inode) = checked_inode_size(raw, 1 << block_bits)?;
        let mut geometry = Self {
            block_size: 1 << block_bits,
            block_bits,
            cluster_bits,
            blocks_count: raw.blocks_count(),
            first_data_block: raw.first_data_block.get(),
            group_count: 0,
            blocks_per_group: raw.blocks_per_group.get(),
            clusters_per_group: raw.blocks_per_group.get() >> cluster_bits,
            inodes_per_group: raw.inodes_per_group.get(),
            inodes_count: raw.inodes_count.get(),
            inode_size,
            first_inode,
            want_extra_isize: checked_extra_isize(raw, inode_size),
            desc_size: if incompat.contains(Incompat::BIT64) {
                raw.desc_size.get().into()
            } else {
                32
            },
            desc_blocks: 0,
            reserved_gdt_blocks: raw.reserved_gdt_blocks.get().into(),
            first_meta_bg: raw.first_meta_bg.get(),
            backup_groups: raw.backup_bgs.map(|group| group.get()),
            flex_bits: flex_bits(raw),
            compat,
            incompat,
            ro_compat,
            csum_seed: raw.computed_seed(),
            uuid: raw.uuid,
        };
        geometry.check_group_sizes(raw)?;
        geometry.count_groups()?;
        at.require(
            u64::from(raw.overhead_clusters.get()) <= geometry.blocks_count,
            Rule::Overhead,
        )?;
        Ok(geometry)
    }
}

impl Geometry {
    /// Checks the sizes of descriptors, groups and tables.
    fn check_group_sizes(&self, raw: &RawSuperblock) -> Result<(), Corruption> {
        let at = Place::Superblock;
        let bitmap_bits = self.block_size << 3;
        let wide = self.incompat.contains(Incompat::BIT64);
        let sound = self.desc_size.is_power_of_two() && (64..=1024).contains(&self.desc_size);
        at.require(!wide || sound, Rule::DescriptorSize)?;
        at.require((1..=bitmap_bits).contains(&self.clusters_per_group), Rule::BlocksPerGroup)?;
        at.require(
            self.clusters_per_group << self.cluster_bits == self.blocks_per_group,
            Rule::BlocksPerGroup,
        )?;
        if self.ro_compat.contains(RoCompat::BIGALLOC) {
            at.require(
                raw.clusters_per_group.get() == self.clusters_per_group,
                Rule::ClustersPerGroup,
            )?;
        }
        at.require(
            (self.inodes_per_block()..=bitmap_bits).contains(&self.inodes_per_group),
            Rule::InodesPerGroup,
        )?;
        at.require(self.reserved_gdt_blocks <= self.block_size >> 2, Rule::ReservedDescriptors)
    }

    /// Fills in what follows from the number of blocks, and checks it.
    fn count_groups(&mut self) -> Result<(), Corruption> {
        let at = Place::Superblock;
        at.require((1..1 << 48).contains(&self.blocks_count), Rule::BlocksCount)?;
        let data = self
            .blocks_count
            .checked_sub(self.first_data_block.into())
            .filter(|&blocks| blocks > 0);
        let data = data.ok_or(at.breaks(Rule::FirstDataBlock))?;
        let first = match (self.block_size, self.cluster_bits) {
            (1024, 0) => 1..=1,
            (1024, _) => 0..=1,
            _ => 0..=0,
        };
        at.require(first.contains(&self.first_data_block), Rule::FirstDataBlock)?;
        self.group_count = u32::try_from(data.div_ceil(self.blocks_per_group.into()))
            .ok()
            .filter(|groups| groups.checked_add(self.desc_per_block()).is_some())
            .ok_or(at.breaks(Rule::BlocksCount))?;
        let inodes = self.group_count.checked_mul(self.inodes_per_group);
        at.require(inodes == Some(self.inodes_count), Rule::InodesCount)?;
        self.desc_blocks = self.group_count.div_ceil(self.desc_per_block());
        at.require(self.full_table_blocks() <= self.desc_blocks, Rule::FirstMetaGroup)
    }
}

/// Binary logarithm of the blocks in a cluster.
fn checked_cluster_bits(raw: &RawSuperblock) -> Result<u32, Corruption> {
    let bits = raw.log_cluster_size.get().checked_sub(raw.log_block_size.get());
    let bits = bits.filter(|_| raw.log_cluster_size.get() <= MAX_LOG_CLUSTER_SIZE);
    let bits = bits.ok_or(Place::Superblock.breaks(Rule::ClusterSize))?;
    let may = raw.ro_compat().contains(RoCompat::BIGALLOC);
    Place::Superblock.require(may || bits == 0, Rule::ClusterSize)?;
    Ok(bits)
}

/// The size of an inode and the first one that is not reserved.
fn checked_inode_size(raw: &RawSuperblock, block_size: u32) -> Result<(u32, u32), Corruption> {
    if raw.rev_level.get() == 0 {
        return Ok((128, FIRST_ORDINARY_INODE));
    }
    let size = u32::from(raw.inode_size.get());
    let sound = size.is_power_of_two() && size >= 128 && size <= block_size;
    Place::Superblock.require(sound, Rule::InodeSize)?;
    Place::Superblock.require(raw.first_ino.get() >= FIRST_ORDINARY_INODE, Rule::FirstInode)?;
    Ok((size, raw.first_ino.get()))
}

/// Extra bytes that a new inode gets: what the superblock wants, if that is possible, else what the fields need.
fn checked_extra_isize(raw: &RawSuperblock, inode_size: u32) -> u16 {
    let room = inode_size.saturating_sub(128);
    let fits = |size: u16| size.is_multiple_of(4) && u32::from(size) <= room;
    let wanted = raw.want_extra_isize.get().max(raw.min_extra_isize.get()).max(DEFAULT_EXTRA_ISIZE);
    if fits(wanted) {
        wanted
    } else {
        DEFAULT_EXTRA_ISIZE.min(u16::try_from(room).unwrap_or(DEFAULT_EXTRA_ISIZE))
    }
}

/// Binary logarithm of the groups in a flex group; impossible values mean one group.
fn flex_bits(raw: &RawSuperblock) -> u32 {
    let bits = u32::from(raw.log_groups_per_flex);
    if raw.incompat().contains(Incompat::FLEX_BG) && bits < u32::BITS { bits } else { 0 }
}

/// Whether `n` is `base`, or `base` times itself any number of times.
fn is_power(n: u32, base: u32) -> bool {
    let mut power = base;
    while power < n {
        match power.checked_mul(base) {
            Some(next) => power = next,
            None => return false,
        }
    }
    power == n
}

/// Widening in a const fn.
#[expect(clippy::as_conversions, reason = "widening in a const fn")]
const fn u64_of(n: u32) -> u64 {
    n as u64
}

/// Clusters stop at a binary logarithm of 30 in all.
const MAX_LOG_CLUSTER_SIZE: u32 = 20;
const FIRST_ORDINARY_INODE: u32 = 11;
const DEFAULT_EXTRA_ISIZE: u16 = 32;

#[cfg(test)]
pub(crate) mod tests;
