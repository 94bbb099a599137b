//! What a checked journal superblock says, and the limits that follow from it.

use core::time::Duration;

use extant_format::TransactionId;
use extant_format::jbd2::{JournalIncompat, JournalSuperblock, LogFormat};

use crate::{CommitTime, JournalError, LogArea, LogBlock};

/// A journal as its superblock and the mount options describe it; never changes while the journal is in use.
#[derive(Clone, Debug)]
pub struct JournalParameters {
    superblock: JournalSuperblock,
    area: LogArea,
    /// Age at which a transaction is committed; mount option `commit=`.
    pub commit_interval: Duration,
    /// The least time for which a sync handle waits for company.
    pub min_batch: Duration,
    /// The most.
    pub max_batch: Duration,
}

/// Where a journal with an empty log goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogState {
    /// The next transaction's number.
    pub next_tid: TransactionId,
    /// Where it goes.
    pub head: LogBlock,
    /// When the last one was committed, if that is known.
    pub last_commit_time: CommitTime,
}

impl JournalParameters {
    /// From a checked superblock, with the default times. Features that the mount turns on are set in it before.
    ///
    /// # Errors
    /// [`JournalError::TooSmall`].
    pub fn new(superblock: JournalSuperblock) -> Result<Self, JournalError> {
        let maxlen = superblock.max_len();
        let area = LogArea::new(superblock.first(), superblock.last())
            .ok_or(JournalError::TooSmall { maxlen })?;
        Ok(Self {
            superblock,
            area,
            commit_interval: Duration::from_secs(5),
            min_batch: Duration::ZERO,
            max_batch: Duration::from_millis(15),
        })
    }

    /// The superblock as it was read.
    pub fn superblock(&self) -> &JournalSuperblock {
        &self.superblock
    }

    /// How log blocks look.
    pub fn format(&self) -> LogFormat {
        *self.superblock.format()
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> u32 {
        self.format().block_size
    }

    /// The ring of the log.
    pub fn area(&self) -> LogArea {
        self.area
    }

    /// The blocks that hold fast commits; the first after the ring stays unused (section 10).
    pub fn fast_commit_area(&self) -> Option<LogArea> {
        let on = self.superblock.fast_commit_blocks() > 0;
        LogArea::new(self.area.end().checked_add(1)?, self.superblock.max_len()).filter(|_| on)
    }

    /// The Linux error number that an earlier mount left when it aborted.
    pub fn recorded_errno(&self) -> Option<u16> {
        let errno = self.superblock.raw().errno.get();
        let positive = if errno > u32::MAX / 2 { errno.wrapping_neg() } else { errno };
        u16::try_from(positive).ok().filter(|&errno| errno != 0)
    }

    /// The most blocks that one transaction writes to the log (J3.1).
    pub fn max_transaction(&self) -> u32 {
        self.superblock.last() / 3
    }

    /// The most credits that a handle may ask for.
    pub fn user_maximum(&self) -> u32 {
        self.max_transaction().saturating_sub(self.max_overhead())
    }

    /// The most credits that may be reserved at a time.
    pub fn reserved_maximum(&self) -> u32 {
        self.user_maximum() / 2
    }

    /// Where an empty log goes on: `head` if the superblock has a valid one (J7.8).
    pub fn clean_state(&self) -> LogState {
        let head = LogBlock(self.superblock.raw().head.get());
        LogState {
            next_tid: self.superblock.sequence().next(),
            head: if self.area.contains(head) { head } else { self.area.first() },
            last_commit_time: CommitTime::default(),
        }
    }

    /// Where the oldest transaction starts; `None` in a clean journal.
    pub fn start(&self) -> Option<LogBlock> {
        self.superblock.start().map(LogBlock)
    }

    pub(crate) fn is_async_commit(&self) -> bool {
        self.superblock.raw().incompat().contains(JournalIncompat::ASYNC_COMMIT)
    }

    /// Commit block and descriptors of the largest transaction.
    pub(crate) fn max_overhead(&self) -> u32 {
        self.overhead(self.max_transaction())
    }

    /// Commit block and descriptors of a transaction with `blocks` blocks.
    pub(crate) fn overhead(&self, blocks: u32) -> u32 {
        blocks.div_ceil(self.format().tags_per_block().max(1)).saturating_add(1)
    }

    /// Revoke blocks that hold `revokes` records.
    pub(crate) fn revoke_blocks(&self, revokes: u32) -> u32 {
        revokes.div_ceil(self.format().revokes_per_block().max(1))
    }

    /// Credits of a handle that may dirty `blocks` and revoke `revokes` (J3.3).
    pub(crate) fn handle_cost(&self, blocks: u32, revokes: u32) -> u32 {
        self.revoke_blocks(revokes).saturating_add(blocks)
    }
}
