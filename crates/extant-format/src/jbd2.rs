//! The journal's blocks: superblock, descriptors with their tags, revokes, commits, and their checksums.
//!
//! All numbers are big-endian. [`LogFormat`] is what the superblock's features say about the other blocks; writers fill
//! a block in place, readers are iterators over one.
//!
//! Source: kernel `include/linux/jbd2.h`; `fs/jbd2/journal.c` (superblock), `commit.c` (writing), `recovery.c` (reading).

mod commit;
mod descriptor;
mod revoke;
mod superblock;

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{array_at, put};
use crate::cast::{low_u16, usize_from};
use crate::crc::{self, Crc32c, crc32c};
use crate::features::features;
use crate::numbers::TransactionId;

pub use commit::{CommitBlock, CommitChecksum};
pub use descriptor::{DescriptorTags, DescriptorWriter, Tag, TagFlags};
pub use revoke::{RevokeWriter, revoked_blocks};
pub use superblock::{
    DEFAULT_FAST_COMMIT_BLOCKS, JournalSuperblock, MIN_LOG_BLOCKS, RawJournalSuperblock,
};

features! {
    /// Features of a journal that may be ignored.
    JournalCompat, "C":
    CHECKSUM = 0x1 "journal_checksum";
}

features! {
    /// Features of a journal that its reader must know.
    JournalIncompat, "I":
    REVOKE = 0x1 "journal_incompat_revoke";
    BIT64 = 0x2 "journal_64bit";
    ASYNC_COMMIT = 0x4 "journal_async_commit";
    CSUM_V2 = 0x8 "journal_checksum_v2";
    CSUM_V3 = 0x10 "journal_checksum_v3";
    FAST_COMMIT = 0x20 "fast_commit";
}

/// What a block of the log is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockType {
    /// Tags of the blocks that follow it.
    Descriptor,
    /// End of a transaction.
    Commit,
    /// Superblock without features.
    SuperblockV1,
    /// Superblock.
    SuperblockV2,
    /// Blocks whose older copies must not be replayed.
    Revoke,
}

impl BlockType {
    const fn number(self) -> u32 {
        match self {
            Self::Descriptor => 1,
            Self::Commit => 2,
            Self::SuperblockV1 => 3,
            Self::SuperblockV2 => 4,
            Self::Revoke => 5,
        }
    }

    const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Descriptor,
            2 => Self::Commit,
            3 => Self::SuperblockV1,
            4 => Self::SuperblockV2,
            5 => Self::Revoke,
            _ => return None,
        })
    }
}

/// The header that every block of the log but data has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JournalHeader {
    /// What the block is; `None` if the number means nothing.
    pub block_type: Option<BlockType>,
    /// The transaction that it belongs to.
    pub sequence: TransactionId,
}

impl JournalHeader {
    /// The header of a block, or `None` if it has none, which is where a log ends.
    pub fn parse(block: &[u8]) -> Option<Self> {
        let (raw, _) = RawHeader::ref_from_prefix(block).ok()?;
        (raw.magic.get() == MAGIC).then(|| Self {
            block_type: BlockType::from_number(raw.block_type.get()),
            sequence: TransactionId(raw.sequence.get()),
        })
    }

    fn write(block: &mut [u8], block_type: BlockType, sequence: TransactionId) {
        let raw = RawHeader {
            magic: MAGIC.into(),
            block_type: block_type.number().into(),
            sequence: sequence.get().into(),
        };
        put(block, 0, raw.as_bytes());
    }
}

#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    block_type: U32,
    sequence: U32,
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);
/// How checksums are stored in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogChecksum {
    /// None.
    None,
    /// One a transaction, in its commit block; old.
    V1,
    /// In every block and, cut to 16 bits, in every tag.
    V2,
    /// In every block and every tag.
    V3,
}

/// What the superblock's features say about the blocks of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogFormat {
    /// Bytes in a block.
    pub block_size: u32,
    /// Whether block numbers have 64 bits.
    pub wide: bool,
    /// How checksums are stored.
    pub checksum: LogChecksum,
    /// Seed of the checksums of versions 2 and 3.
    pub seed: u32,
    /// The journal's UUID.
    pub uuid: [u8; 16],
}

impl LogFormat {
    fn of(raw: &RawJournalSuperblock) -> Self {
        let incompat = raw.incompat();
        let checksum = match () {
            () if incompat.contains(JournalIncompat::CSUM_V3) => LogChecksum::V3,
            () if incompat.contains(JournalIncompat::CSUM_V2) => LogChecksum::V2,
            () if raw.compat().contains(JournalCompat::CHECKSUM) => LogChecksum::V1,
            () => LogChecksum::None,
        };
        let seed = crc32c(crc::START, &raw.uuid);
        let wide = incompat.contains(JournalIncompat::BIT64);
        Self { block_size: raw.block_size.get(), wide, checksum, seed, uuid: raw.uuid }
    }

    /// Whether blocks carry checksums of version 2 or 3.
    pub const fn is_summed(&self) -> bool {
        matches!(self.checksum, LogChecksum::V2 | LogChecksum::V3)
    }

    /// Bytes from one tag to the next.
    pub const fn tag_bytes(&self) -> usize {
        match (self.checksum, self.wide) {
            (LogChecksum::V3, _) => 16,
            (LogChecksum::V2, true) => 14,
            (LogChecksum::V2, false) => 10,
            (_, true) => 12,
            (_, false) => 8,
        }
    }

    /// Tags that surely fit a descriptor.
    ///
    /// Source: kernel `fs/jbd2/journal.c`, `jbd2_journal_init_transaction_limits`.
    pub fn tags_per_block(&self) -> u32 {
        let room = usize_from(self.block_size)
            .saturating_sub(HEADER_BYTES.saturating_add(UUID_BYTES.saturating_mul(2)));
        let tags = room.saturating_sub(self.tail_bytes()).checked_div(self.tag_bytes());
        tags.and_then(|tags| u32::try_from(tags).ok()).unwrap_or(0)
    }

    /// Block numbers that fit a revoke block.
    pub fn revokes_per_block(&self) -> u32 {
        let room = usize_from(self.block_size)
            .saturating_sub(self.tail_bytes())
            .saturating_sub(REVOKE_HEADER_BYTES);
        let count = room.checked_div(self.revoke_bytes());
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
    }

    /// The checksum of a data block for its tag: of the bytes as they are in the log, after escaping.
    pub fn tag_checksum(&self, tid: TransactionId, block: &[u8]) -> u32 {
        Crc32c::new(self.seed).update(&tid.get().to_be_bytes()).update(block).finish()
    }

    /// Whether a tag's checksum is that of `block`, as far as tags can hold it; always without checksums.
    pub fn tag_matches(&self, tag: &Tag, tid: TransactionId, block: &[u8]) -> bool {
        match self.checksum {
            LogChecksum::V3 => tag.checksum == self.tag_checksum(tid, block),
            LogChecksum::V2 => tag.checksum == u32::from(low_u16(self.tag_checksum(tid, block))),
            LogChecksum::None | LogChecksum::V1 => true,
        }
    }

    /// Whether the tail of a descriptor or revoke block is right; always without checksums.
    pub fn verify_tail(&self, block: &[u8]) -> bool {
        if !self.is_summed() {
            return true;
        }
        block
            .split_last_chunk::<4>()
            .is_some_and(|(covered, &tail)| u32::from_be_bytes(tail) == self.tail_sum(covered))
    }

    fn set_tail(&self, block: &mut [u8]) {
        if self.is_summed()
            && let Some((covered, tail)) = block.split_last_chunk_mut::<4>()
        {
            *tail = self.tail_sum(covered).to_be_bytes();
        }
    }

    fn tail_sum(&self, covered: &[u8]) -> u32 {
        Crc32c::new(self.seed).update(covered).update(&[0; 4]).finish()
    }

    const fn tail_bytes(&self) -> usize {
        if self.is_summed() { 4 } else { 0 }
    }

    const fn revoke_bytes(&self) -> usize {
        if self.wide { 8 } else { 4 }
    }
}
/// Whether a block must be escaped to be written to the log as data.
pub fn needs_escape(block: &[u8]) -> bool {
    array_at(block, 0).map(u32::from_be_bytes) == Some(MAGIC)
}

/// Escapes a block: its first four bytes, which are the magic number, become zeros.
pub fn escape(block: &mut [u8]) {
    put(block, 0, &[0; 4]);
}

/// Undoes [`escape`].
pub fn unescape(block: &mut [u8]) {
    put(block, 0, &MAGIC.to_be_bytes());
}
/// Tells a block of the log that is not data.
pub const MAGIC: u32 = 0xC03B_3998;
const HEADER_BYTES: usize = 12;
const REVOKE_HEADER_BYTES: usize = 16;
const UUID_BYTES: usize = 16;

#[cfg(test)]
mod tests;
