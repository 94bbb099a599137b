//! What every pass looks at: the device, the numbers of the file system, its groups, and what is known of each inode.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use extant_device::{BlockDevice, DeviceError};
use extant_format::cast::usize_from;
use extant_format::inode::RawInode;
use extant_format::{
    BlockGroup, Compat, FileType, Geometry, GroupDescriptor, Incompat, InodeFlags, InodeNumber,
    PhysicalBlock, RawSuperblock, RoCompat,
};
use zerocopy::FromBytes;

use super::usage::Usage;

/// The device, by blocks.
#[derive(Clone, Copy)]
pub(super) struct Io<'a> {
    pub(super) device: &'a dyn BlockDevice,
    pub(super) block_bits: u32,
}

impl Io<'_> {
    /// Fills `bytes`, whole blocks, from `block` on.
    pub(super) fn read(&self, block: PhysicalBlock, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_into(block.get() << self.block_bits, bytes)
    }

    /// One block.
    pub(super) fn block(&self, block: PhysicalBlock) -> Result<Vec<u8>, DeviceError> {
        let mut bytes = vec![0; 1 << self.block_bits];
        self.read(block, &mut bytes)?;
        Ok(bytes)
    }
}

/// A group, and which parts of it lie where they may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) descriptor: GroupDescriptor,
    pub(super) has_block_bitmap: bool,
    pub(super) has_inode_bitmap: bool,
    pub(super) has_table: bool,
}

/// A file system that is checked.
pub(super) struct Image<'a> {
    pub(super) io: Io<'a>,
    pub(super) raw: RawSuperblock,
    pub(super) geometry: Geometry,
    pub(super) groups: Vec<Group>,
    /// Blocks of the file system itself, as disjoint runs in order: the first block, and the one after the last.
    pub(super) metadata: Vec<(u64, u64)>,
    pub(super) usage: Usage,
    /// By group.
    pub(super) facts: Vec<Box<[Fact]>>,
    /// Inodes that a list of orphans names, in order.
    pub(super) orphans: Vec<u32>,
    pub(super) now: Option<u64>,
}

impl Image<'_> {
    pub(super) fn compat(&self, feature: Compat) -> bool {
        self.geometry.compat.contains(feature)
    }

    pub(super) fn incompat(&self, feature: Incompat) -> bool {
        self.geometry.incompat.contains(feature)
    }

    pub(super) fn ro_compat(&self, feature: RoCompat) -> bool {
        self.geometry.ro_compat.contains(feature)
    }

    /// Whether a file could own these blocks, as far as the file system's size goes.
    pub(super) fn has_blocks(&self, start: PhysicalBlock, len: u64) -> bool {
        let end = start.get().checked_add(len);
        start.get() != 0
            && start.get() >= self.geometry.first_data_block.into()
            && end.is_some_and(|end| end <= self.geometry.blocks_count)
    }

    /// Whether one of these blocks is the file system's own.
    pub(super) fn is_metadata(&self, start: PhysicalBlock, len: u64) -> bool {
        let first = self.metadata.partition_point(|(_, end)| *end <= start.get());
        self.metadata.get(first).is_some_and(|(from, _)| *from < start.get().saturating_add(len))
    }

    /// The group's inodes that may have been used: those before the part that never was.
    pub(super) fn used_part(&self, group: &Group) -> u32 {
        let all = self.geometry.inodes_per_group;
        if !group.has_table || group.descriptor.inodes_are_uninitialized(&self.geometry) {
            return 0;
        }
        if self.geometry.has_gdt_csum() {
            all.saturating_sub(group.descriptor.itable_unused)
        } else {
            all
        }
    }

    /// What is known of an inode; nothing of one that was never used.
    pub(super) fn fact(&self, inode: u32) -> Option<&Fact> {
        let number = InodeNumber::new(inode)?;
        let (group, index) = self.geometry.inode_place(number)?;
        self.facts.get(usize_from(group.get()))?.get(usize_from(index))
    }

    /// The bytes of an inode whose table lies where it may.
    pub(super) fn read_inode(&self, inode: InodeNumber) -> Result<Option<Vec<u8>>, DeviceError> {
        let Some((group, index)) = self.geometry.inode_place(inode) else { return Ok(None) };
        let found = self.groups.get(usize_from(group.get())).filter(|group| group.has_table);
        let Some(found) = found else { return Ok(None) };
        let table = found.descriptor.inode_table;
        let (block, within) = self.geometry.inode_location(table, index);
        let start = (block.get() << self.geometry.block_bits)
            .saturating_add(extant_format::cast::u64_from(within));
        let mut bytes = vec![0; usize_from(self.geometry.inode_size)];
        self.io.device.read_into(start, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Whether an inode is the file system's own: reserved, a quota file or the orphan file.
    pub(super) fn is_own_inode(&self, inode: u32) -> bool {
        let raw = &self.raw;
        inode != InodeNumber::ROOT.get() && inode < self.geometry.first_inode
            || self.is_quota(inode)
            || self.compat(Compat::ORPHAN_FILE) && inode == raw.orphan_file_inum.get()
    }

    /// Whether an inode is one of the quota files that the superblock names.
    pub(super) fn is_quota(&self, inode: u32) -> bool {
        let raw = &self.raw;
        let numbers = [raw.usr_quota_inum, raw.grp_quota_inum, raw.prj_quota_inum];
        inode != 0 && numbers.iter().any(|number| number.get() == inode)
    }

    /// The inodes of a group, by number.
    pub(super) fn first_inode_of(&self, group: BlockGroup) -> u32 {
        group.get().saturating_mul(self.geometry.inodes_per_group).saturating_add(1)
    }
}

/// What is remembered of an inode: 8 bytes, for those up to the last one in use of each group.
#[derive(Debug, Default)]
pub(super) struct Fact {
    /// Names counted.
    pub(super) names: AtomicU32,
    /// Links stored.
    pub(super) links: u16,
    /// What it is; 0 if it is not in use.
    pub(super) kind: u8,
}

impl Fact {
    /// In use, and of this type if its mode has one.
    pub(super) fn new(kind: Option<FileType>, links: u16) -> Self {
        let kind = kind.map_or(UNKNOWN, FileType::entry_byte);
        Self { names: AtomicU32::new(0), links, kind }
    }

    pub(super) fn is_used(&self) -> bool {
        self.kind != 0
    }

    pub(super) fn file_type(&self) -> Option<FileType> {
        FileType::from_entry(self.kind & TYPE_MASK)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.file_type() == Some(FileType::Directory)
    }

    pub(super) fn has(&self, mark: u8) -> bool {
        self.kind & mark != 0
    }

    pub(super) fn count(&self) {
        self.names.fetch_add(1, Relaxed);
    }
}

/// In use, with a mode without a type.
const UNKNOWN: u8 = 8;
const TYPE_MASK: u8 = 0xF;
/// A mark of [`Fact::kind`]: the inode holds an attribute's value.
pub(super) const EA_INODE: u8 = 0x10;
/// A mark of [`Fact::kind`]: a directory with an index.
pub(super) const INDEXED: u8 = 0x20;
/// A mark of [`Fact::kind`]: nothing can be said of its links.
pub(super) const UNCOUNTED: u8 = 0x40;

/// An inode's bytes, and what they say.
#[derive(Clone, Copy)]
pub(super) struct Inode<'a> {
    pub(super) number: InodeNumber,
    pub(super) bytes: &'a [u8],
    pub(super) core: &'a RawInode,
}

impl<'a> Inode<'a> {
    /// From the bytes of an inode's place in its table.
    pub(super) fn new(number: InodeNumber, bytes: &'a [u8]) -> Option<Self> {
        let (core, _) = RawInode::ref_from_prefix(bytes).ok()?;
        Some(Self { number, bytes, core })
    }

    pub(super) fn mode(&self) -> u16 {
        self.core.mode.get()
    }

    pub(super) fn file_type(&self) -> Option<FileType> {
        FileType::from_mode(self.mode())
    }

    pub(super) fn links(&self) -> u16 {
        self.core.links_count.get()
    }

    pub(super) fn flags(&self) -> InodeFlags {
        self.core.flags()
    }

    pub(super) fn has(&self, flags: InodeFlags) -> bool {
        self.core.flags().intersects(flags)
    }

    /// Both halves of the size, whatever the type.
    pub(super) fn size(&self) -> u64 {
        u64::from(self.core.size_high.get()) << 32 | u64::from(self.core.size_lo.get())
    }

    /// Bytes of extra fields.
    pub(super) fn extra_size(&self) -> u16 {
        le16(self.bytes, 128).unwrap_or(0)
    }

    /// An extra field, if the inode has it.
    pub(super) fn extra(&self, at: usize) -> Option<u32> {
        let end = usize::from(self.extra_size()).saturating_add(128);
        (at.saturating_add(4) <= end).then(|| le32(self.bytes, at)).flatten()
    }

    /// The attribute block's number; 0 for none.
    pub(super) fn attribute_block(&self, geometry: &Geometry) -> PhysicalBlock {
        let wide = geometry.incompat.contains(Incompat::BIT64);
        let high = if wide { self.core.file_acl_high.get() } else { 0 };
        PhysicalBlock::from_parts(high, self.core.file_acl_lo.get())
    }

    /// The stored count of blocks, in whichever unit.
    pub(super) fn stored_blocks(&self, geometry: &Geometry) -> u64 {
        let wide = geometry.ro_compat.contains(RoCompat::HUGE_FILE);
        let high = if wide { self.core.blocks_high.get() } else { 0 };
        u64::from(high) << 32 | u64::from(self.core.blocks_lo.get())
    }

    /// Whether it is a symbolic link whose target lies in the inode.
    pub(super) fn is_short_symlink(&self) -> bool {
        self.file_type() == Some(FileType::Symlink) && (1..60).contains(&self.size())
    }

    /// Whether the block area can hold a map.
    pub(super) fn may_have_map(&self) -> bool {
        match self.file_type() {
            Some(FileType::Regular | FileType::Directory) => !self.has(InodeFlags::INLINE_DATA),
            Some(FileType::Symlink) => {
                !self.has(InodeFlags::INLINE_DATA) && !self.is_short_symlink()
            }
            _ => false,
        }
    }
}

/// The little-endian 16-bit number at `at`.
pub(super) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

/// The little-endian 32-bit number at `at`.
pub(super) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}
