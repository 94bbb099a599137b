//! Group descriptors: 32-byte records, or longer ones with high halves, and their two kinds of checksum.
//!
//! A decoded descriptor has pointers that lie in the file system. Its counts are only bounded by
//! [`GroupDescriptor::check_counts`], since the kernel mounts a file system whose counts are wrong; its checksum is a
//! question of its own, since only mounts that write refuse a wrong one.
//!
//! Source: kernel `fs/ext4/ext4.h`, `struct ext4_group_desc`; `fs/ext4/super.c`, `ext4_check_descriptors`,
//! `ext4_group_desc_csum`.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{le16, put};
use crate::cast::{self, high_u16, low_u16, usize_from};
use crate::corruption::{Corruption, Place, Rule};
use crate::crc::{self, Crc32c, crc16};
use crate::features::{Incompat, RoCompat};
use crate::geometry::Geometry;
use crate::numbers::{BlockGroup, PhysicalBlock};

/// What a descriptor says of its group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupDescriptor {
    /// Where the block bitmap is.
    pub block_bitmap: PhysicalBlock,
    /// Where the inode bitmap is.
    pub inode_bitmap: PhysicalBlock,
    /// Where the inode table starts.
    pub inode_table: PhysicalBlock,
    /// Free clusters.
    pub free_clusters: u32,
    /// Free inodes.
    pub free_inodes: u32,
    /// Inodes that are directories.
    pub used_dirs: u32,
    /// Inodes at the end of the table that were never used.
    pub itable_unused: u32,
    /// What is not initialised.
    pub flags: GroupFlags,
    /// Checksum of the block bitmap; only 16 bits of it are kept in short descriptors.
    pub block_bitmap_csum: u32,
    /// Checksum of the inode bitmap; only 16 bits of it are kept in short descriptors.
    pub inode_bitmap_csum: u32,
}

bitflags::bitflags! {
    /// What of a group is not initialised; counts only if descriptors have checksums.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct GroupFlags: u16 {
        /// Inode bitmap and table are not valid: all inodes are free.
        const INODE_UNINIT = 1;
        /// The block bitmap is to be computed.
        const BLOCK_UNINIT = 2;
        /// The inode table is zeroed.
        const INODE_ZEROED = 4;
    }
}

impl GroupDescriptor {
    /// From a record of `geometry.desc_size` bytes.
    ///
    /// # Errors
    /// A pointer that leaves the file system or, without `flex_bg`, the group.
    pub fn decode(
        bytes: &[u8],
        geometry: &Geometry,
        group: BlockGroup,
    ) -> Result<Self, Corruption> {
        let at = Place::Group(group);
        let descriptor = Self::fields(bytes, geometry).ok_or(at.breaks(Rule::TooShort))?;
        descriptor.check_places(geometry, group)?;
        Ok(descriptor)
    }

    /// The fields of a record, whatever they say; `None` if it is too short.
    pub fn fields(bytes: &[u8], geometry: &Geometry) -> Option<Self> {
        let (low, rest) = RawLow::ref_from_prefix(bytes).ok()?;
        let zero = RawHigh::default();
        let high = match geometry.desc_size {
            ..64 => &zero,
            _ => RawHigh::ref_from_prefix(rest).ok()?.0,
        };
        Some(Self {
            block_bitmap: PhysicalBlock::new(join32(low.block_bitmap, high.block_bitmap)),
            inode_bitmap: PhysicalBlock::new(join32(low.inode_bitmap, high.inode_bitmap)),
            inode_table: PhysicalBlock::new(join32(low.inode_table, high.inode_table)),
            free_clusters: join16(low.free_clusters, high.free_clusters),
            free_inodes: join16(low.free_inodes, high.free_inodes),
            used_dirs: join16(low.used_dirs, high.used_dirs),
            itable_unused: join16(low.itable_unused, high.itable_unused),
            flags: GroupFlags::from_bits_retain(low.flags.get()),
            block_bitmap_csum: join16(low.block_bitmap_csum, high.block_bitmap_csum),
            inode_bitmap_csum: join16(low.inode_bitmap_csum, high.inode_bitmap_csum),
        })
    }

    /// Checks that bitmaps and table lie where the group may have them.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check_places(&self, geometry: &Geometry, group: BlockGroup) -> Result<(), Corruption> {
        let at = Place::Group(group);
        let inside = |block, count| lies_inside(geometry, group, block, count);
        at.require(inside(self.block_bitmap, 1), Rule::BlockBitmapPlace)?;
        at.require(inside(self.inode_bitmap, 1), Rule::InodeBitmapPlace)?;
        at.require(inside(self.inode_table, geometry.itable_blocks()), Rule::InodeTablePlace)
    }

    /// Checks that no count is larger than what it counts from.
    ///
    /// # Errors
    /// The count that is.
    pub fn check_counts(&self, geometry: &Geometry, group: BlockGroup) -> Result<(), Corruption> {
        let at = Place::Group(group);
        at.require(self.free_clusters <= geometry.clusters_in(group), Rule::FreeClusters)?;
        at.require(self.free_inodes <= geometry.inodes_per_group, Rule::FreeInodes)?;
        at.require(self.used_dirs <= geometry.inodes_per_group, Rule::UsedDirectories)?;
        at.require(self.itable_unused <= geometry.inodes_per_group, Rule::UnusedInodes)
    }

    /// Writes the fields into a record of `geometry.desc_size` bytes, keeping what it does not know, and sets the
    /// checksum. A record that is too short is a mistake of the caller and panics.
    pub fn encode(&self, bytes: &mut [u8], geometry: &Geometry, group: BlockGroup) {
        let (low, rest) = RawLow::mut_from_prefix(bytes).expect("a record has desc_size bytes");
        low.block_bitmap = cast::low_u32(self.block_bitmap.get()).into();
        low.inode_bitmap = cast::low_u32(self.inode_bitmap.get()).into();
        low.inode_table = cast::low_u32(self.inode_table.get()).into();
        low.free_clusters = low_u16(self.free_clusters).into();
        low.free_inodes = low_u16(self.free_inodes).into();
        low.used_dirs = low_u16(self.used_dirs).into();
        low.flags = self.flags.bits().into();
        low.block_bitmap_csum = low_u16(self.block_bitmap_csum).into();
        low.inode_bitmap_csum = low_u16(self.inode_bitmap_csum).into();
        low.itable_unused = low_u16(self.itable_unused).into();
        if geometry.desc_size >= 64 {
            let (high, _) = RawHigh::mut_from_prefix(rest).expect("a record has desc_size bytes");
            high.block_bitmap = cast::high_u32(self.block_bitmap.get()).into();
            high.inode_bitmap = cast::high_u32(self.inode_bitmap.get()).into();
            high.inode_table = cast::high_u32(self.inode_table.get()).into();
            high.free_clusters = high_u16(self.free_clusters).into();
            high.free_inodes = high_u16(self.free_inodes).into();
            high.used_dirs = high_u16(self.used_dirs).into();
            high.itable_unused = high_u16(self.itable_unused).into();
            high.block_bitmap_csum = high_u16(self.block_bitmap_csum).into();
            high.inode_bitmap_csum = high_u16(self.inode_bitmap_csum).into();
        }
        if let Some(sum) = checksum(bytes, geometry, group) {
            put(bytes, CHECKSUM_AT, &sum.to_le_bytes());
        }
    }

    /// Whether a record's checksum is right, or the file system has none.
    pub fn verify(bytes: &[u8], geometry: &Geometry, group: BlockGroup) -> bool {
        checksum(bytes, geometry, group).is_none_or(|sum| le16(bytes, CHECKSUM_AT) == Some(sum))
    }

    /// Whether the block bitmap has to be computed.
    pub const fn block_bitmap_is_uninitialized(&self, geometry: &Geometry) -> bool {
        geometry.has_gdt_csum() && self.flags.contains(GroupFlags::BLOCK_UNINIT)
    }

    /// Whether inode bitmap and table hold nothing yet.
    pub const fn inodes_are_uninitialized(&self, geometry: &Geometry) -> bool {
        geometry.has_gdt_csum() && self.flags.contains(GroupFlags::INODE_UNINIT)
    }

    /// Whether `sum` is the block bitmap's, as far as the descriptor can hold it; always without checksums.
    pub const fn block_bitmap_matches(&self, geometry: &Geometry, sum: u32) -> bool {
        !geometry.has_metadata_csum() || matches_csum(self.block_bitmap_csum, sum, geometry)
    }

    /// Whether `sum` is the inode bitmap's, as far as the descriptor can hold it; always without checksums.
    pub const fn inode_bitmap_matches(&self, geometry: &Geometry, sum: u32) -> bool {
        !geometry.has_metadata_csum() || matches_csum(self.inode_bitmap_csum, sum, geometry)
    }
}

/// Compares all bits that descriptors of this size hold.
const fn matches_csum(stored: u32, sum: u32, geometry: &Geometry) -> bool {
    let mask = if geometry.desc_size >= 64 { u32::MAX } else { 0xFFFF };
    stored & mask == sum & mask
}

/// Whether `count` blocks from `block` on lie where the group may have its bitmaps and its table.
pub fn lies_inside(
    geometry: &Geometry,
    group: BlockGroup,
    block: PhysicalBlock,
    count: u32,
) -> bool {
    let (first, end) = if geometry.incompat.contains(Incompat::FLEX_BG) {
        (geometry.first_data_block.into(), geometry.blocks_count)
    } else {
        let first = geometry.first_block_of(group).get();
        (first, first.saturating_add(geometry.blocks_in(group).into()))
    };
    block.get() >= first && block.get().checked_add(count.into()).is_some_and(|past| past <= end)
}

/// The checksum that a record should have; `None` if the file system has none.
fn checksum(bytes: &[u8], geometry: &Geometry, group: BlockGroup) -> Option<u16> {
    let record = bytes.get(..usize_from(geometry.desc_size))?;
    let (before, rest) = record.split_at_checked(CHECKSUM_AT)?;
    let (_, after) = rest.split_at_checked(2)?;
    let number = group.get().to_le_bytes();
    if geometry.has_metadata_csum() {
        let sum = Crc32c::new(geometry.csum_seed)
            .update(&number)
            .update(before)
            .update(&[0; 2])
            .update(after);
        return Some(low_u16(sum.finish()));
    }
    if !geometry.ro_compat.contains(RoCompat::GDT_CSUM) {
        return None;
    }
    let sum = crc16(crc16(crc16(low_u16(crc::START), &geometry.uuid), &number), before);
    Some(if geometry.incompat.contains(Incompat::BIT64) { crc16(sum, after) } else { sum })
}

/// The first 32 bytes.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLow {
    block_bitmap: U32,
    inode_bitmap: U32,
    inode_table: U32,
    free_clusters: U16,
    free_inodes: U16,
    used_dirs: U16,
    flags: U16,
    exclude_bitmap: U32,
    block_bitmap_csum: U16,
    inode_bitmap_csum: U16,
    itable_unused: U16,
    checksum: U16,
}
const _: () = assert!(size_of::<RawLow>() == 32 && offset_of!(RawLow, checksum) == CHECKSUM_AT);

/// The next 32 bytes, with the high halves.
#[derive(Default, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHigh {
    block_bitmap: U32,
    inode_bitmap: U32,
    inode_table: U32,
    free_clusters: U16,
    free_inodes: U16,
    used_dirs: U16,
    itable_unused: U16,
    exclude_bitmap: U32,
    block_bitmap_csum: U16,
    inode_bitmap_csum: U16,
    reserved: U32,
}
const _: () = assert!(size_of::<RawHigh>() == 32 && offset_of!(RawHigh, block_bitmap_csum) == 0x18);

fn join32(low: U32, high: U32) -> u64 {
    u64::from(high.get()) << 32 | u64::from(low.get())
}

fn join16(low: U16, high: U16) -> u32 {
    u32::from(high.get()) << 16 | u32::from(low.get())
}

const CHECKSUM_AT: usize = 0x1E;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::tests::geometry;
    use crate::superblock::RawSuperblock;

    const GROUP: BlockGroup = BlockGroup(1);

    fn flex(raw: &mut RawSuperblock) {
        raw.feature_incompat = (raw.incompat() | Incompat::FLEX_BG).bits().into();
    }

    fn narrow(raw: &mut RawSuperblock) {
        raw.feature_incompat = Incompat::EXTENTS.bits().into();
    }

    fn descriptor() -> GroupDescriptor {
        GroupDescriptor {
            block_bitmap: PhysicalBlock::new(32768),
            inode_bitmap: PhysicalBlock::new(32769),
            inode_table: PhysicalBlock::new(32770),
            free_clusters: 32768,
            free_inodes: 1024,
            used_dirs: 3,
            itable_unused: 5,
            flags: GroupFlags::INODE_ZEROED,
            block_bitmap_csum: 0x1234_5678,
            inode_bitmap_csum: 0x9ABC_DEF0,
        }
    }

    /// What decoding gives after `change` was encoded.
    fn check(
        geometry: &Geometry,
        change: impl FnOnce(&mut GroupDescriptor),
    ) -> Result<GroupDescriptor, Rule> {
        let mut descriptor = descriptor();
        change(&mut descriptor);
        let mut bytes = vec![0xEE; usize_from(geometry.desc_size)];
        descriptor.encode(&mut bytes, geometry, GROUP);
        assert!(GroupDescriptor::verify(&bytes, geometry, GROUP));
        GroupDescriptor::decode(&bytes, geometry, GROUP).map_err(|broken| broken.rule)
    }

    #[test]
    fn long_descriptors_hold_all_and_short_ones_low_halves() {
        let wide = geometry(12, 100_000, |_| ());
        assert_eq!(check(&wide, |_| ()), Ok(descriptor()));
        let narrow = geometry(12, 100_000, narrow);
        let cut = GroupDescriptor {
            block_bitmap_csum: 0x5678,
            inode_bitmap_csum: 0xDEF0,
            ..descriptor()
        };
        assert_eq!(check(&narrow, |_| ()), Ok(cut));
        assert!(
            cut.block_bitmap_matches(&narrow, 0x1234_5678)
                && !cut.block_bitmap_matches(&wide, 0x1234_5678)
        );
        assert!(
            cut.inode_bitmap_matches(&narrow, 0x9ABC_DEF0) && !cut.inode_bitmap_matches(&narrow, 0)
        );
    }

    #[test]
    fn pointers_stay_in_the_group_without_flex_groups_and_else_in_the_file_system() {
        let strict = geometry(12, 100_000, |_| ());
        let flex = geometry(12, 100_000, flex);
        let at = |block| PhysicalBlock::new(block);
        assert_eq!(check(&strict, |own| own.block_bitmap = at(9)), Err(Rule::BlockBitmapPlace));
        assert_eq!(check(&strict, |own| own.inode_bitmap = at(65536)), Err(Rule::InodeBitmapPlace));
        assert_eq!(
            check(&strict, |own| own.inode_table = at(65536 - 63)),
            Err(Rule::InodeTablePlace)
        );
        assert!(check(&strict, |own| own.inode_table = at(65536 - 64)).is_ok());
        assert!(check(&flex, |own| own.block_bitmap = at(9)).is_ok());
        assert_eq!(check(&flex, |own| own.block_bitmap = at(100_000)), Err(Rule::BlockBitmapPlace));
        assert_eq!(check(&flex, |own| own.inode_table = at(u64::MAX)), Err(Rule::InodeTablePlace));
    }

    #[test]
    fn counts_have_a_check_of_their_own() {
        let geometry = geometry(12, 100_000, |_| ());
        let check = |change: fn(&mut GroupDescriptor)| {
            let mut own = descriptor();
            change(&mut own);
            own.check_counts(&geometry, GROUP).err().map(|broken| broken.rule)
        };
        assert_eq!(check(|_| ()), None);
        assert_eq!(check(|own| own.free_clusters = 32769), Some(Rule::FreeClusters));
        assert_eq!(check(|own| own.free_inodes = 1025), Some(Rule::FreeInodes));
        assert_eq!(check(|own| own.used_dirs = 1025), Some(Rule::UsedDirectories));
        assert_eq!(check(|own| own.itable_unused = 1025), Some(Rule::UnusedInodes));
    }

    #[test]
    fn flags_count_only_with_checksums() {
        let summed = geometry(12, 100_000, |_| ());
        let plain = geometry(12, 100_000, |raw| raw.feature_ro_compat = 0.into());
        let own = GroupDescriptor { flags: GroupFlags::all(), ..descriptor() };
        assert!(
            own.block_bitmap_is_uninitialized(&summed) && own.inodes_are_uninitialized(&summed)
        );
        assert!(
            !own.block_bitmap_is_uninitialized(&plain) && !own.inodes_are_uninitialized(&plain)
        );
    }
}
