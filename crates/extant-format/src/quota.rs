//! Quota files: a header, and a tree of 1 KiB blocks from an identifier to what it uses and may use.
//!
//! Inner blocks of the tree are arrays of 256 block numbers; the identifier's bytes, highest first, say which to follow.
//! Version 1 of the format, which is the one with 64-bit counts.
//!
//! Source: kernel `fs/quota/quotaio_v2.h`; `fs/quota/quota_tree.h`; `fs/ext4/super.c`, `ext4_quota_enable`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Whose use a file counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuotaKind {
    /// Each user's.
    User,
    /// Each group's.
    Group,
    /// Each project's.
    Project,
}

impl QuotaKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::User, Self::Group, Self::Project];

    /// The magic number of its file.
    pub const fn magic(self) -> u32 {
        match self {
            Self::User => 0xD9C0_1F11,
            Self::Group => 0xD9C0_1927,
            Self::Project => 0xD9C0_3F14,
        }
    }
}

/// What a file begins with.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub struct RawQuotaHeader {
    pub magic: U32,
    pub version: U32,
    pub block_grace: U32,
    pub inode_grace: U32,
    pub flags: U32,
    pub blocks: U32,
    pub free_block: U32,
    pub free_entry: U32,
}
const _: () = assert!(size_of::<RawQuotaHeader>() == 32);

impl RawQuotaHeader {
    /// That of a file without entries: a header and the root of the tree.
    pub fn empty(kind: QuotaKind) -> Self {
        Self {
            magic: kind.magic().into(),
            version: VERSION.into(),
            block_grace: GRACE_SECONDS.into(),
            inode_grace: GRACE_SECONDS.into(),
            flags: 0.into(),
            blocks: (TREE_ROOT.saturating_add(1)).into(),
            free_block: 0.into(),
            free_entry: 0.into(),
        }
    }
}

/// What a block of entries begins with.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub struct RawEntriesHeader {
    pub next_free: U32,
    pub previous_free: U32,
    pub entries: U16,
    pub padding1: U16,
    pub padding2: U32,
}
const _: () = assert!(size_of::<RawEntriesHeader>() == 16);

/// What one identifier uses, and may use.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    PartialEq,
    Unaligned,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub struct RawQuotaEntry {
    pub id: U32,
    pub padding: U32,
    pub inode_hard_limit: U64,
    pub inode_soft_limit: U64,
    pub inodes: U64,
    pub block_hard_limit: U64,
    pub block_soft_limit: U64,
    pub bytes: U64,
    pub block_time: U64,
    pub inode_time: U64,
}
const _: () = assert!(size_of::<RawQuotaEntry>() == 72);

/// Bytes in a block of the tree, whatever the file system's are.
pub const BLOCK_BYTES: usize = 1024;
/// The block with the root of the tree.
pub const TREE_ROOT: u32 = 1;
/// Blocks of the tree from its root to the entries.
pub const TREE_DEPTH: u32 = 4;
/// Entries in a block.
pub const ENTRIES_PER_BLOCK: usize = 14;
/// The version of the format.
pub const VERSION: u32 = 1;
/// A week to get below a soft limit.
const GRACE_SECONDS: u32 = 604_800;
