//! Commit: seal, share, let the next transaction run, and write the log without the lock.
//!
//! Source: kernel `fs/jbd2/commit.c`, `jbd2_journal_commit_transaction`. Differs: no journal thread; whoever needs a
//! commit runs it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_device::FrameSlice;
use extant_format::PhysicalBlock;
use extant_format::TransactionId;
use extant_journal::CommitPlan;
use extant_journal::CommitTime;
use extant_journal::JournalError;
use extant_journal::Lock;
use extant_journal::Progress;

use super::Transactions;
use super::block::MetadataBlock;
use super::handle::Ordered;
use super::journal::JournalState;
use super::journal::Locked;
use super::seal;
use crate::Error;
use crate::block_io::Tally;
use crate::sync::MutexGuard;
use crate::sync::can_wait_for_time;
use crate::trace::{Event, Task};

impl Transactions {
    /// Returns when `tid` is durable; commits it in this thread if nobody does so already.
    ///
    /// # Errors
    /// [`Error::Aborted`] with the first reason, if it could not be made durable.
    pub(crate) fn commit(&self, tid: TransactionId) -> Result<(), Error> {
        self.commit_for(tid, false)
    }

    /// As [`Self::commit`], for a caller that may come again soon: where several do, they wait for each other for a moment, so
    /// that one commit serves them all.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) fn commit_together(&self, tid: TransactionId) -> Result<(), Error> {
        self.commit_for(tid, true)
    }

    fn commit_for(&self, tid: TransactionId, together: bool) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        let mut locked = state.state.lock();
        match locked.journal.progress(tid) {
            _ if !together => {}
            Progress::Running => {
                locked.sharing.arrives();
                state.changed.notify_all();
            }
            Progress::Locked => locked.sharing.arrives(),
            Progress::Committing => locked.sharing.arrives_late(),
            Progress::Committed | Progress::Future => {}
        }
        loop {
            if let Some(error) = locked.journal.aborted() {
                return Err(self.refusal(error));
            }
            match locked.journal.progress(tid) {
                Progress::Committed | Progress::Future => return Ok(()),
                Progress::Committing => locked = state.changed.wait(locked),
                Progress::Locked
                    if !locked.journal.ready_to_switch()
                        || locked.journal.committing().is_some() =>
                {
                    locked = state.changed.wait(locked);
                }
                Progress::Running
                    if together
                        && can_wait_for_time()
                        && let Some(most) = locked.sharing.patience(self.clock.monotonic()) =>
                {
                    locked = state.changed.wait_at_most(locked, most);
                }
                Progress::Running | Progress::Locked => {
                    match locked.journal.lock(tid).map_err(|e| self.refusal(e))? {
                        Lock::Wait(_) | Lock::WaitFastCommit | Lock::NotRunning => {
                            locked = state.changed.wait(locked);
                        }
                        Lock::Locked if locked.journal.ready_to_switch() => {
                            locked = self.commit_locked(state, locked)?;
                        }
                        Lock::Locked => {
                            locked = state.changed.wait(locked);
                        }
                    }
                }
            }
        }
    }

    /// Commits whatever transaction is running, and waits for the one that commits.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) fn commit_running(&self) -> Result<(), Error> {
        self.newest_transaction().map_or(Ok(()), |tid| self.commit(tid))
    }

    /// The transaction that a timer should commit now.
    pub(crate) fn commit_due(&self) -> Option<TransactionId> {
        self.journal.as_ref()?.state.lock().journal.commit_due(self.clock.monotonic())
    }

    /// The running transaction, if it fills: whoever has a thread for it commits it before handles have to.
    pub(crate) fn filling(&self) -> Option<TransactionId> {
        let locked = self.journal.as_ref()?.state.lock();
        locked.journal.running().filter(|_| locked.journal.fills())
    }

    /// Switches the locked transaction and sees it through, without the lock while it writes.
    fn commit_locked<'s>(
        &'s self,
        state: &'s Arc<JournalState>,
        mut locked: MutexGuard<'s, Locked>,
    ) -> Result<MutexGuard<'s, Locked>, Error> {
        let now = self.clock.monotonic();
        let running = locked.journal.running();
        let mut shares = BTreeMap::new();
        let live = self.data.live(locked.journal.running_blocks());
        if !live.is_empty() {
            // Files' locks come before the journal's. Data does not change meanwhile, as no handle runs and those that were
            // reserved end I/O past the log; but they may join, and somebody else may be first to switch.
            drop(locked);
            shares.extend(live.into_iter().map(|(block, data)| (block, data.share())));
            locked = state.state.lock();
            if locked.journal.running() != running || !locked.journal.ready_to_switch() {
                return Ok(locked);
            }
        }
        let blocks: Vec<MetadataBlock> =
            locked.journal.running_blocks().filter_map(|block| self.cache.find(block)).collect();
        seal::seal(&blocks, &self.cache, &self.geometry);
        let frames: BTreeMap<PhysicalBlock, FrameSlice> =
            blocks.iter().map(|block| (block.number(), block.frame().into())).collect();
        let contents = |block| frames.get(&block).or_else(|| shares.get(&block)).cloned();
        let plan = match locked.journal.switch(now, contents) {
            Ok(plan) => plan,
            Err(JournalError::LogFull { needed, .. }) => {
                drop(locked);
                self.checkpoint(needed)?;
                return Ok(state.state.lock());
            }
            Err(error) => {
                drop(locked);
                let error = Error::Journal(error);
                self.abort(&error, "a transaction could not be sealed");
                return Err(error);
            }
        };
        self.data.seal(plan.tid(), shares.iter());
        let ordered = core::mem::take(&mut locked.ordered);
        locked.sharing.begins();
        drop(locked);
        state.changed.notify_all();

        let tid = plan.tid();
        let _task = self.tracer.task(Task::Journal);
        let outcome = self.write_commit(state, plan, &ordered);
        let mut locked = state.state.lock();
        let freed_in_flight = match outcome {
            Ok(plan) => {
                Tally::add(&self.io.tally.commits, 1);
                let end = self.clock.monotonic();
                locked.sharing.took(end.saturating_sub(now));
                locked.journal.committed(plan, end).map(|done| done.freed_in_flight)
            }
            Err(error) => {
                drop(locked);
                self.abort(&error, "a commit could not be written");
                state.changed.notify_all();
                return Err(error);
            }
        };
        self.tell_end(tid, locked.journal.tail_tid());
        while freed_in_flight == Ok(true) && locked.journal.is_checkpointing() {
            locked = state.changed.wait(locked);
        }
        drop(locked);
        for listener in self.listeners() {
            listener.committed(tid);
        }
        state.changed.notify_all();
        self.listeners().iter().for_each(|listener| listener.after_commit());
        self.write_home_early(state);
        Ok(state.state.lock())
    }

    fn tell_end(&self, tid: TransactionId, tail: TransactionId) {
        let transaction = tid.get();
        if self.fast_commits.is_some() {
            self.tracer.emit(|| Event::FcCleanup { j_fc_off: 0, full: true, tid: transaction });
        }
        let (sync_commit, head) = (false, tail.get());
        self.tracer.emit(|| Event::EndCommit { transaction, sync_commit, head });
    }

    /// Data first, then the log, then the commit block behind a flush.
    fn write_commit(
        &self,
        state: &JournalState,
        mut plan: CommitPlan<FrameSlice>,
        ordered: &[Ordered],
    ) -> Result<CommitPlan<FrameSlice>, Error> {
        if let Some(superblock) = plan.superblock() {
            self.write_journal_superblock(state, superblock, false)?;
        }
        let (transaction, sync_commit) = (plan.tid().get(), false);
        self.tracer.emit(|| Event::StartCommit { transaction, sync_commit });
        self.tracer.emit(|| Event::CommitLocking { transaction, sync_commit });
        self.tracer.emit(|| Event::CommitFlushing { transaction, sync_commit });
        // What was filed last goes first, as in the kernel.
        for Ordered { data, bytes, .. } in ordered.iter().rev().filter(|ordered| ordered.writes) {
            self.tracer.emit(|| Event::SubmitInodeData { ino: data.inode() });
            // A failure is kept with the file, whose fsync tells it; the journal goes on (`data_err=ignore`).
            let _ = data.write_out(bytes.clone());
        }
        ordered.iter().for_each(|ordered| ordered.data.wait(ordered.bytes.clone()));
        self.tracer.emit(|| Event::CommitLogging { transaction, sync_commit });
        let mut batch = Vec::new();
        for write in plan.log_writes() {
            Tally::add(&self.io.tally.journal_blocks, 1);
            batch.push(state.log_request(write, false)?);
        }
        state.io.run(&mut batch)?;
        if state.separate && state.barriers {
            self.io.flush()?;
        }
        if state.barriers {
            state.io.flush()?;
        }
        Tally::add(&self.io.tally.journal_blocks, 1);
        let commit = plan.commit_block(self.commit_time());
        state.io.run(&mut [state.log_request(commit, state.barriers)?])?;
        if let Some(superblock) = plan.tail_superblock() {
            self.write_journal_superblock(state, superblock, true)?;
        }
        Ok(plan)
    }

    fn commit_time(&self) -> CommitTime {
        let now = self.clock.wall();
        CommitTime {
            seconds: u64::try_from(now.seconds).unwrap_or(0),
            nanoseconds: now.nanoseconds,
        }
    }
}
