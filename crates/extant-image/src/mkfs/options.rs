//! What a new file system shall be like, and the superblock that follows.
//!
//! Source: mke2fs(8), mke2fs.conf(5); the default journal sizes are those that mke2fs 1.47 prints.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use extant_format::{Compat, Incompat, RoCompat};

use super::{MkfsError, Usage};

/// What a new file system shall be like. The default is mke2fs's, but for what must come from outside: UUID, hash seed and
/// time are zero.
#[derive(Clone, Debug)]
pub struct MkfsOptions {
    /// How much of the device to use; by default all of it, in whole pages of 4 KiB.
    pub size_bytes: Option<u64>,
    /// What it is for, which decides what is left open below; by default the size does.
    pub usage: Option<Usage>,
    /// Bytes in a block: a power of two from 1024 to 65,536.
    pub block_size: Option<u32>,
    /// Bytes in an inode: a power of two from 128 to the block size.
    pub inode_size: u16,
    /// One inode for this many bytes.
    pub bytes_per_inode: Option<u32>,
    /// How many inodes at least, whatever the bytes.
    pub inodes: Option<u32>,
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
    /// How large the journal is.
    pub journal: JournalSize,
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

impl Default for MkfsOptions {
    fn default() -> Self {
        Self {
            size_bytes: None,
            usage: None,
            block_size: None,
            inode_size: 256,
            bytes_per_inode: None,
            inodes: None,
            reserved_percent: 5,
            label: Vec::new(),
            uuid: [0; 16],
            hash_seed: [0; 16],
            time_seconds: 0,
            features: Features::default(),
            journal: JournalSize::BySize,
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

/// An option that cannot be.
pub(super) fn option(option: &'static str, problem: String) -> MkfsError {
    MkfsError::Option { option, problem }
}
