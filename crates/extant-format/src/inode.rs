//! Inodes: the 128 bytes that all have, the extra fields that end inside `i_extra_isize`, and their checksum.
//!
//! Source: kernel `fs/ext4/ext4.h`, `struct ext4_inode`; `fs/ext4/inode.c`, `__ext4_iget`, `ext4_fill_raw_inode`,
//! `ext4_inode_csum`.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{le16, le32, put};
use crate::cast::{self, high_u16, low_u16};
use crate::corruption::{Corruption, DoesNotFit, Place, Rule};
use crate::crc::{Crc32c, crc32c};
use crate::features::{Incompat, RoCompat};
pub use crate::file_type::FileType;
use crate::geometry::Geometry;
use crate::numbers::{InodeNumber, PhysicalBlock};
use crate::timestamp::Timestamp;

/// The bytes that hold a file's block map, a short symlink, a device number or inline data.
pub const BLOCK_AREA_BYTES: usize = 60;
/// The bytes that every inode has.
pub const CORE_BYTES: usize = 128;

/// What an inode says of its file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InodeRecord {
    /// Type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Names; a directory with too many to count has 1.
    pub links: u16,
    /// Space used, in units of 512 bytes.
    pub blocks: u64,
    /// Flags.
    pub flags: InodeFlags,
    /// The attribute block, if any.
    pub file_acl: Option<PhysicalBlock>,
    /// Told apart from earlier files of this number.
    pub generation: u32,
    /// Goes up with each change; an EA inode keeps half of its reference count here.
    pub version: u64,
    /// Last access; an EA inode keeps its hash here.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode; an EA inode keeps half of its reference count here.
    pub ctime: Timestamp,
    /// Birth, if the inode has room for it.
    pub crtime: Option<Timestamp>,
    /// Deletion time in seconds, or the next inode of the orphan list.
    pub dtime: u32,
    /// Project.
    pub projid: u32,
    /// Bytes of extra fields that are in use.
    pub extra_isize: u16,
    /// The block map, or what takes its place.
    pub block: [u8; BLOCK_AREA_BYTES],
}

impl InodeRecord {
    /// From the `geometry.inode_size` bytes of an inode in its table.
    ///
    /// # Errors
    /// A rule that the fields break on their own; links and mode are judged by whoever knows why the inode is read.
    pub fn decode(
        bytes: &[u8],
        geometry: &Geometry,
        inode: InodeNumber,
    ) -> Result<Self, Corruption> {
        let at = Place::Inode(inode);
        let (core, _) = RawInode::ref_from_prefix(bytes).map_err(|_| at.breaks(Rule::TooShort))?;
        let extra = Extra::of(bytes);
        let sound = extra.size.is_multiple_of(4) && extra.end() <= bytes.len();
        at.require(sound, Rule::ExtraSize)?;
        let time = |word: U32, extra_at| Timestamp::decode(word.get(), extra.le32(extra_at));
        let crtime =
            extra.le32(CRTIME_AT).map(|word| Timestamp::decode(word, extra.le32(CRTIME_EXTRA_AT)));
        let file_acl = PhysicalBlock::from_parts(
            if geometry.incompat.contains(Incompat::BIT64) { core.file_acl_high.get() } else { 0 },
            core.file_acl_lo.get(),
        );
        let has_acl = file_acl != PhysicalBlock::new(0);
        at.require(!has_acl || geometry.has_block(file_acl), Rule::AttributeBlock)?;
        let record = Self {
            mode: core.mode.get(),
            uid: join(core.uid_high, core.uid),
            gid: join(core.gid_high, core.gid),
            size: core.size(geometry),
            links: core.links_count.get(),
            blocks: core.blocks(geometry).ok_or(at.breaks(Rule::FileSize))?,
            flags: core.flags(),
            file_acl: has_acl.then_some(file_acl),
            generation: core.generation.get(),
            version: u64::from(extra.le32(VERSION_HI_AT).unwrap_or(0)) << 32
                | u64::from(core.version.get()),
            atime: time(core.atime, ATIME_EXTRA_AT),
            mtime: time(core.mtime, MTIME_EXTRA_AT),
            ctime: time(core.ctime, CTIME_EXTRA_AT),
            crtime,
            dtime: core.dtime.get(),
            projid: extra.le32(PROJID_AT).unwrap_or(0),
            extra_isize: extra.stored,
            block: core.block,
        };
        at.require(record.size_is_possible(geometry), Rule::FileSize)?;
        Ok(record)
    }

    /// Whether the file's kind of map reaches its last byte.
    ///
    /// Source: kernel `fs/ext4/inode.c`, `__ext4_iget`. Differs: there only a negative size is refused, and what lies past
    /// the largest file is never read.
    fn size_is_possible(&self, geometry: &Geometry) -> bool {
        let most = match () {
            () if self.size <= u32::MAX.into() => return true,
            () if self.flags.intersects(InodeFlags::EXTENTS | InodeFlags::INLINE_DATA) => {
                geometry.max_extent_file_bytes()
            }
            () => geometry.max_indirect_file_bytes(),
        };
        self.size <= most
    }

    /// Writes the fields over an inode's bytes, keeping attributes and what it does not know; the checksum is not set.
    ///
    /// # Errors
    /// The block count or size needs a feature that is off; nothing is written then.
    pub fn encode(&self, bytes: &mut [u8], geometry: &Geometry) -> Result<(), DoesNotFit> {
        let (blocks_lo, blocks_high, huge) = self.stored_blocks(geometry)?;
        let wide_size = has_wide_size(self.mode, geometry);
        if !wide_size && cast::high_u32(self.size) != 0 {
            return Err(DoesNotFit("size of a file that is not regular"));
        }
        let (core, _) = RawInode::mut_from_prefix(bytes).map_err(|_| DoesNotFit("inode"))?;
        core.mode = self.mode.into();
        (core.uid_high, core.uid) = (high_u16(self.uid).into(), low_u16(self.uid).into());
        (core.gid_high, core.gid) = (high_u16(self.gid).into(), low_u16(self.gid).into());
        core.size_lo = cast::low_u32(self.size).into();
        if wide_size {
            core.size_high = cast::high_u32(self.size).into();
        }
        core.links_count = self.links.into();
        (core.blocks_lo, core.blocks_high) = (blocks_lo.into(), blocks_high.into());
        let mut flags = self.flags;
        flags.set(InodeFlags::HUGE_FILE, huge);
        core.flags = flags.bits().into();
        let file_acl = self.file_acl.map_or(0, PhysicalBlock::get);
        core.file_acl_lo = cast::low_u32(file_acl).into();
        if geometry.incompat.contains(Incompat::BIT64) {
            core.file_acl_high = low_u16(cast::high_u32(file_acl)).into();
        }
        core.generation = self.generation.into();
        core.version = cast::low_u32(self.version).into();
        core.dtime = self.dtime.into();
        core.block = self.block;
        if bytes.len() > CORE_BYTES {
            put(bytes, EXTRA_ISIZE_AT, &self.extra_isize.to_le_bytes());
        }
        self.encode_times(bytes);
        put_extra(bytes, VERSION_HI_AT, cast::high_u32(self.version));
        put_extra(bytes, PROJID_AT, self.projid);
        Ok(())
    }

    /// The type of file, unless the mode has none, as that of an inode never used.
    pub const fn file_type(&self) -> Option<FileType> {
        FileType::from_mode(self.mode)
    }

    /// Whether this is a symbolic link whose target lies in the block area.
    ///
    /// Source: kernel `fs/ext4/inode.c`, `ext4_inode_is_fast_symlink`.
    pub fn is_fast_symlink(&self, geometry: &Geometry) -> bool {
        if self.file_type() != Some(FileType::Symlink)
            || self.flags.contains(InodeFlags::INLINE_DATA)
        {
            return false;
        }
        if geometry.incompat.contains(Incompat::EA_INODE) {
            return (1..60).contains(&self.size);
        }
        let cluster = u64::from(geometry.block_size >> 9) << geometry.cluster_bits;
        self.blocks == if self.file_acl.is_some() { cluster } else { 0 }
    }

    /// Major and minor number of a device's inode.
    ///
    /// Source: kernel `include/linux/kdev_t.h`, `old_decode_dev`, `new_decode_dev`.
    pub fn device(&self) -> (u32, u32) {
        let word = |at| le32(&self.block, at).unwrap_or(0);
        match (word(0), word(4)) {
            (0, new) => (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xF_FF00),
            (old, _) => (old >> 8 & 0xFF, old & 0xFF),
        }
    }

    /// Makes the block area that of a device; of the numbers, 12 and 20 bits are stored.
    ///
    /// Source: kernel `include/linux/kdev_t.h`, `old_encode_dev`, `new_encode_dev`.
    pub fn set_device(&mut self, major: u32, minor: u32) {
        let words = match (major, minor) {
            (..256, ..256) => [major << 8 | minor, 0],
            _ => [0, minor & 0xFF | (major & 0xFFF) << 8 | (minor & 0xF_FF00) << 12],
        };
        self.block = [0; BLOCK_AREA_BYTES];
        for (at, word) in [0, 4].into_iter().zip(words) {
            put(&mut self.block, at, &word.to_le_bytes());
        }
    }

    fn encode_times(&self, bytes: &mut [u8]) {
        for (time, word_at, extra_at) in [
            (self.atime, offset_of!(RawInode, atime), ATIME_EXTRA_AT),
            (self.mtime, offset_of!(RawInode, mtime), MTIME_EXTRA_AT),
            (self.ctime, offset_of!(RawInode, ctime), CTIME_EXTRA_AT),
        ] {
            let (word, extra) = time.encode();
            let word = if put_extra(bytes, extra_at, extra) { word } else { time.encode_short() };
            put(bytes, word_at, &word.to_le_bytes());
        }
        if let Some(crtime) = self.crtime {
            let (word, extra) = crtime.encode();
            let word =
                if put_extra(bytes, CRTIME_EXTRA_AT, extra) { word } else { crtime.encode_short() };
            put_extra(bytes, CRTIME_AT, word);
        }
    }

    /// The block count's two fields, and whether they count blocks instead of 512 bytes.
    ///
    /// Source: kernel `fs/ext4/inode.c`, `ext4_inode_blocks_set`.
    fn stored_blocks(&self, geometry: &Geometry) -> Result<(u32, u16, bool), DoesNotFit> {
        let parts =
            |count: u64| Some((cast::low_u32(count), u16::try_from(cast::high_u32(count)).ok()?));
        if let Ok(count) = u32::try_from(self.blocks) {
            return Ok((count, 0, false));
        }
        if !geometry.ro_compat.contains(RoCompat::HUGE_FILE) {
            return Err(DoesNotFit("block count"));
        }
        if let Some((lo, high)) = parts(self.blocks) {
            return Ok((lo, high, false));
        }
        let whole = self.blocks >> geometry.block_bits.saturating_sub(9);
        parts(whole).map(|(lo, high)| (lo, high, true)).ok_or(DoesNotFit("block count"))
    }
}

/// The 128 bytes that every inode has, by name.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the names are the format's own; the kernel's documentation explains them"
)]
pub struct RawInode {
    pub mode: U16,
    pub uid: U16,
    pub size_lo: U32,
    pub atime: U32,
    pub ctime: U32,
    pub mtime: U32,
    pub dtime: U32,
    pub gid: U16,
    pub links_count: U16,
    pub blocks_lo: U32,
    pub flags: U32,
    pub version: U32,
    pub block: [u8; BLOCK_AREA_BYTES],
    pub generation: U32,
    pub file_acl_lo: U32,
    pub size_high: U32,
    pub obsolete_faddr: U32,
    pub blocks_high: U16,
    pub file_acl_high: U16,
    pub uid_high: U16,
    pub gid_high: U16,
    pub checksum_lo: U16,
    pub reserved: U16,
}
const _: () = assert!(size_of::<RawInode>() == CORE_BYTES && offset_of!(RawInode, block) == 0x28);
const _: () = assert!(offset_of!(RawInode, checksum_lo) == CHECKSUM_LO_AT);

impl RawInode {
    /// The flags.
    pub const fn flags(&self) -> InodeFlags {
        InodeFlags::from_bits_retain(self.flags.get())
    }

    /// Bytes in the file; the high half counts for regular files and, with `large_dir`, for all.
    ///
    /// Source: kernel `fs/ext4/ext4.h`, `ext4_isize`.
    pub fn size(&self, geometry: &Geometry) -> u64 {
        let high = if has_wide_size(self.mode.get(), geometry) { self.size_high.get() } else { 0 };
        u64::from(high) << 32 | u64::from(self.size_lo.get())
    }

    /// Space used in units of 512 bytes, or `None` if that is past counting.
    fn blocks(&self, geometry: &Geometry) -> Option<u64> {
        if !geometry.ro_compat.contains(RoCompat::HUGE_FILE) {
            return Some(self.blocks_lo.get().into());
        }
        let count = u64::from(self.blocks_high.get()) << 32 | u64::from(self.blocks_lo.get());
        if !self.flags().contains(InodeFlags::HUGE_FILE) {
            return Some(count);
        }
        count.checked_mul(1 << geometry.block_bits.saturating_sub(9))
    }
}

bitflags::bitflags! {
    /// What is special about an inode.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct InodeFlags: u32 {
        /// Secure deletion; no effect.
        const SECRM = 0x1;
        /// Undelete; no effect.
        const UNRM = 0x2;
        /// Compressed; not supported anywhere.
        const COMPR = 0x4;
        /// Every change is synchronous.
        const SYNC = 0x8;
        /// May not change.
        const IMMUTABLE = 0x10;
        /// May only grow at its end.
        const APPEND = 0x20;
        /// `dump` skips it.
        const NODUMP = 0x40;
        /// Access times stay.
        const NOATIME = 0x80;
        /// Contents or names are encrypted.
        const ENCRYPT = 0x800;
        /// The directory has a hash tree.
        const INDEX = 0x1000;
        /// Data goes through the journal.
        const JOURNAL_DATA = 0x4000;
        /// No tail merging; no effect.
        const NOTAIL = 0x8000;
        /// Changes of the directory are synchronous.
        const DIRSYNC = 0x10000;
        /// Directories in it are spread over the groups.
        const TOPDIR = 0x20000;
        /// The block count is in blocks.
        const HUGE_FILE = 0x40000;
        /// Blocks are mapped by extents.
        const EXTENTS = 0x80000;
        /// Protected by fs-verity.
        const VERITY = 0x10_0000;
        /// Holds an attribute's value.
        const EA_INODE = 0x20_0000;
        /// Blocks past the end of file; obsolete.
        const EOFBLOCKS = 0x40_0000;
        /// Direct access to the device's memory.
        const DAX = 0x200_0000;
        /// Contents lie in the inode.
        const INLINE_DATA = 0x1000_0000;
        /// New files inherit the project.
        const PROJINHERIT = 0x2000_0000;
        /// Names are compared without case.
        const CASEFOLD = 0x4000_0000;
    }
}

/// The seed of every checksum that belongs to an inode.
pub fn inode_seed(fs_seed: u32, inode: InodeNumber, generation: u32) -> u32 {
    crc32c(crc32c(fs_seed, &inode.get().to_le_bytes()), &generation.to_le_bytes())
}

/// The seed of the checksums of the inode in `bytes`.
pub fn seed_of(bytes: &[u8], geometry: &Geometry, inode: InodeNumber) -> u32 {
    inode_seed(
        geometry.csum_seed,
        inode,
        le32(bytes, offset_of!(RawInode, generation)).unwrap_or(0),
    )
}

/// Whether an inode's checksum is right, given its own seed. Ask only if the file system has checksums.
pub fn verify_checksum(bytes: &[u8], seed: u32) -> bool {
    let Some(sum) = checksum(bytes, seed) else { return false };
    let high = Extra::of(bytes).le16(CHECKSUM_HI_AT).unwrap_or(high_u16(sum));
    le16(bytes, CHECKSUM_LO_AT) == Some(low_u16(sum)) && high == high_u16(sum)
}

/// Sets an inode's checksum, given its own seed.
pub fn set_checksum(bytes: &mut [u8], seed: u32) {
    let Some(sum) = checksum(bytes, seed) else { return };
    put(bytes, CHECKSUM_LO_AT, &low_u16(sum).to_le_bytes());
    if Extra::of(bytes).le16(CHECKSUM_HI_AT).is_some() {
        put(bytes, CHECKSUM_HI_AT, &high_u16(sum).to_le_bytes());
    }
}

fn checksum(bytes: &[u8], seed: u32) -> Option<u32> {
    let (core, rest) = bytes.split_at_checked(CORE_BYTES)?;
    // The fields of the sum itself count as zeros. They are in the first bytes, which are few enough to be copied.
    let (mut head, extra) = ([0; CORE_BYTES + 4], rest.len().min(4));
    let head = head.get_mut(..CORE_BYTES.checked_add(extra)?)?;
    put(head, 0, core)?;
    put(head, CORE_BYTES, rest.get(..extra)?)?;
    put(head, CHECKSUM_LO_AT, &[0; 2])?;
    if Extra::of(bytes).le16(CHECKSUM_HI_AT).is_some() {
        put(head, CHECKSUM_HI_AT, &[0; 2])?;
    }
    Some(Crc32c::new(seed).update(head).update(rest.get(extra..)?).finish())
}

/// The extra fields that an inode has.
#[derive(Clone, Copy)]
struct Extra<'a> {
    bytes: &'a [u8],
    stored: u16,
    size: usize,
}

impl<'a> Extra<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let stored =
            if bytes.len() > CORE_BYTES { le16(bytes, EXTRA_ISIZE_AT).unwrap_or(0) } else { 0 };
        Self { bytes, stored, size: usize::from(stored) }
    }

    /// Where the extra fields end.
    fn end(&self) -> usize {
        CORE_BYTES.saturating_add(self.size)
    }

    fn le16(&self, at: usize) -> Option<u16> {
        (at.checked_add(2)? <= self.end()).then(|| le16(self.bytes, at)).flatten()
    }

    fn le32(&self, at: usize) -> Option<u32> {
        (at.checked_add(4)? <= self.end()).then(|| le32(self.bytes, at)).flatten()
    }
}

/// Writes an extra field, if the inode has it.
fn put_extra(bytes: &mut [u8], at: usize, value: u32) -> bool {
    Extra::of(bytes).le32(at).and_then(|_| put(bytes, at, &value.to_le_bytes())).is_some()
}

fn has_wide_size(mode: u16, geometry: &Geometry) -> bool {
    let regular = FileType::from_mode(mode) == Some(FileType::Regular);
    regular || geometry.incompat.contains(Incompat::LARGEDIR)
}

fn join(high: U16, low: U16) -> u32 {
    u32::from(high.get()) << 16 | u32::from(low.get())
}

const CHECKSUM_LO_AT: usize = 0x7C;
const EXTRA_ISIZE_AT: usize = 0x80;
const CHECKSUM_HI_AT: usize = 0x82;
const CTIME_EXTRA_AT: usize = 0x84;
const MTIME_EXTRA_AT: usize = 0x88;
const ATIME_EXTRA_AT: usize = 0x8C;
const CRTIME_AT: usize = 0x90;
const CRTIME_EXTRA_AT: usize = 0x94;
const VERSION_HI_AT: usize = 0x98;
const PROJID_AT: usize = 0x9C;

/// Bytes of extra fields that this crate knows.
pub const KNOWN_EXTRA_BYTES: u16 = 32;

#[cfg(test)]
mod tests;
