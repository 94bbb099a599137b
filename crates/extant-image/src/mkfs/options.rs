//! What a new file system shall be like, and the superblock that follows.
//!
//! Source: mke2fs(8), mke2fs.conf(5); the default journal sizes are those that mke2fs 1.47 prints.

use extant_format::cast::low_u16;
use extant_format::superblock::{DefaultMountOptions, RawSuperblock, State, SuperblockFlags};
use extant_format::{Compat, FormatError, Geometry, Incompat, RoCompat};

use super::MkfsError;

/// What a new file system shall be like. The default is mke2fs's, but for what must come from outside: UUID, hash seed and
/// time are zero.
#[derive(Clone, Debug)]
pub struct MkfsOptions {
    /// How much of the device to use; all of it by default.
    pub size_bytes: Option<u64>,
    /// Bytes in a block: a power of two from 1024 to 65,536.
    pub block_size: u32,
    /// Bytes in an inode: a power of two from 128 to the block size.
    pub inode_size: u16,
    /// One inode for this many bytes, or for one block, as far as a group can hold so many.
    pub bytes_per_inode: u32,
    /// Percent of the blocks that only root may use; at most 50.
    pub reserved_percent: u8,
    /// At most 16 bytes.
    pub label: Vec<u8>,
    /// The file system's UUID.
    pub uuid: [u8; 16],
    /// Seed of the hashes of names.
    pub hash_seed: [u8; 16],
    /// When all of this was made, in seconds since 1970.
    pub time_seconds: u32,
    /// Which features it has.
    pub features: Features,
    /// Blocks in the journal; by default it depends on the size.
    pub journal_blocks: Option<u32>,
}

impl Default for MkfsOptions {
    fn default() -> Self {
        Self {
            size_bytes: None,
            block_size: 4096,
            inode_size: 256,
            bytes_per_inode: 16384,
            reserved_percent: 5,
            label: Vec::new(),
            uuid: [0; 16],
            hash_seed: [0; 16],
            time_seconds: 0,
            features: Features::default(),
            journal_blocks: None,
        }
    }
}

/// The three feature words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Features {
    /// Those that may be ignored.
    pub compat: Compat,
    /// Those that a reader must know.
    pub incompat: Incompat,
    /// Those that a writer must know.
    pub ro_compat: RoCompat,
}

impl Default for Features {
    /// What mke2fs 1.47 gives an ext4 file system.
    fn default() -> Self {
        Self {
            compat: Compat::HAS_JOURNAL
                | Compat::EXT_ATTR
                | Compat::RESIZE_INODE
                | Compat::DIR_INDEX,
            incompat: Incompat::FILETYPE | Incompat::EXTENTS | Incompat::BIT64 | Incompat::FLEX_BG,
            ro_compat: RoCompat::SPARSE_SUPER
                | RoCompat::LARGE_FILE
                | RoCompat::HUGE_FILE
                | RoCompat::DIR_NLINK
                | RoCompat::EXTRA_ISIZE
                | RoCompat::METADATA_CSUM,
        }
    }
}

impl Features {
    /// Switches features on, or off with a `^` before the name, as `mke2fs -O` does: `^has_journal,^64bit`.
    ///
    /// # Errors
    /// A name that is unknown, or of a feature that [`mkfs`](super::mkfs) cannot give or cannot do without.
    pub fn apply(&mut self, list: &str) -> Result<(), MkfsError> {
        for word in list.split(',').filter(|word| !word.is_empty()) {
            let (name, on) = word.strip_prefix('^').map_or((word, true), |name| (name, false));
            if let Some(bit) = Compat::by_name(name).filter(|bit| SWITCHES.compat.contains(*bit)) {
                self.compat.set(bit, on);
            } else if let Some(bit) =
                Incompat::by_name(name).filter(|bit| SWITCHES.incompat.contains(*bit))
            {
                self.incompat.set(bit, on);
            } else if let Some(bit) =
                RoCompat::by_name(name).filter(|bit| SWITCHES.ro_compat.contains(*bit))
            {
                self.ro_compat.set(bit, on);
            } else {
                return Err(option("features", format!("`{name}` cannot be switched here")));
            }
        }
        Ok(())
    }
}

/// What may be on or off; everything else is as by default.
const SWITCHES: Features = Features {
    compat: Compat::HAS_JOURNAL
        .union(Compat::EXT_ATTR)
        .union(Compat::RESIZE_INODE)
        .union(Compat::DIR_INDEX),
    incompat: Incompat::BIT64.union(Incompat::FLEX_BG).union(Incompat::CSUM_SEED),
    ro_compat: RoCompat::SPARSE_SUPER
        .union(RoCompat::LARGE_FILE)
        .union(RoCompat::HUGE_FILE)
        .union(RoCompat::DIR_NLINK)
        .union(RoCompat::EXTRA_ISIZE)
        .union(RoCompat::GDT_CSUM)
        .union(RoCompat::METADATA_CSUM),
};

impl MkfsOptions {
    /// Blocks of the journal for a file system of `blocks`; `None` if it shall have none.
    pub(super) fn journal_len(&self, blocks: u64) -> Result<Option<u32>, MkfsError> {
        if !self.features.compat.contains(Compat::HAS_JOURNAL) {
            return Ok(None);
        }
        match self.journal_blocks {
            Some(wanted) if wanted < SMALLEST_JOURNAL => Err(option(
                "journal",
                format!("{wanted} blocks; it needs at least {SMALLEST_JOURNAL}"),
            )),
            Some(wanted) => Ok(Some(wanted)),
            None if blocks < SMALLEST_WITH_JOURNAL => Err(MkfsError::TooSmall {
                bytes: blocks * u64::from(self.block_size),
                needed_bytes: SMALLEST_WITH_JOURNAL * u64::from(self.block_size),
            }),
            None => Ok(Some(default_journal_len(blocks))),
        }
    }

    /// The superblock for `bytes` bytes, without the counts of what is free.
    pub(super) fn superblock(&self, bytes: u64) -> Result<RawSuperblock, MkfsError> {
        self.check()?;
        let mut raw = RawSuperblock::blank();
        self.set_features(&mut raw);
        let bits = self.block_size.ilog2() - 10;
        (raw.log_block_size, raw.log_cluster_size) = (bits.into(), bits.into());
        raw.first_data_block = u32::from(bits == 0).into();
        let per_group = (self.block_size * 8).min(MOST_BLOCKS_IN_GROUP);
        (raw.blocks_per_group, raw.clusters_per_group) = (per_group.into(), per_group.into());
        raw.inode_size = self.inode_size.into();
        raw.first_ino = FIRST_INODE.into();
        let blocks = bytes / u64::from(self.block_size);
        self.set_sizes(&mut raw, blocks, blocks)?;
        raw.uuid = self.uuid;
        raw.volume_name[..self.label.len()].copy_from_slice(&self.label);
        raw.hash_seed
            .iter_mut()
            .zip(self.hash_seed.as_chunks().0)
            .for_each(|(to, from)| *to = (*from).into());
        raw.def_hash_version = HALF_MD4;
        raw.flags = SuperblockFlags::SIGNED_HASH.bits().into();
        raw.state = State::VALID.bits().into();
        raw.errors = ERRORS_CONTINUE.into();
        raw.max_mnt_count = u16::MAX.into();
        raw.default_mount_opts =
            (DefaultMountOptions::USER_XATTR | DefaultMountOptions::ACL).bits().into();
        (raw.mkfs_time, raw.lastcheck) = (self.time_seconds.into(), self.time_seconds.into());
        raw.set_write_time(self.time_seconds.into());
        Ok(raw)
    }

    fn check(&self) -> Result<(), MkfsError> {
        if !self.block_size.is_power_of_two() || !(1024..=65536).contains(&self.block_size) {
            let problem =
                format!("{}; it must be a power of two from 1024 to 65536", self.block_size);
            return Err(option("block size", problem));
        }
        let inode_size = u32::from(self.inode_size);
        if !inode_size.is_power_of_two() || !(128..=self.block_size).contains(&inode_size) {
            let problem =
                format!("{inode_size}; it must be a power of two from 128 to the block size");
            return Err(option("inode size", problem));
        }
        if self.bytes_per_inode < self.block_size.min(1024) {
            return Err(option(
                "bytes per inode",
                format!("{}; at least 1024", self.bytes_per_inode),
            ));
        }
        if self.reserved_percent > 50 {
            return Err(option(
                "reserved percent",
                format!("{}; at most 50", self.reserved_percent),
            ));
        }
        if self.label.len() > 16 {
            return Err(option("label", format!("{} bytes; at most 16", self.label.len())));
        }
        let sums = RoCompat::GDT_CSUM | RoCompat::METADATA_CSUM;
        if self.features.ro_compat.contains(sums) {
            return Err(option(
                "features",
                "uninit_bg and metadata_csum exclude each other".to_owned(),
            ));
        }
        let copies = self.features.ro_compat.contains(RoCompat::SPARSE_SUPER);
        if self.features.compat.contains(Compat::RESIZE_INODE) && !copies {
            return Err(option("features", "resize_inode needs sparse_super".to_owned()));
        }
        Ok(())
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
            raw.checksum_seed =
                extant_format::crc::crc32c(extant_format::crc::START, &self.uuid).into();
        }
        if self.inode_size > 128 {
            raw.want_extra_isize = EXTRA_ISIZE.into();
            if ro_compat.contains(RoCompat::EXTRA_ISIZE) {
                raw.min_extra_isize = EXTRA_ISIZE.into();
            }
        }
    }

    /// Sets how many blocks and inodes there are: inodes for `asked` blocks. A last group with room for little more than
    /// its own tables is left out.
    fn set_sizes(&self, raw: &mut RawSuperblock, blocks: u64, asked: u64) -> Result<(), MkfsError> {
        let (first, per_group) =
            (u64::from(raw.first_data_block.get()), u64::from(raw.blocks_per_group.get()));
        let too_small = |needed: u64| MkfsError::TooSmall {
            bytes: blocks * u64::from(self.block_size),
            needed_bytes: needed * u64::from(self.block_size),
        };
        if blocks > u32::MAX.into() && !self.features.incompat.contains(Incompat::BIT64) {
            return Err(option("features", format!("{blocks} blocks need 64bit")));
        }
        if blocks <= first + SPARE_BLOCKS {
            return Err(too_small(first + 2 * SPARE_BLOCKS));
        }
        let groups = (blocks - first).div_ceil(per_group);
        let inodes_per_group = self.inodes_per_group(asked, groups);
        raw.set_blocks_count(blocks);
        raw.set_reserved_blocks_count(blocks * u64::from(self.reserved_percent) / 100);
        raw.inodes_per_group = inodes_per_group.into();
        let inodes = u32::try_from(groups * u64::from(inodes_per_group));
        let inodes = inodes.map_err(|_| {
            option("bytes per inode", "more inodes than 32 bits can count".to_owned())
        })?;
        raw.inodes_count = inodes.into();
        self.set_reserved_descriptors(raw, blocks, groups);

        let geometry = Geometry::try_from(&*raw).map_err(FormatError::from)?;
        let last = geometry.groups().next_back().unwrap_or_default();
        let overhead = 2 + geometry.itable_blocks() + geometry.base_meta_blocks(last);
        let rest = geometry.blocks_in(last);
        if u64::from(geometry.base_meta_blocks(last)) > per_group / 2 {
            return Err(option(
                "size",
                "so many groups need meta_bg; take larger blocks".to_owned(),
            ));
        }
        if groups == 1 && rest < overhead {
            return Err(too_small(u64::from(overhead) + SPARE_BLOCKS));
        }
        if groups > 1 && u64::from(rest) < u64::from(overhead) + SPARE_BLOCKS {
            return self.set_sizes(raw, blocks - u64::from(rest), asked);
        }
        Ok(())
    }

    /// As many as the ratio asks for, in whole blocks of the inode table and whole bytes of the bitmap.
    fn inodes_per_group(&self, blocks: u64, groups: u64) -> u32 {
        let bytes_per_inode = self.bytes_per_inode.max(self.block_size);
        let all = blocks * u64::from(self.block_size) / u64::from(bytes_per_inode);
        let step = (self.block_size / u32::from(self.inode_size)).max(8);
        let most = (self.block_size * 8).min(MOST_INODES_IN_GROUP);
        let wanted = all.max(u64::from(FIRST_INODE) + 1).div_ceil(groups).min(u64::from(most));
        u32::try_from(wanted).unwrap_or(most).next_multiple_of(step).min(most / step * step)
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
        let largest = (blocks * 1024).min(u32::MAX.into());
        let largest_groups = (largest - u64::from(raw.first_data_block.get()))
            .div_ceil(raw.blocks_per_group.get().into());
        let more =
            largest_groups.div_ceil(desc_per_block).saturating_sub(groups.div_ceil(desc_per_block));
        let reachable = self.block_size / 4;
        raw.reserved_gdt_blocks =
            low_u16(u32::try_from(more).unwrap_or(reachable).min(reachable)).into();
    }
}

/// An option that cannot be.
pub(super) fn option(option: &'static str, problem: String) -> MkfsError {
    MkfsError::Option { option, problem }
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

const FIRST_INODE: u32 = 11;
const EXTRA_ISIZE: u16 = 32;
const HALF_MD4: u8 = 1;
const CRC32C: u8 = 1;
const ERRORS_CONTINUE: u16 = 1;
/// Groups of 64 KiB blocks stop here, so that 16-bit counts suffice.
const MOST_BLOCKS_IN_GROUP: u32 = 65528;
const MOST_INODES_IN_GROUP: u32 = 65528;
/// A group with less room than this beside its tables is not worth having.
const SPARE_BLOCKS: u64 = 50;
const SMALLEST_JOURNAL: u32 = 1024;
const SMALLEST_WITH_JOURNAL: u64 = 2048;
