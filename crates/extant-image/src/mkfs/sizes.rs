//! From options to numbers: blocks, groups, inodes, the journal, and the superblock that says so.
//!
//! Source: mke2fs(8); what mke2fs 1.47 makes of each size is compared field by field.

use alloc::borrow::ToOwned;
use alloc::format;

use extant_format::cast::low_u16;
use extant_format::superblock::{DefaultMountOptions, RawSuperblock, State, SuperblockFlags};
use extant_format::{Compat, FormatError, Geometry, Incompat, RoCompat};

use super::options::option;
use super::{Features, JournalSize, MkfsError, MkfsOptions, Usage};

/// The options with everything decided that depends on the size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes<'a> {
    options: &'a MkfsOptions,
    block_size: u32,
    blocks: u64,
    inodes: u32,
    features: Features,
}

impl<'a> Sizes<'a> {
    /// What the options mean on a device of `device_bytes`.
    ///
    /// # Errors
    /// Options that contradict each other, or do not go with the size.
    pub(super) fn new(options: &'a MkfsOptions, device_bytes: u64) -> Result<Self, MkfsError> {
        let bytes = options.size_bytes.unwrap_or(device_bytes);
        let usage = options.usage.unwrap_or(Usage::of_size(bytes));
        let block_size = options.block_size.unwrap_or(usage.block_size());
        check(options, block_size)?;
        // Nobody said how much of the device, so the last page is a whole one.
        let rounding = if options.size_bytes.is_none() { PAGE_BYTES.max(block_size) } else { 1 };
        let bytes = bytes - bytes % u64::from(rounding);
        let blocks = bytes / u64::from(block_size);
        let per_inode = options.bytes_per_inode.unwrap_or(usage.bytes_per_inode().max(block_size));
        let inodes = match options.inodes {
            Some(inodes) => inodes,
            // More than 32 bits can count are as many as they can.
            None => {
                let inodes = blocks * u64::from(block_size) / u64::from(per_inode);
                // Where the ratio gives none it is forgotten.
                let inodes =
                    if inodes == 0 { blocks * u64::from(block_size) / 4096 } else { inodes };
                u32::try_from(inodes).unwrap_or(u32::MAX)
            }
        };
        if u64::from(inodes) * u64::from(options.inode_size) >= blocks * u64::from(block_size) {
            let (inode_size, size) = (options.inode_size, blocks * u64::from(block_size));
            let problem = format!("{inodes} of {inode_size} bytes do not fit into {size} bytes");
            return Err(option("inodes", problem));
        }
        let mut features = options.features;
        let too_small = options.journal == JournalSize::BySize && blocks < SMALLEST_WITH_JOURNAL;
        features
            .compat
            .set(Compat::HAS_JOURNAL, features.compat.contains(Compat::HAS_JOURNAL) && !too_small);
        Ok(Self { options, block_size, blocks, inodes, features })
    }

    /// Blocks of the journal of a file system that got `blocks` in the end; `None` if it shall have none.
    pub(super) fn journal_len(&self, blocks: u64) -> Result<Option<u32>, MkfsError> {
        if !self.features.compat.contains(Compat::HAS_JOURNAL) {
            return Ok(None);
        }
        let wanted = match self.options.journal {
            JournalSize::BySize => return Ok(Some(default_journal_len(blocks))),
            JournalSize::Blocks(blocks) => u64::from(blocks),
            JournalSize::Bytes(bytes) => bytes / u64::from(self.block_size),
        };
        match u32::try_from(wanted) {
            Ok(len) if (SMALLEST_JOURNAL..=LARGEST_JOURNAL).contains(&len) => Ok(Some(len)),
            _ => Err(option(
                "journal",
                format!(
                    "{wanted} blocks of {} bytes; it has {SMALLEST_JOURNAL} to {LARGEST_JOURNAL} blocks",
                    self.block_size
                ),
            )),
        }
    }

    /// The superblock, without the counts of what is free.
    pub(super) fn superblock(&self) -> Result<RawSuperblock, MkfsError> {
        let options = self.options;
        let mut raw = RawSuperblock::blank();
        self.set_features(&mut raw);
        let bits = self.block_size.ilog2() - 10;
        (raw.log_block_size, raw.log_cluster_size) = (bits.into(), bits.into());
        raw.first_data_block = u32::from(bits == 0).into();
        raw.inode_size = options.inode_size.into();
        raw.first_ino = FIRST_INODE.into();
        self.set_sizes(&mut raw)?;
        raw.uuid = options.uuid;
        raw.volume_name[..options.label.len()].copy_from_slice(&options.label);
        raw.hash_seed
            .iter_mut()
            .zip(options.hash_seed.as_chunks().0)
            .for_each(|(to, from)| *to = (*from).into());
        raw.def_hash_version = HALF_MD4;
        raw.flags = SuperblockFlags::SIGNED_HASH.bits().into();
        raw.state = State::VALID.bits().into();
        raw.errors = ERRORS_CONTINUE.into();
        raw.max_mnt_count = u16::MAX.into();
        raw.default_mount_opts =
            (DefaultMountOptions::USER_XATTR | DefaultMountOptions::ACL).bits().into();
        (raw.mkfs_time, raw.lastcheck) = (options.time_seconds.into(), options.time_seconds.into());
        raw.set_write_time(options.time_seconds.into());
        Ok(raw)
    }

    fn set_features(&self, raw: &mut RawSuperblock) {
        let Features { compat, incompat, ro_compat } = self.features;
        raw.feature_compat = compat.bits().into();
        raw.feature_incompat = incompat.bits().into();
        raw.feature_ro_compat = ro_compat.bits().into();
        if incompat.contains(Incompat::BIT64) {
            raw.desc_size = 64.into();
        }
        if incompat.contains(Incompat::FLEX_BG) {
            raw.log_groups_per_flex = 4;
        }
        if ro_compat.contains(RoCompat::METADATA_CSUM) {
            raw.checksum_type = CRC32C;
        }
        if incompat.contains(Incompat::CSUM_SEED) {
            let uuid = &self.options.uuid;
            raw.checksum_seed = extant_format::crc::crc32c(extant_format::crc::START, uuid).into();
        }
        if self.options.inode_size > 128 {
            raw.want_extra_isize = EXTRA_ISIZE.into();
            if ro_compat.contains(RoCompat::EXTRA_ISIZE) {
                raw.min_extra_isize = EXTRA_ISIZE.into();
            }
        }
    }

    /// Sets how many blocks, groups and inodes there are. A last group with room for little more than its own tables is left
    /// out; groups become smaller if they cannot have as many inodes as are wanted.
    fn set_sizes(&self, raw: &mut RawSuperblock) -> Result<(), MkfsError> {
        let first = u64::from(raw.first_data_block.get());
        let (mut blocks, mut per_group) =
            (self.blocks, (self.block_size * 8).min(MOST_BLOCKS_IN_GROUP));
        if blocks > u32::MAX.into() && !self.features.incompat.contains(Incompat::BIT64) {
            return Err(option("features", format!("{blocks} blocks need 64bit")));
        }
        if blocks <= first {
            return Err(self.too_small(first + u64::from(SPARE_BLOCKS)));
        }
        let asked = self.blocks * u64::from(self.options.reserved_percent) / 100;
        let mut reserved = asked;
        loop {
            let groups = (blocks - first).div_ceil(per_group.into());
            let Some(inodes_per_group) = self.inodes_per_group(groups) else {
                if per_group < SMALLEST_SHRUNK_GROUP {
                    return Err(option("inodes", "more than groups can have".to_owned()));
                }
                (blocks, per_group) = (self.blocks, per_group - 8);
                continue;
            };
            raw.set_blocks_count(blocks);
            raw.set_reserved_blocks_count(reserved);
            (raw.blocks_per_group, raw.clusters_per_group) = (per_group.into(), per_group.into());
            raw.inodes_per_group = inodes_per_group.into();
            let inodes = u32::try_from(groups.saturating_mul(inodes_per_group.into()));
            let too_large = |_| option("size", format!("{groups} groups are more than can be"));
            raw.inodes_count = inodes.map_err(too_large)?.into();
            self.set_reserved_descriptors(raw, blocks, groups);

            let geometry = Geometry::try_from(&*raw).map_err(FormatError::from)?;
            if u64::from(geometry.desc_blocks + geometry.reserved_gdt_blocks)
                > u64::from(per_group) * 3 / 4
            {
                let problem = "so many groups need meta_bg; take larger blocks";
                return Err(option("size", problem.to_owned()));
            }
            let last = geometry.groups().next_back().unwrap_or_default();
            let rest = geometry.blocks_in(last);
            let least =
                2 + geometry.itable_blocks() + geometry.base_meta_blocks(last) + SPARE_BLOCKS;
            if rest == per_group || rest >= least {
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
        let inode_size = u32::from(self.options.inode_size);
        let wanted = u64::from(self.inodes.max(FIRST_INODE + 1)).div_ceil(groups);
        let bits = self.block_size * 8;
        let mut wanted = u32::try_from(wanted).ok().filter(|wanted| *wanted <= bits)?;
        wanted = wanted.min(MOST_INODES_IN_GROUP);
        loop {
            let table_blocks = (wanted * inode_size).div_ceil(self.block_size);
            let whole = table_blocks * self.block_size / inode_size;
            // The reserved ones and lost+found are all in the first group, and one byte of its bitmap does not hold them.
            let count = (whole & !7).max(FIRST_INODE.next_multiple_of(8));
            // Where even the fewest are too many the caller refuses.
            if wanted == 0 || u64::from(count).saturating_mul(groups) <= u64::from(u32::MAX) {
                return Some(count);
            }
            wanted -= 1;
        }
    }

    /// Keeps room for descriptors of a file system 1024 times as large, as far as one block of pointers reaches. Its
    /// pointers have 32 bits, so a larger file system goes without.
    fn set_reserved_descriptors(&self, raw: &mut RawSuperblock, blocks: u64, groups: u64) {
        if !self.features.compat.contains(Compat::RESIZE_INODE) {
            return;
        }
        if blocks > u32::MAX.into() {
            raw.feature_compat = raw.compat().difference(Compat::RESIZE_INODE).bits().into();
            return;
        }
        let desc_size = u64::from(raw.desc_size.get().max(32));
        let desc_per_block = u64::from(self.block_size) / desc_size;
        let largest =
            if blocks < u64::from(u32::MAX) / 1024 { blocks * 1024 } else { u32::MAX.into() };
        let largest_groups = (largest - u64::from(raw.first_data_block.get()))
            .div_ceil(raw.blocks_per_group.get().into());
        let more =
            largest_groups.div_ceil(desc_per_block).saturating_sub(groups.div_ceil(desc_per_block));
        let reachable = self.block_size / 4;
        raw.reserved_gdt_blocks =
            low_u16(u32::try_from(more).unwrap_or(reachable).min(reachable)).into();
    }
}

/// Options that contradict each other whatever the size is.
fn check(options: &MkfsOptions, block_size: u32) -> Result<(), MkfsError> {
    let refuse = |name, problem: &str| Err(option(name, problem.to_owned()));
    if !block_size.is_power_of_two() || !(1024..=65536).contains(&block_size) {
        let problem = format!("{block_size}; it must be a power of two from 1024 to 65536");
        return Err(option("block size", problem));
    }
    let inode_size = u32::from(options.inode_size);
    if !inode_size.is_power_of_two() || !(128..=block_size).contains(&inode_size) {
        let problem = format!("{inode_size}; it must be a power of two from 128 to the block size");
        return Err(option("inode size", problem));
    }
    if options.bytes_per_inode.is_some_and(|bytes| !(1024..=MOST_BYTES_PER_INODE).contains(&bytes))
    {
        return refuse("bytes per inode", "from 1024 to 67108864");
    }
    if options.inodes == Some(0) {
        return refuse("inodes", "at least one");
    }
    if options.reserved_percent > 50 {
        return refuse("reserved percent", "at most 50");
    }
    if options.label.len() > 16 {
        let problem = format!("{} bytes; at most 16", options.label.len());
        return Err(option("label", problem));
    }
    let features = &options.features;
    if features.ro_compat.contains(RoCompat::GDT_CSUM | RoCompat::METADATA_CSUM) {
        return refuse("features", "uninit_bg and metadata_csum exclude each other");
    }
    let copies = features.ro_compat.contains(RoCompat::SPARSE_SUPER);
    if features.compat.contains(Compat::RESIZE_INODE) && !copies {
        return refuse("features", "resize_inode needs sparse_super");
    }
    Ok(())
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

const PAGE_BYTES: u32 = 4096;
const FIRST_INODE: u32 = 11;
const EXTRA_ISIZE: u16 = 32;
const HALF_MD4: u8 = 1;
const CRC32C: u8 = 1;
const ERRORS_CONTINUE: u16 = 1;
/// Groups of 64 KiB blocks stop here, so that 16-bit counts suffice.
const MOST_BLOCKS_IN_GROUP: u32 = 65528;
const MOST_INODES_IN_GROUP: u32 = 65528;
/// Groups are not made smaller than this for the sake of inodes.
const SMALLEST_SHRUNK_GROUP: u32 = 256;
const MOST_BYTES_PER_INODE: u32 = 64 << 20;
/// A group with less room than this beside its tables is not worth having.
const SPARE_BLOCKS: u32 = 50;
const SMALLEST_JOURNAL: u32 = 1024;
const LARGEST_JOURNAL: u32 = 10_240_000;
const SMALLEST_WITH_JOURNAL: u64 = 2048;
