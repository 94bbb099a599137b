//! The journal at run time: the running transaction, the committing one, and who may join, commit or must wait.
//!
//! ```text
//! RUNNING --lock--> LOCKED --switch--> committing --committed--> checkpointing (`checkpoint`)
//! ```
//! `switch` is SWITCH and FLUSH of jbd2 in one step: nobody sees the state between.
//!
//! # Source
//! Kernel `fs/jbd2/transaction.c` and `commit.c`. Differs: a transaction's blocks are sealed all at once by `switch`.

mod fast_commit;
mod handle;
mod running;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use extant_format::{PhysicalBlock, TransactionId};

use self::fast_commit::FastCommitState;
pub use self::fast_commit::{FastCommitBegin, FastCommitTicket};
pub use self::handle::{Begin, BlockChange, Extend, HandleRequest, Reservation, Stopped, Ticket};
use self::running::Running;
use crate::checkpoint::{Checkpointing, TailUpdate};
use crate::commit::{CommitPlan, CommitTime};
use crate::log::Log;
use crate::superblock::{SuperblockState, SuperblockWrite};
use crate::{JournalError, JournalParameters, LogState};

/// Log blocks that are never promised to handles. Source: kernel `jbd2_log_space_left`.
const LOG_SLACK: u32 = 32;

/// One journal in use; see the crate's header for how its steps follow each other.
#[derive(Debug)]
pub struct Journal<B> {
    pub(crate) parameters: JournalParameters,
    pub(crate) superblock: SuperblockState,
    pub(crate) log: Log,
    pub(crate) running: Option<Running>,
    pub(crate) committing: Option<Committing>,
    pub(crate) checkpoint: Checkpointing<B>,
    next_tid: TransactionId,
    /// Credits set aside for handles that start later.
    reserved: u32,
    barrier: u32,
    fast_commits: FastCommitState,
    aborted: Option<u16>,
    average_commit: Duration,
    last_commit_time: CommitTime,
}

/// The transaction that is being written to the log.
#[derive(Debug)]
pub(crate) struct Committing {
    pub(crate) tid: TransactionId,
    pub(crate) start: crate::LogBlock,
    dirty: BTreeSet<PhysicalBlock>,
    forgotten: BTreeSet<PhysicalBlock>,
    switched_at: Duration,
}

/// What became of a request to lock a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Lock {
    /// It is locked: wait until [`Journal::ready_to_switch`], then switch.
    Locked,
    /// This earlier transaction is still committing; wait for it, then lock.
    Wait(TransactionId),
    /// A fast commit is being written; wait for it, then lock.
    WaitFastCommit,
    /// It does not run (any more); see [`Journal::progress`].
    NotRunning,
}

/// How far a transaction has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Not begun.
    Future,
    /// Handles may join.
    Running,
    /// Waits for its handles.
    Locked,
    /// Being written to the log.
    Committing,
    /// In the log for good, or never had anything.
    Committed,
}

/// What a finished commit means for the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Committed {
    /// The transaction.
    pub tid: TransactionId,
    /// How long it took from the switch on.
    pub took: Duration,
    /// Whether blocks that the transaction freed are being written home right now: then they may be given to
    /// somebody else only after the outstanding [`CheckpointPlan`](crate::CheckpointPlan) was reported back.
    pub freed_in_flight: bool,
}

impl<B: Clone + AsRef<[u8]>> Journal<B> {
    /// A journal with an empty log, which continues where `state` says: after a clean unmount, or after
    /// recovery once its [`SuperblockWrite`] is on disk.
    pub fn new(parameters: JournalParameters, state: LogState) -> Self {
        let area = parameters.area();
        let head = if area.contains(state.head) { state.head } else { area.first() };
        Self {
            superblock: SuperblockState::new(&parameters, state),
            parameters,
            log: Log::empty(area, head),
            running: None,
            committing: None,
            checkpoint: Checkpointing::default(),
            next_tid: state.next_tid,
            reserved: 0,
            barrier: 0,
            fast_commits: FastCommitState::default(),
            aborted: None,
            average_commit: Duration::ZERO,
            last_commit_time: state.last_commit_time,
        }
    }

    /// What does not change while the journal is in use.
    pub fn parameters(&self) -> &JournalParameters {
        &self.parameters
    }

    /// How far transaction `tid` has come.
    pub fn progress(&self, tid: TransactionId) -> Progress {
        match (&self.running, &self.committing) {
            (Some(running), _) if running.tid == tid => match running.locked {
                true => Progress::Locked,
                false => Progress::Running,
            },
            (_, Some(committing)) if committing.tid == tid => Progress::Committing,
            _ if self.current_tid().is_after(tid) => Progress::Committed,
            _ => Progress::Future,
        }
    }

    /// The running transaction, if there is one.
    pub fn running(&self) -> Option<TransactionId> {
        self.running.as_ref().map(|running| running.tid)
    }

    /// The transaction that is being written to the log.
    pub fn committing(&self) -> Option<TransactionId> {
        self.committing.as_ref().map(|committing| committing.tid)
    }

    /// The oldest transaction that a recovery would start from.
    pub fn tail_tid(&self) -> TransactionId {
        self.superblock.tail_tid()
    }

    /// The newest transaction whose commit is over; before the first commit, the one before it.
    pub fn newest_committed(&self) -> TransactionId {
        let next = self.committing().unwrap_or(self.current_tid());
        TransactionId(next.get().wrapping_sub(1))
    }

    /// When the running transaction expires, in the caller's monotonic time.
    pub fn expires_at(&self) -> Option<Duration> {
        self.running
            .as_ref()
            .map(|running| running.started.saturating_add(self.parameters.commit_interval))
    }

    /// Asks for the commit of `tid`; `true` if it runs and nobody had asked before, so a committer is to be woken.
    pub fn request_commit(&mut self, tid: TransactionId) -> bool {
        match &mut self.running {
            Some(running) if running.tid == tid => {
                !core::mem::replace(&mut running.commit_wanted, true)
            }
            _ => false,
        }
    }

    /// The running transaction, if its commit was asked for, or its time is over.
    pub fn commit_due(&self, now: Duration) -> Option<TransactionId> {
        let running = self.running.as_ref()?;
        let expired = self.expires_at().is_some_and(|end| end <= now);
        (running.commit_wanted || running.locked || expired).then_some(running.tid)
    }

    /// Whether the running transaction has come so near to what it may hold that its commit had better begin, or handles will
    /// soon have to wait for it.
    ///
    /// # Source
    /// None: in jbd2 a thread commits what is full, and handles go on meanwhile.
    pub fn fills(&self) -> bool {
        let limit = (self.parameters.user_maximum() / 4).saturating_mul(3);
        self.running
            .as_ref()
            .is_some_and(|running| !running.locked && running.filed(&self.parameters) > limit)
    }

    /// How long a sync handle may wait for others to join, once: J3.11, without the check who synced last.
    pub fn batch_wait(&self, now: Duration) -> Option<Duration> {
        let age = now.saturating_sub(self.running.as_ref()?.started);
        let wait =
            self.average_commit.max(self.parameters.min_batch).min(self.parameters.max_batch);
        (age < wait).then_some(wait)
    }

    /// How long a commit takes: three parts the past, one part the latest.
    pub fn average_commit(&self) -> Duration {
        self.average_commit
    }

    /// Stops new handles from joining `tid`, but for reserved ones.
    ///
    /// # Errors
    /// [`JournalError::Aborted`].
    pub fn lock(&mut self, tid: TransactionId) -> Result<Lock, JournalError> {
        self.check()?;
        match (&mut self.running, &self.committing) {
            (Some(running), Some(committing)) if running.tid == tid => {
                Ok(Lock::Wait(committing.tid))
            }
            (Some(running), None) if running.tid == tid && self.fast_commits.under_way => {
                // The next fsync commits in full too, or this might wait for ever.
                running.commit_wanted = true;
                Ok(Lock::WaitFastCommit)
            }
            (Some(running), None) if running.tid == tid => {
                running.locked = true;
                Ok(Lock::Locked)
            }
            _ => Ok(Lock::NotRunning),
        }
    }

    /// Whether a transaction is locked and its last handle has stopped, those included that [`Self::pin`] has promised it.
    pub fn ready_to_switch(&self) -> bool {
        let done = |running: &Running| running.locked && running.updates == 0 && running.pins == 0;
        self.running.as_ref().is_some_and(done)
    }

    /// The blocks of the running transaction, in the order in which `switch` seals them.
    pub fn running_blocks(&self) -> impl Iterator<Item = PhysicalBlock> {
        self.running.iter().flat_map(|running| running.dirty.iter().copied())
    }

    /// Makes the locked transaction the committing one, with the contents that `seal` gives for its blocks.
    ///
    /// # Errors
    /// Nothing has changed then. [`JournalError::LogFull`]: checkpoint and try again. [`JournalError::MissingBlock`]:
    /// `seal` had none. [`JournalError::OutOfOrder`]: not [`Self::ready_to_switch`], or another one commits.
    pub fn switch(
        &mut self,
        now: Duration,
        mut seal: impl FnMut(PhysicalBlock) -> Option<B>,
    ) -> Result<CommitPlan<B>, JournalError> {
        self.check()?;
        if self.committing.is_some() || !self.ready_to_switch() {
            return Err(JournalError::OutOfOrder("switch"));
        }
        let Some(running) = &self.running else { return Err(JournalError::OutOfOrder("switch")) };
        let needed = running.log_blocks(&self.parameters);
        if needed >= self.log.free {
            return Err(JournalError::LogFull { needed, free: self.log.free });
        }
        let mut blocks = Vec::with_capacity(running.dirty.len());
        for &block in &running.dirty {
            blocks.push((block, seal(block).ok_or(JournalError::MissingBlock(block))?));
        }
        let running = self.running.take().ok_or(JournalError::OutOfOrder("switch"))?;
        let start =
            self.log.take(needed).ok_or(JournalError::LogFull { needed, free: self.log.free })?;
        let mut plan = CommitPlan::new(&self.parameters, running.tid, start, self.last_commit_time);
        plan.blocks = blocks;
        plan.revoked = running.revoked.into_iter().collect();
        plan.end = self.log.head;
        self.committing = Some(Committing {
            tid: running.tid,
            start,
            dirty: running.dirty,
            forgotten: running.forgotten,
            switched_at: now,
        });
        self.fast_commits = FastCommitState::default();
        plan.superblock = self.superblock.first_commit(running.tid, start);
        plan.tail = self.commit_tail();
        Ok(plan)
    }

    /// Step 5.7: a tail update that goes with a commit, if it frees at least one maximum transaction.
    fn commit_tail(&mut self) -> Option<TailUpdate> {
        let (_, start) = self.tail();
        (self.log.gain(start) >= self.parameters.max_transaction())
            .then(|| self.plan_tail_update())
            .flatten()
    }

    /// Takes note that everything in `plan` is durable; its blocks now wait for their checkpoint.
    ///
    /// # Errors
    /// [`JournalError::OutOfOrder`] if that is not the transaction that commits.
    pub fn committed(
        &mut self,
        plan: CommitPlan<B>,
        now: Duration,
    ) -> Result<Committed, JournalError> {
        let done = self.committing.take_if(|committing| committing.tid == plan.tid());
        let done = done.ok_or(JournalError::OutOfOrder("committed"))?;
        self.last_commit_time = plan.time();
        if let Some(tail) = plan.tail {
            self.tail_updated(tail);
        }
        let freed_in_flight = self.checkpoint.forget(&done.forgotten);
        self.checkpoint.add(done.tid, done.start, plan.blocks);
        let took = now.saturating_sub(done.switched_at);
        self.average_commit = match self.average_commit {
            Duration::ZERO => took,
            average => {
                average.saturating_mul(3).saturating_add(took).checked_div(4).unwrap_or(took)
            }
        };
        Ok(Committed { tid: done.tid, took, freed_in_flight })
    }

    /// Stops the journal for good: every later handle is refused. Only the first reason counts; it comes back as
    /// a superblock that tells the next mount. An `errno` of 0 tells it nothing (a shutdown that was asked for).
    pub fn abort(&mut self, errno: u16) -> Option<SuperblockWrite> {
        if self.aborted.is_some() {
            return None;
        }
        self.aborted = Some(errno);
        (errno != 0).then(|| self.superblock.record_errno(errno))
    }

    /// The reason of the first abort.
    pub fn aborted(&self) -> Option<JournalError> {
        self.check().err()
    }

    /// Forgets an error that an earlier mount left in the superblock, once the caller has taken it over.
    pub fn clear_errno(&mut self) -> Option<SuperblockWrite> {
        self.superblock.clear_errno()
    }

    /// Keeps new handles out, for a freeze or a fast commit; counted. Wait until [`Self::updates_drained`], or
    /// [`Self::handles_stopped`].
    pub fn lock_updates(&mut self) {
        self.barrier = self.barrier.saturating_add(1);
    }

    /// Whether no handle runs and none is reserved.
    pub fn updates_drained(&self) -> bool {
        self.reserved == 0 && self.running.as_ref().is_none_or(|running| running.updates == 0)
    }

    /// Ends one [`Self::lock_updates`].
    pub fn unlock_updates(&mut self) {
        self.barrier = self.barrier.saturating_sub(1);
    }

    /// The superblock of an empty log, to write with a flush before and FUA; then [`Self::cleaned`].
    ///
    /// # Errors
    /// [`JournalError::OutOfOrder`] while anything runs, commits or waits for its checkpoint.
    pub fn plan_clean(&mut self) -> Result<SuperblockWrite, JournalError> {
        self.check()?;
        let idle = self.running.as_ref().is_none_or(|running| running.is_unused());
        if !idle
            || self.committing.is_some()
            || !self.checkpoint.is_empty()
            || self.checkpoint.tail_in_flight
        {
            return Err(JournalError::OutOfOrder("plan_clean"));
        }
        self.checkpoint.tail_in_flight = true;
        Ok(self.superblock.clean(self.current_tid(), self.log.head))
    }

    /// Takes note that the superblock of [`Self::plan_clean`] is durable. The journal may go on being used.
    pub fn cleaned(&mut self) {
        self.checkpoint.tail_in_flight = false;
        self.superblock.confirm();
        self.log = Log::empty(self.log.area, self.log.head);
    }

    /// The running transaction, or the one that would run next.
    pub(crate) fn current_tid(&self) -> TransactionId {
        self.running().unwrap_or(self.next_tid)
    }

    fn check(&self) -> Result<(), JournalError> {
        match self.aborted {
            Some(errno) => Err(JournalError::Aborted { errno }),
            None => Ok(()),
        }
    }
}
