//! What a new file system shall be like.
//!
//! Source: mke2fs(8), mke2fs.conf(5).

use alloc::string::String;
use alloc::vec::Vec;

use super::config::Config;
use super::extended::ExtendedOptions;
use super::features::FeatureEdits;
use super::numbers::{Amount, Percent};
use super::{Hugefiles, MkfsError};

/// What a new file system shall be like. The default is what mke2fs makes an ext4 file system, but for what must come from
/// outside: UUID, hash seed and time are zero.
///
/// What is `None` comes from the [`config`](Self::config): from the types that [`fs_type`](Self::fs_type) and
/// [`usage`](Self::usage) name, the last of them first.
#[derive(Clone, Debug, Default)]
pub struct MkfsOptions {
    /// How much of the device to use; by default all of it, in whole pages of 4 KiB.
    pub size_bytes: Option<u64>,
    /// What each type is like; by default as mke2fs has it where nothing else is installed.
    pub config: Config,
    /// `ext2`, `ext3`, `ext4`, or another type of the configuration; by default `ext4`.
    pub fs_type: Option<String>,
    /// What it is for: names of types, with commas between; by default `floppy` below 3 MiB, `small` below 512 MiB,
    /// `default` below 4 TiB, `big` below 16 TiB, else `huge`.
    pub usage: Option<String>,
    /// Changes to the features that the types give.
    pub features: FeatureEdits,
    /// Bytes in a block: a power of two from 1024 to 65,536.
    pub block_size: Option<u32>,
    /// Bytes that a block has at least, if [`block_size`](Self::block_size) is left to the types.
    pub least_block_size: Option<u32>,
    /// With `bigalloc`: bytes in a cluster, a power of two.
    pub cluster_size: Option<u32>,
    /// Bytes in an inode: a power of two from 128 to the block size.
    pub inode_size: Option<u16>,
    /// One inode for this many bytes.
    pub bytes_per_inode: Option<u32>,
    /// How many inodes at least, whatever the bytes.
    pub inodes: Option<u32>,
    /// The part of the blocks that only root may use; at most half.
    pub reserved: Option<Percent>,
    /// Blocks in a group, or clusters with `bigalloc`: a multiple of 8 from 256 to eight times the block size.
    pub blocks_per_group: Option<u32>,
    /// With `flex_bg`: groups that have their tables together, a power of two.
    pub groups_per_flex: Option<u32>,
    /// What the kernel does when it finds an error.
    pub errors: Option<ErrorPolicy>,
    /// Which system made it; by default Linux.
    pub creator_os: Option<CreatorOs>,
    /// At most 16 bytes.
    pub label: Vec<u8>,
    /// Where it was last mounted, at most 64 bytes.
    pub last_mounted: Vec<u8>,
    /// The file system's UUID.
    pub uuid: [u8; 16],
    /// Seed of the hashes of names.
    pub hash_seed: [u8; 16],
    /// When all of this was made, in seconds since 1970.
    pub time_seconds: u32,
    /// Whether it has a journal even if its type has none.
    pub wants_journal: bool,
    /// How large the journal is.
    pub journal: JournalSize,
    /// With `fast_commit`: bytes of the journal for fast commits; by default a 64th of the rest.
    pub fast_commit_bytes: Option<u64>,
    /// Where the journal begins; by default in the middle.
    pub journal_location: Option<Amount>,
    /// The journal is on a device of its own.
    pub external_journal: Option<ExternalJournal>,
    /// Blocks that nothing may be put into.
    pub bad_blocks: Vec<u32>,
    /// Files that fill it from the start.
    pub hugefiles: Option<Hugefiles>,
    /// Where the device begins on its disk, in bytes, for files that are aligned there.
    pub disk_offset_bytes: u64,
    /// What else there is.
    pub extended: ExtendedOptions,
    /// Writes superblocks and descriptors alone, for whoever has lost them: tables and files stay as they are, and a check
    /// has to follow.
    pub superblocks_only: bool,
}

/// How large a journal is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum JournalSize {
    /// As mke2fs has it for the size of the file system. One of fewer than 2048 blocks gets none.
    #[default]
    BySize,
    /// So many blocks.
    Blocks(u32),
    /// So many bytes, in whole blocks.
    Bytes(u64),
}

/// A journal on a device of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExternalJournal {
    /// Its UUID.
    pub uuid: [u8; 16],
    /// The device's number, as the kernel encodes it in 32 bits; 0 if it has none.
    pub device: u32,
}

/// What the kernel does when it finds an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorPolicy {
    /// Go on.
    Continue,
    /// Write no more.
    RemountReadOnly,
    /// Panic.
    Panic,
}

impl ErrorPolicy {
    /// By the name that mke2fs has for it.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "continue" => Self::Continue,
            "remount-ro" => Self::RemountReadOnly,
            "panic" => Self::Panic,
            _ => return None,
        })
    }

    /// As the superblock has it.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Continue => 1,
            Self::RemountReadOnly => 2,
            Self::Panic => 3,
        }
    }
}

/// The system that made a file system, by its number in the superblock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CreatorOs(pub u32);

impl CreatorOs {
    /// GNU/Hurd, which knows few features.
    pub const HURD: Self = Self(1);

    /// By the name that mke2fs has for it, or by its number.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match &*name.to_ascii_lowercase() {
            "linux" => Self(0),
            "gnu" | "hurd" => Self::HURD,
            "freebsd" => Self(3),
            "lites" => Self(4),
            number => Self(number.parse().ok()?),
        })
    }
}

/// An option that cannot be.
pub(super) fn option(option: &'static str, problem: String) -> MkfsError {
    MkfsError::Option { option, problem }
}
