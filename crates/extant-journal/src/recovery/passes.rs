//! What each pass does with a log block.

use alloc::vec::Vec;

use extant_format::crc::{self, crc32_be};
use extant_format::jbd2::{
    self, BlockType, CommitBlock, CommitChecksum, DescriptorTags, JournalHeader, LogChecksum, Tag,
    TagFlags,
};

use super::{FastCommitScan, Pass, Recovery, RecoveryMode, Replacement};
use crate::{CommitTime, JournalError};

impl Recovery {
    /// Looks at the block at the current position.
    pub(super) fn visit(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if self.pass == Pass::FastCommit {
            return self.fast_commit_block(bytes);
        }
        if let Some(tag) = self.tags.pop_front() {
            return self.data_block(tag, bytes);
        }
        // A ring of descriptors without a commit would never end.
        let in_ring = self.walked < self.parameters.area().len();
        let header =
            JournalHeader::parse(bytes).filter(|header| in_ring && header.sequence == self.tid);
        match header.and_then(|header| header.block_type) {
            Some(BlockType::Descriptor) => self.descriptor_block(bytes),
            Some(BlockType::Revoke) => self.revoke_block(bytes),
            Some(BlockType::Commit) => self.commit_block(bytes),
            Some(BlockType::SuperblockV1 | BlockType::SuperblockV2) | None => self.end_pass(),
        }
    }

    /// Whether a later pass has come to where SCAN found the end.
    pub(super) fn pass_is_over(&self) -> bool {
        matches!(self.pass, Pass::Revoke | Pass::Replay)
            && self.tags.is_empty()
            && !self.end.is_after(self.tid)
    }

    /// Goes `blocks` further in the ring.
    pub(super) fn advance(&mut self, blocks: u32) -> Result<(), JournalError> {
        self.position = self.parameters.area().advance(self.position, blocks);
        self.walked = self.walked.saturating_add(blocks);
        Ok(())
    }

    fn descriptor_block(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let format = self.parameters.format();
        let sound = format.verify_tail(bytes);
        let tags: Vec<Tag> = DescriptorTags::new(bytes, format).collect();
        let corrupt = JournalError::Corrupt { tid: self.tid, at: self.position };
        match self.pass {
            Pass::Scan => {
                self.scan.suspicious |= !sound;
                self.blocks.extend(tags.iter().map(|tag| (tag.block, None)));
                self.add_to_sum(bytes);
            }
            _ if !sound => return Err(JournalError::BadChecksum(self.tid)),
            _ if tags.iter().any(|tag| tag.block.get() >= self.home_end) => return Err(corrupt),
            _ => {}
        }
        self.advance(1)?;
        if self.pass == Pass::Replay
            || (self.pass == Pass::Scan && format.checksum == LogChecksum::V1)
        {
            self.tags.extend(tags);
            return Ok(());
        }
        self.advance(u32::try_from(tags.len()).unwrap_or(u32::MAX))
    }

    /// A block that a tag describes: summed up in SCAN, replayed in REPLAY.
    fn data_block(&mut self, tag: Tag, bytes: &[u8]) -> Result<(), JournalError> {
        let format = self.parameters.format();
        if self.pass == Pass::Scan {
            self.add_to_sum(bytes);
            return self.advance(1);
        }
        // Revoked by this transaction or a later one?
        let revoke = self.blocks.get(&tag.block).copied().flatten();
        if revoke.is_some_and(|revoke| !self.tid.is_after(revoke)) {
            self.revoked = self.revoked.saturating_add(1);
        } else if !format.tag_matches(&tag, self.tid, bytes) {
            self.damage.get_or_insert(JournalError::BadChecksum(self.tid));
        } else {
            self.replayed = self.replayed.saturating_add(1);
            self.replay(tag, bytes);
        }
        self.advance(1)
    }

    /// Only the old checksum goes over whole transactions.
    fn add_to_sum(&mut self, bytes: &[u8]) {
        if self.parameters.format().checksum == LogChecksum::V1 {
            self.scan.sum = crc32_be(self.scan.sum, bytes);
        }
    }

    fn replay(&mut self, tag: Tag, bytes: &[u8]) {
        let escaped = tag.flags.contains(TagFlags::ESCAPE);
        match self.mode {
            RecoveryMode::Map => {
                self.map.0.insert(tag.block, Replacement { at: self.position, escaped });
            }
            RecoveryMode::Replay => {
                let mut home = bytes.to_vec();
                if escaped {
                    jbd2::unescape(&mut home);
                }
                self.batch.insert(tag.block, home);
            }
        }
    }

    fn revoke_block(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let format = self.parameters.format();
        let sound = format.verify_tail(bytes);
        match self.pass {
            Pass::Scan => self.scan.suspicious |= !sound,
            Pass::Revoke if !sound => return Err(JournalError::BadChecksum(self.tid)),
            Pass::Revoke => {
                let at = self.position;
                let corrupt = JournalError::Corrupt { tid: self.tid, at };
                for block in jbd2::revoked_blocks(bytes, format, at.get()).map_err(|_| corrupt)? {
                    // Transactions come in order, so the last revoke is the newest.
                    if let Some(revoke) = self.blocks.get_mut(&block) {
                        *revoke = Some(self.tid);
                    }
                }
            }
            _ => {}
        }
        self.advance(1)
    }

    fn commit_block(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if self.pass == Pass::Scan && !self.scan_commit(bytes)? {
            return self.end_pass();
        }
        self.advance(1)?;
        self.tid = self.tid.next();
        if self.pass == Pass::Scan {
            self.transactions = self.transactions.saturating_add(1);
            self.scan.head = self.position;
            self.scan.sum = crc::START;
        }
        Ok(())
    }

    /// Whether the commit block counts; `false`: it is older garbage, or damaged, and the log ends before it.
    fn scan_commit(&mut self, bytes: &[u8]) -> Result<bool, JournalError> {
        let format = self.parameters.format();
        let Some(CommitBlock { seconds, nanoseconds }) = CommitBlock::parse(bytes) else {
            return Ok(false);
        };
        let stale = seconds < self.scan.last_time.seconds;
        if self.scan.suspicious {
            return if stale { Ok(false) } else { Err(JournalError::BadChecksum(self.tid)) };
        }
        let sound = match format.checksum {
            LogChecksum::V1 => CommitBlock::verify_v1(bytes, self.scan.sum),
            _ => CommitBlock::verify(bytes, &format) != CommitChecksum::Wrong,
        };
        match sound {
            true => {
                self.scan.last_time = CommitTime { seconds, nanoseconds };
                Ok(true)
            }
            false if stale || self.parameters.is_async_commit() => Ok(false),
            false => Err(JournalError::FailedCommit(self.tid)),
        }
    }

    /// The log, as far as this pass is concerned, is over.
    pub(super) fn end_pass(&mut self) -> Result<(), JournalError> {
        if self.pass == Pass::Scan {
            self.end = self.tid;
        } else if self.tid != self.end {
            return Err(JournalError::Unstable { expected: self.end, found: self.tid });
        }
        self.pass = match (self.pass, self.parameters.fast_commit_area()) {
            (Pass::Scan, _) => Pass::Revoke,
            (Pass::Revoke, _) => Pass::Replay,
            (Pass::Replay, Some(_)) => Pass::FastCommit,
            (Pass::Replay, None) | (Pass::FastCommit | Pass::Done, _) => Pass::Done,
        };
        self.fast_commit = FastCommitScan::new(self.end);
        self.tags.clear();
        self.walked = 0;
        self.tid = self.parameters.superblock().sequence();
        self.position = match (self.pass, self.parameters.fast_commit_area()) {
            (Pass::FastCommit, Some(area)) => area.first(),
            _ => self.parameters.start().unwrap_or(self.position),
        };
        Ok(())
    }

    fn fast_commit_block(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let next = self.position.get().checked_add(1);
        let more = self.fast_commit.feed(bytes).map_err(JournalError::Unsupported)?;
        let end = self.parameters.fast_commit_area().map_or(0, |area| area.end());
        match next.filter(|&next| more && next < end) {
            Some(next) => self.position.0 = next,
            None => self.pass = Pass::Done,
        }
        Ok(())
    }
}
