//! Commit blocks: the end of a transaction.
//!
//! Source: kernel `fs/jbd2/commit.c`, `journal_submit_commit_record`.

use super::{BlockType, HEADER_BYTES, JournalHeader, LogFormat};
use crate::bytes::{array_at, put};
use crate::crc::{Crc32c, crc32c};
use crate::numbers::TransactionId;

/// What a commit block says, beside its transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CommitBlock {
    /// When, in seconds since 1970; never goes back within a journal's life.
    pub seconds: u64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// What a commit block's checksum says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CommitChecksum {
    /// It is right, or there is none.
    Right,
    /// It is right if everything after the header of the commit block is taken as zero; accepted.
    Partial,
    /// It is wrong.
    Wrong,
}

impl CommitBlock {
    /// Fills `block` with the end of transaction `tid`.
    pub fn write(self, block: &mut [u8], format: &LogFormat, tid: TransactionId) {
        block.fill(0);
        JournalHeader::write(block, BlockType::Commit, tid);
        put(block, COMMIT_SECONDS_AT, &self.seconds.to_be_bytes());
        put(block, COMMIT_NANOSECONDS_AT, &self.nanoseconds.to_be_bytes());
        if format.is_summed() {
            let sum = crc32c(format.seed, block);
            put(block, COMMIT_CHECKSUM_AT, &sum.to_be_bytes());
        }
    }

    /// The time in a commit block; `None` if the block is too short for one.
    pub fn parse(block: &[u8]) -> Option<Self> {
        Some(Self {
            seconds: array_at(block, COMMIT_SECONDS_AT).map(u64::from_be_bytes)?,
            nanoseconds: array_at(block, COMMIT_NANOSECONDS_AT).map(u32::from_be_bytes)?,
        })
    }

    /// Sets the checksum of version 1: [`crc32_be`](crc::crc32_be) over all descriptors and data of the transaction.
    pub fn set_v1(block: &mut [u8], sum: u32) {
        put(block, HEADER_BYTES, &[V1_CRC32, V1_SIZE]);
        put(block, COMMIT_CHECKSUM_AT, &sum.to_be_bytes());
    }

    /// Whether the checksum of version 1 is `sum`, or was left out.
    pub fn verify_v1(block: &[u8], sum: u32) -> bool {
        let stored = array_at(block, COMMIT_CHECKSUM_AT).map(u32::from_be_bytes);
        match (array_at(block, HEADER_BYTES), stored) {
            (Some([V1_CRC32, V1_SIZE]), Some(stored)) => stored == sum,
            (Some([0, 0]), Some(stored)) => stored == 0,
            _ => false,
        }
    }

    /// What the checksum of a commit block says.
    ///
    /// Source: kernel `fs/jbd2/recovery.c`, `jbd2_commit_block_csum_verify` and `.._partial`.
    pub fn verify(block: &[u8], format: &LogFormat) -> CommitChecksum {
        if !format.is_summed() {
            return CommitChecksum::Right;
        }
        let Some((header, rest)) = block.split_at_checked(COMMIT_HEADER_BYTES) else {
            return CommitChecksum::Wrong;
        };
        let stored = array_at(header, COMMIT_CHECKSUM_AT).map_or(0, u32::from_be_bytes);
        let mut copy = [0; COMMIT_HEADER_BYTES];
        copy.copy_from_slice(header);
        put(&mut copy, COMMIT_CHECKSUM_AT, &[0; 4]);
        let sum = Crc32c::new(format.seed).update(&copy);
        if stored == sum.update(rest).finish() {
            return CommitChecksum::Right;
        }
        let zeroed = rest
            .chunks(ZEROS.len())
            .fold(sum, |sum, chunk| sum.update(ZEROS.get(..chunk.len()).unwrap_or(&ZEROS)));
        if stored == zeroed.finish() { CommitChecksum::Partial } else { CommitChecksum::Wrong }
    }
}
const COMMIT_HEADER_BYTES: usize = 60;
const COMMIT_CHECKSUM_AT: usize = 16;
const V1_CRC32: u8 = 1;
const V1_SIZE: u8 = 4;
const COMMIT_SECONDS_AT: usize = 48;
const COMMIT_NANOSECONDS_AT: usize = 56;
const ZEROS: [u8; 64] = [0; 64];
