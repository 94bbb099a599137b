//! The journal behind its lock: who joins, who waits, and the I/O of commits and checkpoints, done without the lock.
//!
//! Source: kernel `fs/jbd2/transaction.c` (`start_this_handle`), `commit.c` (`jbd2_journal_commit_transaction`),
//! `checkpoint.c` (`jbd2_log_do_checkpoint`). Differs: no journal thread; whoever needs a commit runs it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_device::{Frame, Request};
use extant_format::{PhysicalRange, TransactionId};
use extant_journal::{
    Begin, CheckpointPlan, CheckpointStep, CommitPlan, CommitTime, Extend, HandleRequest, Journal,
    JournalError, Lock, LogBlock, LogData, LogWrite, Progress, Reservation, SuperblockWrite,
    TailUpdate, Ticket,
};

use super::block::MetadataBlock;
use super::credits::Credits;
use super::handle::{Changes, Handle, OrderedData, ReservedCredits};
use super::log_map::LogMap;
use super::{Transactions, seal};
use crate::block_io::{BlockIo, Tally};
use crate::sync::{Condvar, Mutex, MutexGuard, Rank};
use crate::{Errno, Error};

/// Committed blocks held in memory until they are home, in bytes.
const MAX_PENDING_BYTES: usize = 32 << 20;

/// What a transaction has to wait for before it commits.
type Ordered = Vec<(Arc<dyn OrderedData>, Range<u64>)>;

/// The journal, its lock, and where it lies.
pub(crate) struct JournalState {
    state: Mutex<Locked>,
    changed: Condvar,
    /// The device that holds the log; the data device, or one of its own.
    io: BlockIo,
    /// Whether the log has a device of its own, so that the data device needs flushes too.
    separate: bool,
    map: LogMap,
    barriers: bool,
}

struct Locked {
    journal: Journal<Frame>,
    /// Ordered data of the running transaction.
    ordered: Ordered,
}

impl JournalState {
    /// A journal in use whose log lies where `map` says on the device of `io`.
    pub(crate) fn new(
        journal: Journal<Frame>,
        io: BlockIo,
        separate: bool,
        map: LogMap,
        barriers: bool,
    ) -> Self {
        let state = Mutex::new(Rank::Journal, Locked { journal, ordered: Vec::new() });
        Self { state, changed: Condvar::new(), io, separate, map, barriers }
    }

    /// Where the log lies, so that nobody else uses those blocks.
    pub(crate) fn blocks(&self) -> Vec<PhysicalRange> {
        if self.separate { Vec::new() } else { self.map.runs().collect() }
    }

    /// Gives up credits set aside.
    pub(super) fn release(&self, reservation: Reservation) {
        self.state.lock().journal.release(reservation);
        self.changed.notify_all();
    }
}

impl Transactions {
    /// Begins a handle; commits or checkpoints first if there is no room, and waits for who does so already.
    ///
    /// # Errors
    /// [`Error::Aborted`], [`Error::ReadOnly`] or [`Error::Shutdown`]; a handle that asks for more than any transaction has.
    /// # Locks
    /// None may be held of rank 50 or more.
    pub(crate) fn begin(&self, credits: Credits) -> Result<Handle<'_>, Error> {
        self.check_writable()?;
        Tally::add(&self.io.tally.handles, 1);
        let Some(state) = &self.journal else {
            let reserved = ReservedCredits { reservation: None, journal: None };
            return Ok(Handle::new(
                self,
                TransactionId(0),
                None,
                (credits.reserved > 0).then_some(reserved),
            ));
        };
        let request = HandleRequest {
            blocks: credits.blocks,
            revokes: credits.revokes,
            reserved: credits.reserved,
        };
        let mut locked = state.state.lock();
        loop {
            match locked.journal.begin(request, self.clock.monotonic()) {
                Begin::Granted { ticket, reservation } => {
                    drop(locked);
                    let journal = Some(Arc::clone(state));
                    let reserved = reservation.map(|reservation| ReservedCredits {
                        reservation: Some(reservation),
                        journal,
                    });
                    return Ok(Handle::new(self, ticket.tid(), Some(ticket), reserved));
                }
                Begin::WaitLocked(_) | Begin::WaitBarrier | Begin::WaitReserved => {
                    locked = state.changed.wait(locked)
                }
                Begin::CommitFirst(tid) => {
                    drop(locked);
                    self.commit(tid)?;
                    locked = state.state.lock();
                }
                Begin::CheckpointFirst => {
                    let wanted = locked.journal.parameters().max_transaction();
                    drop(locked);
                    self.checkpoint(wanted)?;
                    locked = state.state.lock();
                }
                Begin::Refused(error) => return Err(self.refusal(error)),
            }
        }
    }

    /// Begins a handle on credits that were set aside; never waits.
    ///
    /// # Errors
    /// [`Error::Aborted`].
    pub(crate) fn begin_reserved(
        &self,
        mut reserved: ReservedCredits,
    ) -> Result<Handle<'_>, Error> {
        let (Some(state), Some(reservation)) = (&self.journal, reserved.reservation.take()) else {
            return Ok(Handle::new(self, TransactionId(0), None, None));
        };
        let started =
            state.state.lock().journal.start_reserved(reservation, self.clock.monotonic());
        state.changed.notify_all();
        let ticket = started.map_err(|error| self.refusal(error))?;
        Ok(Handle::new(self, ticket.tid(), Some(ticket), None))
    }

    /// Adds credits to a running handle.
    pub(super) fn extend(
        &self,
        ticket: &mut Ticket,
        blocks: u32,
        revokes: u32,
    ) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        match state
            .state
            .lock()
            .journal
            .extend(ticket, blocks, revokes)
            .map_err(|error| self.refusal(error))?
        {
            Extend::Granted => Ok(()),
            Extend::Full => Err(Error::TransactionFull),
        }
    }

    /// Ends a handle.
    pub(super) fn stop(&self, ticket: Ticket, changes: Changes) {
        let Some(state) = &self.journal else { return };
        let mut locked = state.state.lock();
        locked.ordered.extend(changes.ordered);
        let stopped = locked.journal.stop(ticket, changes.blocks);
        drop(locked);
        debug_assert_eq!(stopped.overrun, 0, "a handle changed more blocks than it had asked for");
        if stopped.ready_to_switch {
            state.changed.notify_all();
        }
    }

    /// Returns when `tid` is durable; commits it in this thread if nobody does so already.
    ///
    /// # Errors
    /// [`Error::Aborted`] with the first reason, if it could not be made durable.
    pub(crate) fn commit(&self, tid: TransactionId) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        let mut locked = state.state.lock();
        if locked.journal.progress(tid) == Progress::Running {
            drop(locked);
            self.listeners().iter().for_each(|listener| listener.committing());
            locked = state.state.lock();
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
                Progress::Running | Progress::Locked => {
                    match locked.journal.lock(tid).map_err(|e| self.refusal(e))? {
                        Lock::Wait(_) | Lock::NotRunning => locked = state.changed.wait(locked),
                        Lock::Locked if locked.journal.ready_to_switch() => {
                            locked = self.commit_locked(state, locked)?;
                        }
                        Lock::Locked => locked = state.changed.wait(locked),
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

    /// The transaction that runs, or else the one that commits.
    pub(crate) fn newest_transaction(&self) -> Option<TransactionId> {
        let locked = self.journal.as_ref()?.state.lock();
        locked.journal.running().or(locked.journal.committing())
    }

    /// The transaction that a timer should commit now.
    pub(crate) fn commit_due(&self) -> Option<TransactionId> {
        self.journal.as_ref()?.state.lock().journal.commit_due(self.clock.monotonic())
    }

    /// Switches the locked transaction and sees it through, without the lock while it writes.
    fn commit_locked<'s>(
        &'s self,
        state: &'s Arc<JournalState>,
        mut locked: MutexGuard<'s, Locked>,
    ) -> Result<MutexGuard<'s, Locked>, Error> {
        let now = self.clock.monotonic();
        let blocks: Vec<MetadataBlock> =
            locked.journal.running_blocks().filter_map(|block| self.cache.find(block)).collect();
        seal::seal(&blocks, &self.cache, &self.geometry);
        let frames: BTreeMap<_, _> =
            blocks.iter().map(|block| (block.number(), block.frame())).collect();
        let plan = match locked.journal.switch(now, |block| frames.get(&block).cloned()) {
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
        let ordered = core::mem::take(&mut locked.ordered);
        drop(locked);
        state.changed.notify_all();

        let tid = plan.tid();
        let outcome = self.write_commit(state, plan, &ordered);
        let mut locked = state.state.lock();
        let freed_in_flight = match outcome {
            Ok(plan) => {
                Tally::add(&self.io.tally.commits, 1);
                locked
                    .journal
                    .committed(plan, self.clock.monotonic())
                    .map(|done| done.freed_in_flight)
            }
            Err(error) => {
                drop(locked);
                self.abort(&error, "a commit could not be written");
                state.changed.notify_all();
                return Err(error);
            }
        };
        while freed_in_flight == Ok(true) && locked.journal.is_checkpointing() {
            locked = state.changed.wait(locked);
        }
        drop(locked);
        for listener in self.listeners() {
            listener.committed(tid);
        }
        state.changed.notify_all();
        self.write_home_early(state);
        Ok(state.state.lock())
    }

    /// Writes committed blocks home before somebody has to wait for the log's space or for memory: once half the log is in
    /// use, or many blocks are held. The tail follows with a later commit, so that nobody waits for a flush.
    fn write_home_early(&self, state: &Arc<JournalState>) {
        let step = {
            let mut locked = state.state.lock();
            let parameters = locked.journal.parameters();
            let (half, wanted) = (parameters.area().len() / 2, parameters.max_transaction());
            let many =
                locked.journal.pending_blocks() > MAX_PENDING_BYTES / self.geometry.block_len();
            if !many && locked.journal.free_log_blocks() >= half {
                return;
            }
            locked.journal.plan_checkpoint(if many { u32::MAX } else { wanted })
        };
        if let CheckpointStep::Write(plan) = step {
            // A failure has aborted the journal, which the next who asks is told.
            let _ = self.write_home(state, plan);
        }
    }

    /// Data first, then the log, then the commit block behind a flush.
    fn write_commit(
        &self,
        state: &JournalState,
        mut plan: CommitPlan<Frame>,
        ordered: &Ordered,
    ) -> Result<CommitPlan<Frame>, Error> {
        for (data, bytes) in ordered {
            // A failure is kept with the file, whose fsync tells it; the journal goes on (`data_err=ignore`).
            let _ = data.write_out(bytes.clone());
        }
        if let Some(superblock) = plan.superblock() {
            state.write_superblock(superblock, false)?;
        }
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
            state.write_superblock(superblock, true)?;
        }
        Ok(plan)
    }

    /// Writes committed blocks home until `wanted` log blocks have become free, and moves the tail.
    ///
    /// # Errors
    /// Of the device; the journal is aborted then.
    pub(crate) fn checkpoint(&self, wanted: u32) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        let mut locked = state.state.lock();
        loop {
            if let Some(error) = locked.journal.aborted() {
                return Err(self.refusal(error));
            }
            match locked.journal.plan_checkpoint(wanted) {
                CheckpointStep::Nothing => return Ok(()),
                CheckpointStep::Busy => locked = state.changed.wait(locked),
                CheckpointStep::WaitCommit(tid) => {
                    drop(locked);
                    self.commit(tid)?;
                    locked = state.state.lock();
                }
                CheckpointStep::MoveTail => {
                    let Some(update) = locked.journal.plan_tail_update() else { continue };
                    drop(locked);
                    let written = self.move_tail(state, &update);
                    locked = state.state.lock();
                    if let Err(error) = written {
                        drop(locked);
                        self.abort(&error, "the journal's tail could not be moved");
                        return Err(error);
                    }
                    locked.journal.tail_updated(update);
                    state.changed.notify_all();
                    return Ok(());
                }
                CheckpointStep::Write(plan) => {
                    drop(locked);
                    self.write_home(state, plan)?;
                    locked = state.state.lock();
                }
            }
        }
    }

    /// Writes a plan's blocks to their places.
    fn write_home(
        &self,
        state: &Arc<JournalState>,
        plan: CheckpointPlan<Frame>,
    ) -> Result<(), Error> {
        let requests = plan
            .blocks()
            .iter()
            .map(|(block, frame)| Request::write_frame(self.io.offset(*block), frame.clone()));
        let mut batch: Vec<Request> = requests.collect();
        let outcome = self.io.run(&mut batch);
        let results = plan.blocks().iter().zip(&batch);
        let failed: Vec<_> =
            results.filter(|(_, r)| r.result.is_err()).map(|((block, _), _)| *block).collect();
        let home = state.state.lock().journal.checkpointed(plan, &failed);
        for (block, tid) in home {
            self.cache.written_home(block, tid);
        }
        state.changed.notify_all();
        if let Err(error) = &outcome {
            self.abort(error, "a committed block could not be written home");
        }
        outcome
    }

    fn move_tail(&self, state: &JournalState, update: &TailUpdate) -> Result<(), Error> {
        if state.barriers {
            self.io.flush()?;
        }
        state.write_superblock(&update.superblock, true)
    }

    /// Empties the log and marks the journal clean: the end of an unmount.
    ///
    /// # Errors
    /// Of the device.
    pub(crate) fn close_journal(&self) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        self.commit_running()?;
        self.checkpoint(u32::MAX)?;
        let mut locked = state.state.lock();
        let superblock = locked.journal.plan_clean().map_err(|error| self.refusal(error))?;
        drop(locked);
        self.io.flush()?;
        state.write_superblock(&superblock, true)?;
        locked = state.state.lock();
        locked.journal.cleaned();
        Ok(())
    }

    /// Takes the error of an earlier mount off the journal, which the file system has noted.
    ///
    /// # Errors
    /// Of the device.
    /// # Source
    /// Kernel `ext4_clear_journal_err`, `jbd2_journal_clear_err`.
    pub(crate) fn clear_journal_errno(&self) -> Result<(), Error> {
        let Some(state) = &self.journal else { return Ok(()) };
        let superblock = state.state.lock().journal.clear_errno();
        superblock.map_or(Ok(()), |superblock| state.write_superblock(&superblock, true))
    }

    /// Stops everything that changes the image, for good; the first reason is kept.
    pub(crate) fn abort(&self, error: &Error, reason: &'static str) {
        let errno = error.errno();
        if !self.latch_abort(errno, reason) {
            return;
        }
        let Some(state) = &self.journal else { return };
        let superblock = state.state.lock().journal.abort(u16::try_from(errno.0).unwrap_or(5));
        if let Some(superblock) = superblock {
            // The device may be what failed; the next mount then finds an unfinished log, which says as much.
            let _ = state.write_superblock(&superblock, true);
        }
        state.changed.notify_all();
    }

    /// Stops the journal without telling the next mount of an error: a shutdown was asked for.
    pub(super) fn abort_journal_silently(&self) {
        if let Some(state) = &self.journal {
            state.state.lock().journal.abort(0);
            state.changed.notify_all();
        }
    }

    fn refusal(&self, error: JournalError) -> Error {
        match error {
            JournalError::Aborted { errno } => self
                .check_writable()
                .err()
                .unwrap_or(Error::Aborted { errno: Errno(errno.into()), reason: "journal" }),
            other => Error::Journal(other),
        }
    }

    fn commit_time(&self) -> CommitTime {
        let now = self.clock.wall();
        CommitTime {
            seconds: u64::try_from(now.seconds).unwrap_or(0),
            nanoseconds: now.nanoseconds,
        }
    }
}

impl JournalState {
    fn log_request(&self, write: LogWrite<Frame>, fua: bool) -> Result<Request, Error> {
        let block = self.map.block(write.at).ok_or(JournalError::Unreadable(write.at))?;
        let frame = match write.data {
            LogData::Own(bytes) => Frame::from(bytes),
            LogData::Shared(frame) => frame,
        };
        let len = frame.len();
        let data = alloc::vec![frame.slice(0..len)];
        let offset = self.io.offset(block);
        Ok(if fua { Request::write_fua(offset, data) } else { Request::write(offset, data) })
    }

    fn write_superblock(&self, superblock: &SuperblockWrite, durable: bool) -> Result<(), Error> {
        let at = LogBlock::SUPERBLOCK;
        let block = self.map.block(at).ok_or(JournalError::Unreadable(at))?;
        let frame = Frame::copy_from(superblock.bytes());
        let len = frame.len();
        let data = alloc::vec![frame.slice(0..len)];
        let (offset, fua) = (self.io.offset(block), durable && self.barriers);
        self.io.run(&mut [if fua {
            Request::write_fua(offset, data)
        } else {
            Request::write(offset, data)
        }])
    }
}
