//! The superblock: its 1024 bytes by name, and the checked form that a mount starts from.
//!
//! Source: kernel `fs/ext4/ext4.h`, `struct ext4_super_block`; `fs/ext4/super.c`, `__ext4_fill_super` for the checks.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::corruption::{FormatError, Place, Rule, Unsupported};
use crate::crc::{self, crc32c};
use crate::features::{Compat, Incompat, RoCompat};
use crate::geometry::Geometry;
use crate::hash::CharSign;
use crate::numbers::{InodeNumber, PhysicalBlock};

/// A superblock that passed the checks which need no device; it keeps the bytes, so that it can be written back.
#[derive(Clone, Debug)]
pub struct Superblock {
    raw: RawSuperblock,
    geometry: Geometry,
}

impl Superblock {
    /// Where the primary copy lies on the device, in bytes.
    pub const OFFSET_BYTES: u64 = 1024;

    /// From the 1024 bytes at [`Self::OFFSET_BYTES`], or of a backup.
    ///
    /// # Errors
    /// The first rule broken or feature missing, in the kernel's order.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let (raw, _) = RawSuperblock::ref_from_prefix(bytes)
            .map_err(|_| Place::Superblock.breaks(Rule::TooShort))?;
        Self::try_from(raw)
    }

    /// The numbers that never change while mounted.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Checks that the file system may be written; one that fails may still be read.
    ///
    /// # Errors
    /// The features that forbid it, [`RoCompat::READONLY`] among them.
    pub fn check_writable(&self) -> Result<(), Unsupported> {
        let forbidden =
            self.geometry.ro_compat.difference(RoCompat::SUPPORTED.difference(RoCompat::READONLY));
        if forbidden.is_empty() { Ok(()) } else { Err(Unsupported::RoCompat(forbidden)) }
    }

    /// The fields.
    pub const fn raw(&self) -> &RawSuperblock {
        &self.raw
    }

    /// The fields, to change what may change while mounted: counts, times, state, errors, but nothing of the geometry.
    pub const fn raw_mut(&mut self) -> &mut RawSuperblock {
        &mut self.raw
    }

    /// The bytes to write, with the checksum set.
    pub fn to_raw(&self) -> RawSuperblock {
        let mut raw = self.raw;
        raw.set_checksum();
        raw
    }

    /// The label, without its padding.
    pub fn label(&self) -> &[u8] {
        let name = &self.raw.volume_name;
        name.split(|&byte| byte == 0).next().unwrap_or(name)
    }

    /// Clean, errors, orphans.
    pub fn state(&self) -> State {
        State::from_bits_retain(self.raw.state.get())
    }

    /// Mount options that are on unless switched off.
    pub fn default_mount_options(&self) -> DefaultMountOptions {
        DefaultMountOptions::from_bits_retain(self.raw.default_mount_opts.get())
    }

    /// The seed of directory hashes; all zero means the hash's own constants.
    pub fn hash_seed(&self) -> [u32; 4] {
        self.raw.hash_seed.map(U32::get)
    }

    /// How directory hashes take bytes; `None` if nobody has said yet.
    pub fn hash_sign(&self) -> Option<CharSign> {
        let flags = SuperblockFlags::from_bits_retain(self.raw.flags.get());
        if flags.contains(SuperblockFlags::UNSIGNED_HASH) {
            return Some(CharSign::Unsigned);
        }
        flags.contains(SuperblockFlags::SIGNED_HASH).then_some(CharSign::Signed)
    }

    /// The internal journal's inode, if the feature is on and it has one.
    pub fn journal_inode(&self) -> Option<InodeNumber> {
        let has = self.geometry.compat.contains(Compat::HAS_JOURNAL);
        has.then(|| InodeNumber::new(self.raw.journal_inum.get())).flatten()
    }

    /// The orphan file, if the feature is on.
    pub fn orphan_file(&self) -> Option<InodeNumber> {
        let has = self.geometry.compat.contains(Compat::ORPHAN_FILE);
        has.then(|| InodeNumber::new(self.raw.orphan_file_inum.get())).flatten()
    }

    /// Inodes of the file system itself beyond those of a fixed number: orphan file and quotas.
    pub fn special_inodes(&self) -> impl Iterator<Item = InodeNumber> {
        let Self { raw, .. } = self;
        let quotas = [raw.usr_quota_inum, raw.grp_quota_inum, raw.prj_quota_inum];
        let journal = [raw.journal_inum];
        let numbers = quotas.into_iter().chain(journal).map(|number| number.get());
        numbers.filter_map(InodeNumber::new).chain(self.orphan_file())
    }

    /// Head of the orphan list.
    pub fn last_orphan(&self) -> Option<InodeNumber> {
        InodeNumber::new(self.raw.last_orphan.get())
    }

    /// The first error recorded since the last check, if any.
    pub fn first_error(&self) -> Option<ErrorRecord> {
        let raw = &self.raw;
        (raw.error_count.get() != 0).then(|| ErrorRecord {
            seconds: wide_time(raw.first_error_time, raw.first_error_time_hi),
            inode: InodeNumber::new(raw.first_error_ino.get()),
            block: PhysicalBlock::new(raw.first_error_block.get()),
            function: raw.first_error_func,
            line: raw.first_error_line.get(),
            code: raw.first_error_errcode,
        })
    }

    /// The last error recorded since the last check, if any.
    pub fn last_error(&self) -> Option<ErrorRecord> {
        let raw = &self.raw;
        (raw.error_count.get() != 0).then(|| ErrorRecord {
            seconds: wide_time(raw.last_error_time, raw.last_error_time_hi),
            inode: InodeNumber::new(raw.last_error_ino.get()),
            block: PhysicalBlock::new(raw.last_error_block.get()),
            function: raw.last_error_func,
            line: raw.last_error_line.get(),
            code: raw.last_error_errcode,
        })
    }
}

impl TryFrom<&RawSuperblock> for Superblock {
    type Error = FormatError;

    fn try_from(raw: &RawSuperblock) -> Result<Self, FormatError> {
        let at = Place::Superblock;
        at.require(raw.magic.get() == MAGIC, Rule::Magic)?;
        if raw.rev_level.get() > 1 {
            return Err(Unsupported::Revision(raw.rev_level.get()).into());
        }
        let missing = raw.incompat().difference(Incompat::SUPPORTED);
        if !missing.is_empty() {
            return Err(Unsupported::Incompat(missing).into());
        }
        if raw.ro_compat().contains(RoCompat::BIGALLOC)
            && !raw.incompat().contains(Incompat::EXTENTS)
        {
            return Err(Unsupported::Needs("bigalloc", "extent").into());
        }
        let summed = raw.ro_compat().contains(RoCompat::METADATA_CSUM);
        if summed && raw.checksum_type != CRC32C {
            return Err(Unsupported::ChecksumType(raw.checksum_type).into());
        }
        let geometry = Geometry::try_from(raw)?;
        at.require(!summed || raw.checksum.get() == raw.computed_checksum(), Rule::Checksum)?;
        Ok(Self { raw: *raw, geometry })
    }
}

/// One of the two errors that a superblock remembers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ErrorRecord {
    /// When, in seconds since 1970.
    pub seconds: u64,
    /// In which inode, if in any.
    pub inode: Option<InodeNumber>,
    /// At which block; 0 if at none.
    pub block: PhysicalBlock,
    /// In which function, padded with zeros.
    pub function: [u8; 32],
    /// At which line.
    pub line: u32,
    /// Which kind, in the format's own numbering of errors.
    pub code: u8,
}

/// The format's own number for an error of this Linux number.
///
/// Source: kernel `fs/ext4/super.c`, `ext4_errno_to_code`; `ext4.h`, `EXT4_ERR_*`.
pub const fn error_code(errno: i32) -> u8 {
    match errno {
        5 => 2,    // EIO
        12 => 3,   // ENOMEM
        74 => 4,   // EFSBADCRC
        117 => 5,  // EFSCORRUPTED
        28 => 6,   // ENOSPC
        126 => 7,  // ENOKEY
        30 => 8,   // EROFS
        27 => 9,   // EFBIG
        17 => 10,  // EEXIST
        34 => 11,  // ERANGE
        75 => 12,  // EOVERFLOW
        16 => 13,  // EBUSY
        20 => 14,  // ENOTDIR
        39 => 15,  // ENOTEMPTY
        108 => 16, // ESHUTDOWN
        14 => 17,  // EFAULT
        _ => 1,
    }
}

bitflags::bitflags! {
    /// The state that the last mount left.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct State: u16 {
        /// Unmounted cleanly.
        const VALID = 1;
        /// Errors were found.
        const ERRORS = 2;
        /// Orphans are being recovered.
        const ORPHANS = 4;
    }

    /// Flags of the superblock that are no features.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct SuperblockFlags: u32 {
        /// Directory hashes take bytes as signed.
        const SIGNED_HASH = 1;
        /// Directory hashes take bytes as unsigned.
        const UNSIGNED_HASH = 2;
        /// For testing development code.
        const TEST_FILESYSTEM = 4;
    }

    /// Mount options stored in the superblock. The journal mode takes two bits.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct DefaultMountOptions: u32 {
        /// `debug`
        const DEBUG = 1;
        /// `bsdgroups`
        const BSD_GROUPS = 2;
        /// `user_xattr`
        const USER_XATTR = 4;
        /// `acl`
        const ACL = 8;
        /// `uid16`
        const UID16 = 0x10;
        /// `data=journal`, if it is the only one of the two bits
        const DATA_JOURNAL = 0x20;
        /// `data=ordered`, if it is the only one of the two bits
        const DATA_ORDERED = 0x40;
        /// `data=writeback`: both bits
        const DATA_WRITEBACK = 0x60;
        /// `nobarrier`
        const NO_BARRIER = 0x100;
        /// `block_validity`
        const BLOCK_VALIDITY = 0x200;
        /// `discard`
        const DISCARD = 0x400;
        /// `nodelalloc`
        const NO_DELALLOC = 0x800;
    }
}

/// The superblock's bytes, by name.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the names are the format's own; the kernel's documentation explains them"
)]
pub struct RawSuperblock {
    pub inodes_count: U32,
    pub blocks_count_lo: U32,
    pub r_blocks_count_lo: U32,
    pub free_blocks_count_lo: U32,
    pub free_inodes_count: U32,
    pub first_data_block: U32,
    pub log_block_size: U32,
    pub log_cluster_size: U32,
    pub blocks_per_group: U32,
    pub clusters_per_group: U32,
    pub inodes_per_group: U32,
    pub mtime: U32,
    pub wtime: U32,
    pub mnt_count: U16,
    pub max_mnt_count: U16,
    pub magic: U16,
    pub state: U16,
    pub errors: U16,
    pub minor_rev_level: U16,
    pub lastcheck: U32,
    pub checkinterval: U32,
    pub creator_os: U32,
    pub rev_level: U32,
    pub def_resuid: U16,
    pub def_resgid: U16,
    pub first_ino: U32,
    pub inode_size: U16,
    pub block_group_nr: U16,
    pub feature_compat: U32,
    pub feature_incompat: U32,
    pub feature_ro_compat: U32,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
    pub last_mounted: [u8; 64],
    pub algorithm_usage_bitmap: U32,
    pub prealloc_blocks: u8,
    pub prealloc_dir_blocks: u8,
    pub reserved_gdt_blocks: U16,
    pub journal_uuid: [u8; 16],
    pub journal_inum: U32,
    pub journal_dev: U32,
    pub last_orphan: U32,
    pub hash_seed: [U32; 4],
    pub def_hash_version: u8,
    pub jnl_backup_type: u8,
    pub desc_size: U16,
    pub default_mount_opts: U32,
    pub first_meta_bg: U32,
    pub mkfs_time: U32,
    pub jnl_blocks: [U32; 17],
    pub blocks_count_hi: U32,
    pub r_blocks_count_hi: U32,
    pub free_blocks_count_hi: U32,
    pub min_extra_isize: U16,
    pub want_extra_isize: U16,
    pub flags: U32,
    pub raid_stride: U16,
    pub mmp_interval: U16,
    pub mmp_block: U64,
    pub raid_stripe_width: U32,
    pub log_groups_per_flex: u8,
    pub checksum_type: u8,
    pub encryption_level: u8,
    pub reserved_pad: u8,
    pub kbytes_written: U64,
    pub snapshot_inum: U32,
    pub snapshot_id: U32,
    pub snapshot_r_blocks_count: U64,
    pub snapshot_list: U32,
    pub error_count: U32,
    pub first_error_time: U32,
    pub first_error_ino: U32,
    pub first_error_block: U64,
    pub first_error_func: [u8; 32],
    pub first_error_line: U32,
    pub last_error_time: U32,
    pub last_error_ino: U32,
    pub last_error_line: U32,
    pub last_error_block: U64,
    pub last_error_func: [u8; 32],
    pub mount_opts: [u8; 64],
    pub usr_quota_inum: U32,
    pub grp_quota_inum: U32,
    pub overhead_clusters: U32,
    pub backup_bgs: [U32; 2],
    pub encrypt_algos: [u8; 4],
    pub encrypt_pw_salt: [u8; 16],
    pub lpf_ino: U32,
    pub prj_quota_inum: U32,
    pub checksum_seed: U32,
    pub wtime_hi: u8,
    pub mtime_hi: u8,
    pub mkfs_time_hi: u8,
    pub lastcheck_hi: u8,
    pub first_error_time_hi: u8,
    pub last_error_time_hi: u8,
    pub first_error_errcode: u8,
    pub last_error_errcode: u8,
    pub encoding: U16,
    pub encoding_flags: U16,
    pub orphan_file_inum: U32,
    pub def_resuid_hi: U16,
    pub def_resgid_hi: U16,
    pub reserved: [U32; 93],
    pub checksum: U32,
}
const _: () =
    assert!(size_of::<RawSuperblock>() == 1024 && offset_of!(RawSuperblock, magic) == 0x38);
const _: () = assert!(
    offset_of!(RawSuperblock, uuid) == 0x68
        && offset_of!(RawSuperblock, reserved_gdt_blocks) == 0xCE
);
const _: () = assert!(
    offset_of!(RawSuperblock, desc_size) == 0xFE && offset_of!(RawSuperblock, flags) == 0x160
);
const _: () = assert!(
    offset_of!(RawSuperblock, mmp_block) == 0x168
        && offset_of!(RawSuperblock, error_count) == 0x194
);
const _: () = assert!(
    offset_of!(RawSuperblock, mount_opts) == 0x200
        && offset_of!(RawSuperblock, checksum_seed) == 0x270
);
const _: () = assert!(offset_of!(RawSuperblock, checksum) == CHECKSUM_AT);

impl RawSuperblock {
    /// All zero but for magic number, revision and checksum type; the start of a new file system.
    pub fn blank() -> Self {
        let mut raw = Self::new_zeroed();
        raw.magic = MAGIC.into();
        raw.rev_level = 1.into();
        raw
    }

    /// Features that may be ignored.
    pub const fn compat(&self) -> Compat {
        Compat::from_bits_retain(self.feature_compat.get())
    }

    /// Features that a reader must know.
    pub const fn incompat(&self) -> Incompat {
        Incompat::from_bits_retain(self.feature_incompat.get())
    }

    /// Features that a writer must know.
    pub const fn ro_compat(&self) -> RoCompat {
        RoCompat::from_bits_retain(self.feature_ro_compat.get())
    }

    /// Number of blocks.
    pub fn blocks_count(&self) -> u64 {
        self.wide(self.blocks_count_lo, self.blocks_count_hi)
    }

    /// Blocks that only root may use.
    pub fn reserved_blocks_count(&self) -> u64 {
        self.wide(self.r_blocks_count_lo, self.r_blocks_count_hi)
    }

    /// Free blocks when last counted: free clusters times their size.
    pub fn free_blocks_count(&self) -> u64 {
        self.wide(self.free_blocks_count_lo, self.free_blocks_count_hi)
    }

    /// Sets the number of blocks.
    pub fn set_blocks_count(&mut self, count: u64) {
        (self.blocks_count_lo, self.blocks_count_hi) = halves(count);
    }

    /// Sets the number of blocks that only root may use.
    pub fn set_reserved_blocks_count(&mut self, count: u64) {
        (self.r_blocks_count_lo, self.r_blocks_count_hi) = halves(count);
    }

    /// Sets the number of free blocks.
    pub fn set_free_blocks_count(&mut self, count: u64) {
        (self.free_blocks_count_lo, self.free_blocks_count_hi) = halves(count);
    }

    /// Seed of all metadata checksums but the superblock's.
    ///
    /// Source: kernel `fs/ext4/super.c`, `ext4_load_super` (`s_csum_seed`).
    pub fn computed_seed(&self) -> u32 {
        if self.incompat().contains(Incompat::CSUM_SEED) {
            return self.checksum_seed.get();
        }
        crc32c(crc::START, &self.uuid)
    }

    /// What the checksum should be.
    pub fn computed_checksum(&self) -> u32 {
        self.as_bytes()
            .first_chunk::<CHECKSUM_AT>()
            .map_or(0, |covered| crc32c(crc::START, covered))
    }

    /// Counts `error`, and records it as the last one and, if there was none, as the first.
    ///
    /// Source: kernel `fs/ext4/super.c`, `ext4_update_super`.
    pub fn record_error(&mut self, error: &ErrorRecord) {
        let raw = self;
        let (time, time_hi) = split_time(error.seconds);
        let inode = error.inode.map_or(0, InodeNumber::get).into();
        if raw.error_count.get() == 0 {
            (raw.first_error_time, raw.first_error_time_hi) = (time, time_hi);
            raw.first_error_ino = inode;
            raw.first_error_block = error.block.get().into();
            raw.first_error_func = error.function;
            raw.first_error_line = error.line.into();
            raw.first_error_errcode = error.code;
        }
        (raw.last_error_time, raw.last_error_time_hi) = (time, time_hi);
        raw.last_error_ino = inode;
        raw.last_error_block = error.block.get().into();
        raw.last_error_func = error.function;
        raw.last_error_line = error.line.into();
        raw.last_error_errcode = error.code;
        raw.error_count = raw.error_count.get().saturating_add(1).into();
        raw.state = (raw.state.get() | State::ERRORS.bits()).into();
    }

    /// Takes over what `other` knows of errors, if it knows of more.
    ///
    /// Source: kernel `fs/ext4/super.c`, `ext4_load_journal`, for a superblock out of the journal. Differs: the kernel takes what
    /// was at home even if the journal had more.
    pub fn keep_errors(&mut self, other: &Self) {
        self.state = (self.state.get() | other.state.get() & State::ERRORS.bits()).into();
        if other.error_count.get() <= self.error_count.get() {
            return;
        }
        self.error_count = other.error_count;
        self.first_error_time = other.first_error_time;
        self.first_error_time_hi = other.first_error_time_hi;
        self.first_error_ino = other.first_error_ino;
        self.first_error_block = other.first_error_block;
        self.first_error_func = other.first_error_func;
        self.first_error_line = other.first_error_line;
        self.first_error_errcode = other.first_error_errcode;
        self.last_error_time = other.last_error_time;
        self.last_error_time_hi = other.last_error_time_hi;
        self.last_error_ino = other.last_error_ino;
        self.last_error_block = other.last_error_block;
        self.last_error_func = other.last_error_func;
        self.last_error_line = other.last_error_line;
        self.last_error_errcode = other.last_error_errcode;
    }

    /// Sets the checksum, if the file system has any.
    pub fn set_checksum(&mut self) {
        if self.ro_compat().contains(RoCompat::METADATA_CSUM) {
            self.checksum = self.computed_checksum().into();
        }
    }

    /// Sets when the superblock was last written, in seconds since 1970.
    pub fn set_write_time(&mut self, seconds: u64) {
        (self.wtime, self.wtime_hi) = split_time(seconds);
    }

    /// Sets when the file system was last mounted, in seconds since 1970.
    pub fn set_mount_time(&mut self, seconds: u64) {
        (self.mtime, self.mtime_hi) = split_time(seconds);
    }

    /// When the superblock was last written, in seconds since 1970.
    pub fn write_time(&self) -> u64 {
        wide_time(self.wtime, self.wtime_hi)
    }

    /// The high halves of counts exist only with the feature.
    fn wide(&self, lo: U32, hi: U32) -> u64 {
        let hi = if self.incompat().contains(Incompat::BIT64) { hi.get() } else { 0 };
        u64::from(hi) << 32 | u64::from(lo.get())
    }
}

/// The two words of a count.
fn halves(count: u64) -> (U32, U32) {
    (crate::cast::low_u32(count).into(), crate::cast::high_u32(count).into())
}

/// Forty bits of seconds.
fn wide_time(lo: U32, hi: u8) -> u64 {
    u64::from(hi) << 32 | u64::from(lo.get())
}

/// The word and the byte of a time in seconds.
fn split_time(seconds: u64) -> (U32, u8) {
    let [_, _, _, hi, ..] = seconds.to_be_bytes();
    (crate::cast::low_u32(seconds).into(), hi)
}

/// Tells an ext2, ext3 or ext4 file system.
pub const MAGIC: u16 = 0xEF53;
/// The only checksum type there is.
pub const CRC32C: u8 = 1;
const CHECKSUM_AT: usize = 0x3FC;

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> RawSuperblock {
        let mut raw = RawSuperblock::blank();
        raw.log_block_size = 2.into();
        raw.log_cluster_size = 2.into();
        raw.blocks_per_group = 32768.into();
        raw.clusters_per_group = 32768.into();
        raw.inodes_per_group = 1024.into();
        raw.inodes_count = 1024.into();
        raw.set_blocks_count(8192);
        raw.inode_size = 256.into();
        raw.first_ino = 11.into();
        raw.checksum_type = CRC32C;
        raw.feature_ro_compat = RoCompat::METADATA_CSUM.bits().into();
        raw.feature_incompat = Incompat::EXTENTS.bits().into();
        raw.set_checksum();
        raw
    }

    /// The error that a change to a sound superblock, with its checksum made right again, ends in.
    fn check(change: impl FnOnce(&mut RawSuperblock)) -> Option<FormatError> {
        let mut raw = small();
        change(&mut raw);
        raw.set_checksum();
        Superblock::try_from(&raw).err()
    }

    fn broken(rule: Rule) -> Option<FormatError> {
        Some(Place::Superblock.breaks(rule).into())
    }

    #[test]
    fn a_sound_superblock_round_trips() {
        let raw = small();
        assert_eq!(Superblock::parse(raw.as_bytes()).unwrap().to_raw(), raw);
    }

    #[test]
    fn each_mount_check_refuses() {
        assert_eq!(check(|_| ()), None);
        assert_eq!(check(|raw| raw.magic = 1.into()), broken(Rule::Magic));
        assert_eq!(check(|raw| raw.rev_level = 2.into()), Some(Unsupported::Revision(2).into()));
        assert_eq!(check(|raw| raw.log_block_size = 7.into()), broken(Rule::BlockSize));
        assert_eq!(check(|raw| raw.log_cluster_size = 4.into()), broken(Rule::ClusterSize));
        assert_eq!(check(|raw| raw.inode_size = 200.into()), broken(Rule::InodeSize));
        assert_eq!(check(|raw| raw.inode_size = 8192.into()), broken(Rule::InodeSize));
        assert_eq!(check(|raw| raw.first_ino = 3.into()), broken(Rule::FirstInode));
        assert_eq!(check(|raw| raw.blocks_per_group = 0.into()), broken(Rule::BlocksPerGroup));
        assert_eq!(check(|raw| raw.inodes_per_group = 1.into()), broken(Rule::InodesPerGroup));
        assert_eq!(check(|raw| raw.inodes_count = 1023.into()), broken(Rule::InodesCount));
        assert_eq!(check(|raw| raw.set_blocks_count(0)), broken(Rule::BlocksCount));
        assert_eq!(check(|raw| raw.first_data_block = 9000.into()), broken(Rule::FirstDataBlock));
        assert_eq!(
            check(|raw| raw.reserved_gdt_blocks = 1025.into()),
            broken(Rule::ReservedDescriptors)
        );
        assert_eq!(check(|raw| raw.overhead_clusters = 9000.into()), broken(Rule::Overhead));
        assert_eq!(check(|raw| raw.checksum_type = 2), Some(Unsupported::ChecksumType(2).into()));
    }

    #[test]
    fn unknown_incompat_features_are_named() {
        let error = check(|raw| raw.feature_incompat = (0x40 | 1 << 30 | 8).into()).unwrap();
        assert_eq!(error.to_string(), "unsupported features: journal_dev FEATURE_I30");
    }

    #[test]
    fn unknown_ro_compat_features_and_readonly_forbid_writing() {
        let check = |bits: u32| {
            let mut raw = small();
            raw.feature_ro_compat = (0x400 | bits).into();
            raw.set_checksum();
            Superblock::try_from(&raw).unwrap().check_writable().err()
        };
        assert_eq!(check(0), None);
        assert_eq!(check(0x1000), Some(Unsupported::RoCompat(RoCompat::READONLY)));
        assert_eq!(
            check(1 << 30),
            Some(Unsupported::RoCompat(RoCompat::from_bits_retain(1 << 30)))
        );
    }

    #[test]
    fn a_wrong_checksum_is_found_last() {
        let mut raw = small();
        raw.volume_name[0] = b'x';
        assert_eq!(Superblock::try_from(&raw).err(), broken(Rule::Checksum));
    }

    #[test]
    fn the_first_error_stays_and_the_last_is_replaced() {
        let mut superblock = Superblock::try_from(&small()).unwrap();
        assert_eq!(superblock.first_error(), None);
        let error = |line| ErrorRecord {
            seconds: 0x1_0000_0002,
            inode: InodeNumber::new(12),
            block: PhysicalBlock::new(7),
            function: [b'f'; 32],
            line,
            code: 1,
        };
        superblock.raw_mut().record_error(&error(1));
        superblock.raw_mut().record_error(&error(2));
        assert_eq!(
            (superblock.first_error(), superblock.last_error()),
            (Some(error(1)), Some(error(2)))
        );
        assert_eq!(superblock.raw().error_count.get(), 2);
        assert!(superblock.state().contains(State::ERRORS));
    }
}
