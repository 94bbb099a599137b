//! From what is decided to numbers: groups, inodes, the journal, and the superblock that says so.
//!
//! Source: mke2fs(8); what mke2fs 1.47 makes of each size is compared field by field.

use alloc::borrow::ToOwned;
use alloc::format;

use extant_format::cast::low_u16;
use extant_format::superblock::{RawSuperblock, State, SuperblockFlags};
use extant_format::{Compat, FormatError, Geometry, Incompat, RoCompat, crc};

use super::options::option;
use super::resolve::{Decided, creator};
use super::{Features, JournalSize, MkfsError};

/// Blocks of a journal, all of them and those for fast commits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct JournalLen {
    pub(super) all: u32,
    pub(super) fast_commit: u32,
}

impl Decided<'_> {
    /// Blocks of the journal of a file system that got `blocks` in the end; `None` if it shall have none of its own.
    pub(super) fn journal_len(&self, blocks: u64) -> Result<Option<JournalLen>, MkfsError> {
        let has = self.features.compat.contains(Compat::HAS_JOURNAL);
        if !has || self.options.external_journal.is_some() {
            return Ok(None);
        }
        let has_fast = self.features.compat.contains(Compat::FAST_COMMIT);
        let by_size = default_journal_len(blocks);
        let normal = match self.options.journal {
            JournalSize::BySize => by_size.into(),
            JournalSize::Blocks(blocks) => u64::from(blocks),
            JournalSize::Bytes(bytes) => bytes / u64::from(self.block_size),
        };
        let fast = match self.options.fast_commit_bytes {
            _ if !has_fast => 0,
            None => u64::from(by_size / NORMAL_TO_FAST),
            Some(bytes) => bytes / u64::from(self.block_size),
        };
        let all = normal.saturating_add(fast);
        match (u32::try_from(all), u32::try_from(fast)) {
            (Ok(all), Ok(fast_commit)) if (SMALLEST_JOURNAL..=LARGEST_JOURNAL).contains(&all) => {
                Ok(Some(JournalLen { all, fast_commit }))
            }
            _ => Err(option(
                "journal",
                format!(
                    "{all} blocks of {} bytes; it has {SMALLEST_JOURNAL} to {LARGEST_JOURNAL} blocks",
                    self.block_size
                ),
            )),
        }
    }

    /// The superblock, without the counts of what is free.
    pub(super) fn superblock(&self) -> Result<RawSuperblock, MkfsError> {
        let mut raw = self.plain_superblock()?;
        self.set_features(&mut raw);
        self.set_sizes(&mut raw)?;
        Ok(raw)
    }

    /// What any superblock says, a journal device's too.
    pub(super) fn plain_superblock(&self) -> Result<RawSuperblock, MkfsError> {
        let options = self.options;
        let mut raw = RawSuperblock::blank();
        raw.rev_level = self.revision.into();
        let log = |bytes: u32| bytes.ilog2() - 10;
        raw.log_block_size = log(self.block_size).into();
        raw.log_cluster_size = log(self.cluster_size).into();
        raw.first_data_block = u32::from(self.cluster_size == 1024).into();
        raw.inode_size = self.inode_size.into();
        if self.inode_size > 128 {
            raw.want_extra_isize = EXTRA_ISIZE.into();
            raw.min_extra_isize = EXTRA_ISIZE.into();
        }
        raw.first_ino = FIRST_INODE.into();
        raw.uuid = options.uuid;
        raw.volume_name[..options.label.len()].copy_from_slice(&options.label);
        raw.last_mounted[..options.last_mounted.len()].copy_from_slice(&options.last_mounted);
        let seed = self.extended.hash_seed.unwrap_or(options.hash_seed);
        raw.hash_seed
            .iter_mut()
            .zip(seed.as_chunks().0)
            .for_each(|(to, from)| *to = (*from).into());
        raw.def_hash_version = self.hash_version;
        raw.flags = SuperblockFlags::SIGNED_HASH.bits().into();
        if self.extended.test_filesystem == Some(true) {
            raw.flags =
                (SuperblockFlags::SIGNED_HASH | SuperblockFlags::TEST_FILESYSTEM).bits().into();
        }
        raw.state = State::VALID.bits().into();
        raw.errors = self.errors.number().into();
        raw.creator_os = creator(options)?.0.into();
        raw.max_mnt_count = u16::MAX.into();
        if self.periodic_check {
            // File systems that are made together shall not be checked together.
            let spread =
                options.uuid.iter().map(|byte| u32::from(*byte)).sum::<u32>() % MOST_MOUNTS;
            raw.max_mnt_count = low_u16(MOST_MOUNTS + spread).into();
            raw.checkinterval = CHECK_SECONDS.into();
        }
        raw.default_mount_opts = self.mount_options.bits().into();
        (raw.mkfs_time, raw.lastcheck) = (options.time_seconds.into(), options.time_seconds.into());
        raw.set_write_time(options.time_seconds.into());
        raw.raid_stride = self.extended.stride.unwrap_or(0).into();
        raw.raid_stripe_width = self.extended.stripe_width.unwrap_or(0).into();
        raw.mmp_interval = self.extended.mmp_update_interval.unwrap_or(0).into();
        Ok(raw)
    }

    fn set_features(&self, raw: &mut RawSuperblock) {
        let Features { compat, incompat, ro_compat } = self.features;
        raw.feature_compat = compat.bits().into();
        raw.feature_incompat = incompat.bits().into();
        raw.feature_ro_compat = ro_compat.bits().into();
        if incompat.contains(Incompat::BIT64) {
            raw.desc_size = self.extended.desc_size.unwrap_or(64).into();
        }
        raw.log_groups_per_flex = u8::try_from(self.groups_per_flex.ilog2()).unwrap_or(0);
        if ro_compat.contains(RoCompat::METADATA_CSUM) {
            raw.checksum_type = extant_format::superblock::CRC32C;
        }
        if incompat.contains(Incompat::CSUM_SEED) {
            raw.checksum_seed = crc::crc32c(crc::START, &self.options.uuid).into();
        }
        if incompat.contains(Incompat::CASEFOLD) {
            raw.encoding = self.encoding.number().into();
            raw.encoding_flags = u16::from(self.extended.strict_encoding == Some(true)).into();
        }
        if incompat.contains(Incompat::ENCRYPT) {
            raw.encrypt_algos[..2].copy_from_slice(&[AES_256_XTS, AES_256_CTS]);
        }
        if incompat.contains(Incompat::MMP) && raw.mmp_interval.get() == 0 {
            raw.mmp_interval = MMP_SECONDS.into();
        }
        if let Some(journal) = self.options.external_journal {
            raw.journal_uuid = journal.uuid;
            raw.journal_dev = journal.device.into();
        }
    }

    /// Blocks, or clusters, in a group.
    fn per_group(&self) -> u32 {
        let by_bitmap = match self.cluster_size.ilog2() - 10 {
            ..17 => self.block_size * 8,
            // Blocks in a group have to be counted in 32 bits.
            _ => (self.block_size - 1) * 8,
        };
        self.options.blocks_per_group.unwrap_or(by_bitmap).min(MOST_BLOCKS_IN_GROUP)
    }

    /// Sets how many blocks, groups and inodes there are. A last group with room for little more than its own tables is left
    /// out; groups become smaller if they cannot have as many inodes as are wanted.
    fn set_sizes(&self, raw: &mut RawSuperblock) -> Result<(), MkfsError> {
        let first = u64::from(raw.first_data_block.get());
        let ratio = self.cluster_size / self.block_size;
        let all = self.blocks - self.blocks % u64::from(ratio);
        let (mut blocks, mut per_group) = (all, self.per_group());
        if blocks <= first {
            return Err(self.too_small(first + u64::from(SPARE_BLOCKS)));
        }
        let asked = self.reserved_blocks;
        let mut reserved = asked;
        loop {
            let group_blocks = per_group.checked_mul(ratio);
            let group_blocks = group_blocks
                .ok_or_else(|| option("cluster size", "a group would be too large".to_owned()))?;
            let groups = (blocks - first).div_ceil(group_blocks.into());
            let Some(inodes_per_group) = self.inodes_per_group(groups) else {
                if ratio > 1 || per_group < SMALLEST_SHRUNK_GROUP {
                    return Err(option("inodes", "more than groups can have".to_owned()));
                }
                (blocks, per_group) = (all, per_group - 8);
                continue;
            };
            raw.set_blocks_count(blocks);
            raw.set_reserved_blocks_count(reserved);
            raw.blocks_per_group = group_blocks.into();
            raw.clusters_per_group = per_group.into();
            raw.inodes_per_group = inodes_per_group.into();
            let inodes = u32::try_from(groups.saturating_mul(inodes_per_group.into()));
            let too_large = |_| option("size", format!("{groups} groups are more than can be"));
            raw.inodes_count = inodes.map_err(too_large)?.into();
            self.set_descriptors(raw, blocks, groups);

            let geometry = Geometry::try_from(&*raw).map_err(FormatError::from)?;
            if 4 + geometry.itable_blocks() + geometry.reserved_gdt_blocks > group_blocks {
                return Err(option("inodes", "more than groups can have".to_owned()));
            }
            let least = least_last_group(&geometry) + SPARE_BLOCKS;
            let last = geometry.groups().next_back().unwrap_or_default();
            let rest = geometry.blocks_in(last);
            if rest == group_blocks || rest >= least {
                return Ok(());
            }
            if groups == 1 {
                return Err(self.too_small(first + u64::from(least)));
            }
            blocks -= u64::from(rest);
            let share = u128::from(asked) * u128::from(blocks) / u128::from(self.blocks);
            reserved = u64::try_from(share).unwrap_or(asked);
        }
    }

    fn too_small(&self, needed_blocks: u64) -> MkfsError {
        let block = u64::from(self.block_size);
        MkfsError::TooSmall {
            bytes: self.blocks * block,
            needed_bytes: needed_blocks * block,
            journal_bytes: 0,
        }
    }

    /// As many as are wanted, in whole blocks of the inode table and whole bytes of the bitmap; `None` if a bitmap cannot
    /// have so many.
    fn inodes_per_group(&self, groups: u64) -> Option<u32> {
        let inode_size = u32::from(self.inode_size);
        let wanted = u64::from(self.inodes.max(FIRST_INODE + 1)).div_ceil(groups);
        let bits = self.block_size * 8;
        let wanted = u32::try_from(wanted).ok().filter(|wanted| *wanted <= bits)?;
        let mut wanted = wanted.min(PAST_INODES_IN_GROUP - self.block_size / inode_size);
        loop {
            let table_blocks = (wanted * inode_size).div_ceil(self.block_size);
            let whole = table_blocks * self.block_size / inode_size;
            // One byte of a bitmap does not hold the reserved ones and lost+found, but those of two groups do.
            let least = if groups == 1 { FIRST_INODE.next_multiple_of(8) } else { 8 };
            let count = (whole & !7).max(least);
            // Where even the fewest are too many the caller refuses.
            if wanted == 0 || u64::from(count).saturating_mul(groups) <= u64::from(u32::MAX) {
                return Some(count);
            }
            wanted -= 1;
        }
    }

    /// Decides where descriptors are: with room to grow behind each copy or, if these would fill their groups, scattered.
    fn set_descriptors(&self, raw: &mut RawSuperblock, blocks: u64, groups: u64) {
        let mut features = self.features;
        self.set_backups(raw, groups);
        let desc_size = u64::from(raw.desc_size.get().max(32));
        let desc_blocks = groups.div_ceil(u64::from(self.block_size) / desc_size);
        let mut room = 0;
        if features.compat.contains(Compat::RESIZE_INODE) {
            room = self.reserved_descriptors(raw, blocks, groups);
        }
        let group_blocks = u64::from(raw.blocks_per_group.get());
        if desc_blocks + u64::from(room) > group_blocks * 3 / 4 {
            features.incompat.insert(Incompat::META_BG);
            features.compat.remove(Compat::RESIZE_INODE);
            room = 0;
        }
        raw.reserved_gdt_blocks = low_u16(room).into();
        raw.feature_compat = features.compat.bits().into();
        raw.feature_incompat = features.incompat.bits().into();
    }

    /// Keeps room for descriptors of the size that it may grow to, or of one 1024 times as large, as far as one block of
    /// pointers reaches. Its pointers have 32 bits, so a larger file system goes without.
    fn reserved_descriptors(&self, raw: &RawSuperblock, blocks: u64, groups: u64) -> u32 {
        let reachable = self.block_size / 4;
        if let Some(room) = self.resize_room {
            return room.min(reachable);
        }
        let desc_per_block = u64::from(self.block_size) / u64::from(raw.desc_size.get().max(32));
        let first = u64::from(raw.first_data_block.get());
        let largest =
            if blocks < u64::from(u32::MAX) / 1024 { blocks * 1024 } else { u32::MAX.into() };
        let largest_groups = (largest - first).div_ceil(raw.blocks_per_group.get().into());
        let more =
            largest_groups.div_ceil(desc_per_block).saturating_sub(groups.div_ceil(desc_per_block));
        u32::try_from(more).unwrap_or(reachable).min(reachable)
    }

    /// With `sparse_super2`, which groups have a copy of the superblock: the second, and the last.
    fn set_backups(&self, raw: &mut RawSuperblock, groups: u64) {
        if !self.features.compat.contains(Compat::SPARSE_SUPER2) {
            return;
        }
        let last = u32::try_from(groups - 1).unwrap_or(u32::MAX);
        let [first, second] = match self.extended.backup_superblocks.unwrap_or(2) {
            0 => [0, 0],
            1 => [last.min(1), 0],
            _ if last <= 1 => [last, 0],
            _ => [1, last],
        };
        // In ascending order, the empty one first.
        raw.backup_bgs = [first.min(second), first.max(second)].map(Into::into);
    }
}

/// Blocks that the last group needs for itself.
fn least_last_group(geometry: &Geometry) -> u32 {
    let last = geometry.groups().next_back().unwrap_or_default();
    let copy = 1 + geometry.desc_blocks + geometry.reserved_gdt_blocks;
    2 + geometry.itable_blocks() + if geometry.has_super(last) { copy } else { 0 }
}

/// Blocks of the journal of a file system of `blocks`, in steps.
fn default_journal_len(blocks: u64) -> u32 {
    const STEPS: [(u64, u32); 7] = [
        (32 << 10, 1 << 10),
        (256 << 10, 4 << 10),
        (512 << 10, 8 << 10),
        (4096 << 10, 16 << 10),
        (8192 << 10, 32 << 10),
        (16384 << 10, 64 << 10),
        (32768 << 10, 128 << 10),
    ];
    STEPS.iter().find(|(below, _)| blocks < *below).map_or(256 << 10, |(_, len)| *len)
}

pub(super) const FIRST_INODE: u32 = 11;
const EXTRA_ISIZE: u16 = 32;
const MMP_SECONDS: u16 = 5;
const AES_256_XTS: u8 = 1;
const AES_256_CTS: u8 = 4;
/// Mounts after which a check is due, where checks are wanted, and seconds.
const MOST_MOUNTS: u32 = 20;
const CHECK_SECONDS: u32 = 180 * 86400;
/// Groups of 64 KiB blocks stop here, so that 16-bit counts suffice.
const MOST_BLOCKS_IN_GROUP: u32 = 65528;
/// So are inodes, of which a group has a block fewer than this.
const PAST_INODES_IN_GROUP: u32 = 65536;
/// Groups are not made smaller than this for the sake of inodes.
const SMALLEST_SHRUNK_GROUP: u32 = 256;
/// A group with less room than this beside its tables is not worth having.
const SPARE_BLOCKS: u32 = 50;
pub(super) const SMALLEST_JOURNAL: u32 = 1024;
pub(super) const LARGEST_JOURNAL: u32 = 10_240_000;
/// Blocks of a journal to one for fast commits.
pub(super) const NORMAL_TO_FAST: u32 = 64;
