//! Fast commits: records in an area of their own that count until the running transaction commits in full.
//!
//! ```text
//! begin_fast_commit -> FastCommitTicket      no full commit starts meanwhile
//! lock_updates, until handles_stopped        what is recorded is a moment between handles
//! unlock_updates                             the next handles run
//! FastCommitTicket: blocks, [flush] tail? [FUA] last block [FUA] -> end_fast_commit
//! ```
//!
//! # Source
//! Kernel `fs/jbd2/journal.c`, `jbd2_fc_begin_commit`, `jbd2_fc_get_buf`, `jbd2_fc_end_commit`. Differs: none is written
//! while the log on disk says that it is empty, where the kernel asks whether any commit was written since the mount: after
//! a freeze a recovery would not look for them.

use extant_format::TransactionId;

use super::{Journal, Progress};
use crate::{LogBlock, TailUpdate};

/// How far the fast commits of the running transaction are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FastCommitState {
    /// Blocks of the area that they have taken.
    used: u32,
    /// A ticket is out.
    pub(super) under_way: bool,
}

/// The answer to a request to commit fast.
#[derive(Debug)]
#[must_use]
pub enum FastCommitBegin {
    /// The caller may write one.
    Granted(FastCommitTicket),
    /// A full commit, or another fast one, is under way: wait until it is over, then ask again.
    Wait,
    /// The transaction has committed in full, or never began.
    Done,
    /// Only a full commit will do: there is no area, the log is empty on disk, or somebody waits for a full commit.
    Refused,
}

/// The right to write one fast commit; spent by [`Journal::end_fast_commit`]. To lose it is to block every commit.
#[derive(Debug)]
#[must_use]
pub struct FastCommitTicket {
    tid: TransactionId,
    start: LogBlock,
    room: u32,
    is_first: bool,
}

impl FastCommitTicket {
    /// The transaction that it is a part of.
    pub fn tid(&self) -> TransactionId {
        self.tid
    }

    /// The block for its first records; the others follow, without a turn.
    pub fn start(&self) -> LogBlock {
        self.start
    }

    /// How many blocks it may have.
    pub fn room(&self) -> u32 {
        self.room
    }

    /// Whether it is the transaction's first, which begins with a HEAD.
    pub fn is_first(&self) -> bool {
        self.is_first
    }
}

impl<B: Clone + AsRef<[u8]>> Journal<B> {
    /// Begins a fast commit of `tid`.
    pub fn begin_fast_commit(&mut self, tid: TransactionId) -> FastCommitBegin {
        match self.progress(tid) {
            Progress::Committed | Progress::Future => return FastCommitBegin::Done,
            Progress::Locked | Progress::Committing => return FastCommitBegin::Wait,
            Progress::Running => {}
        }
        if self.committing.is_some() || self.fast_commits.under_way {
            return FastCommitBegin::Wait;
        }
        let is_wanted = self.running.as_ref().is_some_and(|running| running.commit_wanted);
        let may = self.superblock.is_log_in_use() && !is_wanted;
        let Some(area) = self.parameters.fast_commit_area().filter(|_| may) else {
            return FastCommitBegin::Refused;
        };
        let used = self.fast_commits.used.min(area.len());
        self.fast_commits.under_way = true;
        FastCommitBegin::Granted(FastCommitTicket {
            tid,
            start: LogBlock(area.first().get().saturating_add(used)),
            room: area.len().saturating_sub(used),
            is_first: used == 0,
        })
    }

    /// Whether every committed block is home, so that a recovery has nothing to replay but fast commits.
    ///
    /// The log's tail on disk may be further back; [`Self::plan_fast_commit_tail`] brings it here.
    pub fn is_all_home(&self) -> bool {
        self.checkpoint.is_empty()
    }

    /// Whether the log on disk begins with the running transaction.
    pub fn is_tail_running(&self) -> bool {
        self.running().is_some_and(|tid| self.superblock.tail_tid() == tid)
    }

    /// Whether a superblock is out that moves the tail.
    pub fn is_tail_moving(&self) -> bool {
        self.checkpoint.tail_in_flight
    }

    /// The tail update that goes with the first fast commit of a transaction: the log begins with it. Its superblock is
    /// written with FUA behind a flush that makes the homes durable, before the commit's last block.
    pub fn plan_fast_commit_tail(&mut self) -> Option<TailUpdate> {
        self.is_all_home().then(|| self.plan_tail_update()).flatten()
    }

    /// Ends a fast commit that took `blocks` blocks; none if it was given up, or could not be written.
    pub fn end_fast_commit(&mut self, ticket: FastCommitTicket, blocks: u32) {
        self.fast_commits.under_way = false;
        // Handles and full commits have waited, so the transaction is still the running one.
        self.fast_commits.used = self.fast_commits.used.saturating_add(blocks.min(ticket.room));
    }

    /// Blocks of the area that the running transaction's fast commits have taken.
    pub fn fast_commit_blocks(&self) -> u32 {
        self.fast_commits.used
    }

    /// Whether no handle runs, and none is to come that [`Self::pin`] has promised the transaction; other credits may still
    /// be set aside.
    pub fn handles_stopped(&self) -> bool {
        self.running.as_ref().is_none_or(|running| running.updates == 0 && running.pins == 0)
    }
}
