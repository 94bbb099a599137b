//! Committed blocks that are not home yet, and the tail that follows them.
//!
//! Each block has one pending version, the newest committed one; an older transaction loses the block as soon as a
//! later one commits it, because recovery from then on finds the later copy. One plan is out at a time, so two
//! writes of the same block never overtake each other.
//!
//! # Source
//! Kernel `fs/jbd2/checkpoint.c`; `jbd2_journal_get_log_tail`, `jbd2_update_log_tail` in `journal.c`.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use extant_format::{PhysicalBlock, TransactionId};

use crate::superblock::SuperblockWrite;
use crate::{Journal, LogBlock};

/// What to do next for more log space, or for an empty log.
#[derive(Debug)]
#[must_use]
pub enum CheckpointStep<B> {
    /// Write these blocks home, then [`Journal::checkpointed`].
    Write(CheckpointPlan<B>),
    /// Nothing needs writing: [`Journal::plan_tail_update`] gives enough.
    MoveTail,
    /// Another plan or tail update is out; wait for it.
    Busy,
    /// Only this transaction, which is committing, is left in the log; wait for it.
    WaitCommit(TransactionId),
    /// The log is empty.
    Nothing,
}

/// Blocks to write home, by rising number.
#[derive(Debug)]
#[must_use]
pub struct CheckpointPlan<B> {
    blocks: Vec<(PhysicalBlock, B)>,
}

impl<B> CheckpointPlan<B> {
    /// The blocks and their contents.
    pub fn blocks(&self) -> &[(PhysicalBlock, B)] {
        &self.blocks
    }
}

/// A new place for the tail: flush the file system's device, write the superblock with FUA, then
/// [`Journal::tail_updated`].
#[derive(Debug)]
#[must_use]
pub struct TailUpdate {
    /// The superblock that says so.
    pub superblock: SuperblockWrite,
    tail: LogBlock,
}

/// All transactions between commit and home.
#[derive(Debug)]
pub(crate) struct Checkpointing<B> {
    /// Oldest first, with consecutive numbers.
    logged: VecDeque<Logged>,
    home: BTreeMap<PhysicalBlock, Pending<B>>,
    /// The versions that the plan that is out writes.
    in_flight: Option<BTreeMap<PhysicalBlock, TransactionId>>,
    pub(crate) tail_in_flight: bool,
}

#[derive(Debug)]
struct Logged {
    tid: TransactionId,
    start: LogBlock,
    /// Blocks whose newest committed version is this transaction's, and is not home.
    blocks: BTreeSet<PhysicalBlock>,
}

#[derive(Debug)]
struct Pending<B> {
    tid: TransactionId,
    payload: B,
}

impl<B> Default for Checkpointing<B> {
    fn default() -> Self {
        Self {
            logged: VecDeque::new(),
            home: BTreeMap::new(),
            in_flight: None,
            tail_in_flight: false,
        }
    }
}

impl<B: Clone> Checkpointing<B> {
    pub(crate) fn is_empty(&self) -> bool {
        self.logged.is_empty() && self.in_flight.is_none()
    }

    /// Whether a version of `block` is on its way home, or will be.
    pub(crate) fn contains(&self, block: PhysicalBlock) -> bool {
        self.home.contains_key(&block) || self.is_in_flight(block)
    }

    fn is_in_flight(&self, block: PhysicalBlock) -> bool {
        self.in_flight.as_ref().is_some_and(|blocks| blocks.contains_key(&block))
    }

    /// Adds the transaction that has just committed.
    pub(crate) fn add(
        &mut self,
        tid: TransactionId,
        start: LogBlock,
        blocks: Vec<(PhysicalBlock, B)>,
    ) {
        let numbers = blocks.iter().map(|(block, _)| *block).collect();
        for (block, payload) in blocks {
            if let Some(older) = self.home.insert(block, Pending { tid, payload }) {
                self.disown(block, older.tid);
            }
        }
        self.logged.push_back(Logged { tid, start, blocks: numbers });
        self.drop_finished();
    }

    /// Cancels the pending writes of `blocks`; `true` if one of them is being written.
    pub(crate) fn forget(&mut self, blocks: &BTreeSet<PhysicalBlock>) -> bool {
        let mut in_flight = false;
        for &block in blocks {
            if let Some(pending) = self.home.remove(&block) {
                self.disown(block, pending.tid);
            }
            in_flight |= self.is_in_flight(block);
        }
        self.drop_finished();
        in_flight
    }

    /// The plan's versions are home, but for those that `failed`.
    fn written(
        &mut self,
        plan: CheckpointPlan<B>,
        failed: &[PhysicalBlock],
    ) -> Vec<(PhysicalBlock, TransactionId)> {
        let in_flight = self.in_flight.take().unwrap_or_default();
        let mut home = Vec::with_capacity(plan.blocks.len());
        for (block, tid) in in_flight {
            let current = self.home.get(&block).is_some_and(|pending| pending.tid == tid);
            if current && !failed.contains(&block) {
                self.home.remove(&block);
                self.disown(block, tid);
                home.push((block, tid));
            }
        }
        self.drop_finished();
        home
    }

    fn disown(&mut self, block: PhysicalBlock, tid: TransactionId) {
        let Some(front) = self.logged.front() else { return };
        let index = usize::try_from(tid.get().wrapping_sub(front.tid.get())).unwrap_or(usize::MAX);
        if let Some(owner) = self.logged.get_mut(index) {
            owner.blocks.remove(&block);
        }
    }

    fn drop_finished(&mut self) {
        while self.logged.front().is_some_and(|oldest| oldest.blocks.is_empty()) {
            self.logged.pop_front();
        }
    }
}

impl<B: Clone + AsRef<[u8]>> Journal<B> {
    /// What to do so that `wanted` more log blocks become free; `u32::MAX` empties the log. A writer who was told
    /// to checkpoint first asks for [`JournalParameters::max_transaction`](crate::JournalParameters::max_transaction).
    pub fn plan_checkpoint(&mut self, wanted: u32) -> CheckpointStep<B> {
        if self.checkpoint.in_flight.is_some() {
            return CheckpointStep::Busy;
        }
        let gain = self.log.gain(self.tail().1);
        if gain > 0 && (gain >= wanted || self.checkpoint.logged.is_empty()) {
            return if self.checkpoint.tail_in_flight {
                CheckpointStep::Busy
            } else {
                CheckpointStep::MoveTail
            };
        }
        if self.checkpoint.logged.is_empty() {
            return self.committing().map_or(CheckpointStep::Nothing, CheckpointStep::WaitCommit);
        }
        let mut chosen = BTreeSet::new();
        let starts = self.checkpoint.logged.iter().skip(1).map(|logged| logged.start);
        for (logged, next) in
            self.checkpoint.logged.iter().zip(starts.chain([self.committed_head()]))
        {
            chosen.extend(&logged.blocks);
            if self.log.gain(next) >= wanted {
                break;
            }
        }
        let mut plan = CheckpointPlan { blocks: Vec::with_capacity(chosen.len()) };
        let mut in_flight = BTreeMap::new();
        for block in chosen {
            if let Some(pending) = self.checkpoint.home.get(&block) {
                plan.blocks.push((block, pending.payload.clone()));
                in_flight.insert(block, pending.tid);
            }
        }
        self.checkpoint.in_flight = Some(in_flight);
        CheckpointStep::Write(plan)
    }

    /// Takes note that the plan's blocks are written (a flush is still to come), but for those that `failed`, which
    /// stay pending. Returns the versions that are home now and not superseded.
    pub fn checkpointed(
        &mut self,
        plan: CheckpointPlan<B>,
        failed: &[PhysicalBlock],
    ) -> Vec<(PhysicalBlock, TransactionId)> {
        self.checkpoint.written(plan, failed)
    }

    /// Whether a plan is out whose blocks may be on their way home.
    pub fn is_checkpointing(&self) -> bool {
        self.checkpoint.in_flight.is_some()
    }

    /// The newest committed version of `block`, if it is not home yet: then the device has an old one.
    pub fn pending_home(&self, block: PhysicalBlock) -> Option<&B> {
        self.checkpoint.home.get(&block).map(|pending| &pending.payload)
    }

    /// How many committed blocks are not home yet, and so held in memory.
    pub fn pending_blocks(&self) -> usize {
        self.checkpoint.home.len()
    }

    /// Log blocks that are free for new transactions.
    pub fn free_log_blocks(&self) -> u32 {
        self.log.free
    }

    /// A tail update, if the tail can move and no other update is out.
    pub fn plan_tail_update(&mut self) -> Option<TailUpdate> {
        let (tid, tail) = self.tail();
        if self.checkpoint.tail_in_flight || self.aborted().is_some() || self.log.gain(tail) == 0 {
            return None;
        }
        self.checkpoint.tail_in_flight = true;
        Some(TailUpdate { superblock: self.superblock.tail(tid, tail), tail })
    }

    /// Takes note that the superblock of `update` is durable: the log before the new tail is free.
    pub fn tail_updated(&mut self, update: TailUpdate) {
        self.superblock.confirm();
        self.checkpoint.tail_in_flight = false;
        self.log.release_to(update.tail);
    }

    /// The oldest transaction that is needed, and where it starts.
    pub(crate) fn tail(&self) -> (TransactionId, LogBlock) {
        match (self.checkpoint.logged.front(), &self.committing) {
            (Some(oldest), _) => (oldest.tid, oldest.start),
            (None, Some(committing)) => (committing.tid, committing.start),
            (None, None) => (self.current_tid(), self.log.head),
        }
    }

    /// Where the newest committed transaction ends.
    fn committed_head(&self) -> LogBlock {
        self.committing.as_ref().map_or(self.log.head, |committing| committing.start)
    }
}
