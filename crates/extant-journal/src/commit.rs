//! The blocks that a commit writes to the log: revokes, descriptors with their payloads, and the commit block.
//!
//! A plan is complete in itself: encoding takes checksums of all payloads, and needs no lock.
//!
//! # Source
//! Kernel `fs/jbd2/commit.c`, `jbd2_journal_commit_transaction`; `revoke.c`, `jbd2_journal_write_revoke_records`.

use alloc::vec;
use alloc::vec::Vec;

use extant_format::cast::usize_from;
use extant_format::crc::{self, crc32_be};
use extant_format::jbd2::{
    self, CommitBlock, DescriptorWriter, LogChecksum, LogFormat, RevokeWriter,
};
use extant_format::{PhysicalBlock, TransactionId};

use crate::checkpoint::TailUpdate;
use crate::superblock::SuperblockWrite;
use crate::{JournalParameters, LogArea, LogBlock};

/// Wall time of a commit; recovery relies on it never going back.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct CommitTime {
    /// Since 1970.
    pub seconds: u64,
    /// Within the second.
    pub nanoseconds: u32,
}

/// One transaction on its way into the log. In this order: the superblock if there is one; everything of
/// [`Self::log_writes`], in any order, together with the ordered data; when all that is done, the commit block with
/// a flush before it and FUA; the tail update if there is one, with FUA; then
/// [`Journal::committed`](crate::Journal::committed). If anything fails, abort the journal.
#[derive(Debug)]
#[must_use]
pub struct CommitPlan<B> {
    tid: TransactionId,
    format: LogFormat,
    area: LogArea,
    start: LogBlock,
    /// The block after the commit block.
    pub(crate) end: LogBlock,
    pub(crate) revoked: Vec<PhysicalBlock>,
    pub(crate) blocks: Vec<(PhysicalBlock, B)>,
    pub(crate) superblock: Option<SuperblockWrite>,
    pub(crate) tail: Option<TailUpdate>,
    time: CommitTime,
    /// Sum over descriptors and payloads, for the old checksum feature.
    sum: u32,
}

/// One block to write to the log.
#[derive(Clone, Debug)]
pub struct LogWrite<B> {
    /// Where.
    pub at: LogBlock,
    /// What.
    pub data: LogData<B>,
}

/// The bytes of a log block.
#[derive(Clone, Debug)]
pub enum LogData<B> {
    /// Made by the journal.
    Own(Vec<u8>),
    /// A payload as the caller sealed it.
    Shared(B),
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for LogData<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(payload) => payload.as_ref(),
        }
    }
}

impl<B: Clone + AsRef<[u8]>> CommitPlan<B> {
    pub(crate) fn new(
        parameters: &JournalParameters,
        tid: TransactionId,
        start: LogBlock,
        not_before: CommitTime,
    ) -> Self {
        Self {
            tid,
            format: parameters.format(),
            area: parameters.area(),
            start,
            end: start,
            revoked: Vec::new(),
            blocks: Vec::new(),
            superblock: None,
            tail: None,
            time: not_before,
            sum: crc::START,
        }
    }

    /// The transaction.
    pub fn tid(&self) -> TransactionId {
        self.tid
    }

    /// The superblock to write before anything else, without flush: the log was empty on disk (5.1).
    pub fn superblock(&self) -> Option<&SuperblockWrite> {
        self.superblock.as_ref()
    }

    /// The blocks and the contents that this transaction gives them.
    pub fn blocks(&self) -> &[(PhysicalBlock, B)] {
        &self.blocks
    }

    /// The blocks whose older versions may not be replayed.
    pub fn revoked(&self) -> &[PhysicalBlock] {
        &self.revoked
    }

    /// The superblock to write after the commit block (5.7), if the tail moves; a journal on a device of its own
    /// then needs a flush of the file system's device before the commit block.
    pub fn tail_superblock(&self) -> Option<&SuperblockWrite> {
        self.tail.as_ref().map(|tail| &tail.superblock)
    }

    /// When it was committed; set by [`Self::commit_block`].
    pub fn time(&self) -> CommitTime {
        self.time
    }

    /// Everything but the commit block, in log order.
    pub fn log_writes(&mut self) -> Vec<LogWrite<B>> {
        let mut data = Vec::with_capacity(self.blocks.len().saturating_add(2));
        for chunk in self.revoked.chunks(per_block(self.format.revokes_per_block())) {
            data.push(LogData::Own(self.revoke_block(chunk)));
        }
        let revoke_blocks = data.len();
        for chunk in self.blocks.chunks(per_block(self.format.tags_per_block())) {
            self.descriptor_group(chunk, &mut data);
        }
        if self.format.checksum == LogChecksum::V1 {
            let summed = data.iter().skip(revoke_blocks);
            self.sum = summed.fold(crc::START, |sum, data| crc32_be(sum, data.as_ref()));
        }
        let mut at = self.start;
        let mut writes = Vec::with_capacity(data.len());
        for data in data {
            writes.push(LogWrite { at, data });
            at = self.area.advance(at, 1);
        }
        assert_eq!(
            self.area.advance(at, 1),
            self.end,
            "blocks were counted before they were encoded"
        );
        writes
    }

    /// The last block, which makes the transaction whole; `now` is moved up if an earlier commit was later (J7.4).
    /// Comes after [`Self::log_writes`].
    pub fn commit_block(&mut self, now: CommitTime) -> LogWrite<B> {
        self.time = self.time.max(now);
        let CommitTime { seconds, nanoseconds } = self.time;
        let mut bytes = self.blank_block();
        CommitBlock { seconds, nanoseconds }.write(&mut bytes, &self.format, self.tid);
        if self.format.checksum == LogChecksum::V1 {
            CommitBlock::set_v1(&mut bytes, self.sum);
        }
        let last = self.area.len().saturating_sub(1);
        LogWrite { at: self.area.advance(self.end, last), data: LogData::Own(bytes) }
    }

    fn revoke_block(&self, revoked: &[PhysicalBlock]) -> Vec<u8> {
        let mut bytes = self.blank_block();
        let mut writer = RevokeWriter::new(&mut bytes, self.format, self.tid);
        for &block in revoked {
            assert!(writer.push(block), "a chunk fits its block");
        }
        writer.finish();
        bytes
    }

    /// A descriptor and the blocks that it describes.
    fn descriptor_group(&self, blocks: &[(PhysicalBlock, B)], data: &mut Vec<LogData<B>>) {
        let mut bytes = self.blank_block();
        let mut writer = DescriptorWriter::new(&mut bytes, self.format, self.tid);
        let mut payloads = Vec::with_capacity(blocks.len());
        for (block, payload) in blocks {
            let payload = LogData::payload(payload);
            let checksum = match self.format.is_summed() {
                true => self.format.tag_checksum(self.tid, payload.as_ref()),
                false => 0,
            };
            writer.push(*block, matches!(payload, LogData::Own(_)), checksum);
            payloads.push(payload);
        }
        writer.finish();
        data.push(LogData::Own(bytes));
        data.extend(payloads);
    }

    fn blank_block(&self) -> Vec<u8> {
        vec![0; usize_from(self.format.block_size)]
    }
}

impl<B: Clone + AsRef<[u8]>> LogData<B> {
    /// The payload itself, or a copy that is escaped.
    fn payload(payload: &B) -> Self {
        if !jbd2::needs_escape(payload.as_ref()) {
            return Self::Shared(payload.clone());
        }
        let mut copy = payload.as_ref().to_vec();
        jbd2::escape(&mut copy);
        Self::Own(copy)
    }
}

fn per_block(count: u32) -> usize {
    usize_from(count).max(1)
}
