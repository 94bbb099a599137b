//! Revoke blocks: homes of which older copies must not be replayed.
//!
//! Source: kernel `fs/jbd2/revoke.c`, `write_one_revoke_record`; `fs/jbd2/recovery.c`, `scan_revoke_records`.

use super::{BlockType, HEADER_BYTES, JournalHeader, LogFormat, REVOKE_HEADER_BYTES};
use crate::bytes::{array_at, put};
use crate::cast::{low_u32, usize_from};
use crate::corruption::{Corruption, Place, Rule};
use crate::numbers::{PhysicalBlock, TransactionId};

/// Fills a revoke block.
#[derive(Debug)]
pub struct RevokeWriter<'a> {
    block: &'a mut [u8],
    format: LogFormat,
    at: usize,
}

impl<'a> RevokeWriter<'a> {
    /// Starts a revoke block of transaction `tid` in `block`.
    pub fn new(block: &'a mut [u8], format: LogFormat, tid: TransactionId) -> Self {
        block.fill(0);
        JournalHeader::write(block, BlockType::Revoke, tid);
        Self { block, format, at: REVOKE_HEADER_BYTES }
    }

    /// Adds a block; `false`, and nothing changed, if it does not fit.
    #[must_use]
    pub fn push(&mut self, block: PhysicalBlock) -> bool {
        let next = self.at.saturating_add(self.format.revoke_bytes());
        if next > self.block.len().saturating_sub(self.format.tail_bytes()) {
            return false;
        }
        if self.format.wide {
            put(self.block, self.at, &block.get().to_be_bytes());
        } else {
            put(self.block, self.at, &low_u32(block.get()).to_be_bytes());
        }
        self.at = next;
        true
    }

    /// Sets count and checksum.
    pub fn finish(self) {
        let count = u32::try_from(self.at).expect("a block has at most 2^16 bytes");
        put(self.block, HEADER_BYTES, &count.to_be_bytes());
        self.format.set_tail(self.block);
    }
}

/// The blocks that a revoke block revokes.
///
/// # Errors
/// Its count is impossible; `log_block` says where.
pub fn revoked_blocks(
    block: &[u8],
    format: LogFormat,
    log_block: u32,
) -> Result<impl Iterator<Item = PhysicalBlock> + '_, Corruption> {
    let bad = Place::Journal(log_block).breaks(Rule::RevokeCount);
    let count = array_at(block, HEADER_BYTES).map(u32::from_be_bytes).ok_or(bad)?;
    let room = block.len().saturating_sub(format.tail_bytes());
    let used = block
        .get(..room)
        .and_then(|room| room.get(REVOKE_HEADER_BYTES..usize_from(count)))
        .ok_or(bad)?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    Ok(used.chunks_exact(format.revoke_bytes()).map(move |bytes| PhysicalBlock::new(number(bytes))))
}
