//! Fast commits: what was noted goes into an area of its own, and counts until the transaction commits in full.
//!
//! ```text
//! wait for other commits; homes of older transactions           the first of a transaction
//! stand still: no handle runs; take what was noted, and record it in memory
//! the next handles run
//! ordered data; blocks; flush; [the log's tail, FUA;] one block, FUA
//! ```
//!
//! Source: kernel `fs/ext4/fast_commit.c`, `ext4_fc_commit`, `ext4_fc_perform_commit`, `ext4_fc_cleanup`. Differs: before the
//! first of a transaction all older ones go home, and the log begins with this one, since e2fsck replays
//! fast commits onto a device that has nothing newer in the log; what is recorded is read while handles wait, so no inode
//! has to be locked; a commit of several blocks that begins the area ends with its first block, and the area's last
//! block is never used, since the kernel refuses what lies there otherwise after a crash.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use extant_device::Request;
use extant_format::TransactionId;
use extant_journal::{
    CheckpointStep, FastCommitBegin, FastCommitTicket, JournalError, LogBlock, LogData, LogWrite,
};

use super::Transactions;
use super::changes::{Noted, NotedChanges, Refusal};
use super::handle::Ordered;
use super::journal::{JournalState, Locked};
use crate::Error;
use crate::block_io::Tally;
use crate::report::{FastCommitStats, Ineligible};
use crate::sync::{Mutex, MutexGuard, Rank};
use crate::trace::Event;

/// The fast commits of a volume that has them.
#[derive(Debug)]
pub(super) struct FastCommits {
    pub(super) changes: NotedChanges,
    /// How many were begun, and which of them was the last to be written; both change under the journal's lock.
    begun: AtomicU64,
    written: AtomicU64,
    /// Older transactions had too much that was not home.
    homes_wanted: AtomicBool,
    stats: Mutex<FastCommitStats>,
}

/// What the blocks of a fast commit have to look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastCommitSpace {
    /// The transaction that it is a part of.
    pub(crate) tid: TransactionId,
    /// It is the transaction's first.
    pub(crate) is_first: bool,
    /// The most blocks.
    pub(crate) blocks: u32,
}

/// How a fast commit ended, in the kernel's numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// In so many blocks.
    Written(u32),
    /// Only a full commit will do for what was done.
    Ineligible,
    /// There was nothing to do.
    Skipped,
    /// It could not begin, or not end.
    Failed,
}

impl Outcome {
    const fn number(self) -> u32 {
        match self {
            Self::Written(_) => 0,
            Self::Ineligible => 1,
            Self::Skipped => 2,
            Self::Failed => 3,
        }
    }
}

/// So many blocks of older transactions at the most are written home before a fast commit; a full commit is cheaper else,
/// and the next tick writes them home.
const MOST_HOMES: usize = 64;

impl FastCommits {
    /// For an area of `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            changes: NotedChanges::new(bytes),
            begun: AtomicU64::new(0),
            written: AtomicU64::new(0),
            homes_wanted: AtomicBool::new(false),
            stats: Mutex::new(Rank::Leaf, FastCommitStats::default()),
        }
    }

    /// Source: kernel `ext4_fc_update_stats`.
    fn count(&self, outcome: Outcome, time: Duration) -> FastCommitStats {
        let mut stats = self.stats.lock();
        match outcome {
            Outcome::Written(blocks) => {
                stats.commits += 1;
                stats.blocks += u64::from(blocks);
                let old = stats.average_time;
                let is_first = old.is_zero();
                stats.average_time = if is_first { time } else { (time + old * 3) / 4 };
            }
            Outcome::Ineligible | Outcome::Failed => stats.ineligible += 1,
            Outcome::Skipped => {}
        }
        *stats
    }
}

impl Transactions {
    /// What the fast commits have come to; `None` on a volume without.
    pub(crate) fn fast_commit_stats(&self) -> Option<FastCommitStats> {
        let fast = self.fast_commits.as_ref()?;
        let reasons: [u64; Ineligible::COUNT] = fast.changes.reasons();
        Some(FastCommitStats { reasons, ..*fast.stats.lock() })
    }

    /// Returns when what `tid` has done so far is durable: by a fast commit if that can be, by a full one else. `record` makes
    /// blocks of what was noted, and none if only a full commit will do; no handle runs meanwhile, but those at the end
    /// of I/O.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) fn commit_fast(
        &self,
        tid: TransactionId,
        record: impl FnOnce(&Noted, FastCommitSpace) -> Result<Option<Vec<Vec<u8>>>, Error>,
    ) -> Result<(), Error> {
        let (Some(state), Some(fast)) = (&self.journal, &self.fast_commits) else {
            return self.commit_together(tid);
        };
        self.tracer.emit(|| Event::FcCommitStart { tid: tid.get() });
        let start = self.clock.monotonic();
        let outcome = self.try_commit_fast(state, fast, tid, record);
        let stats = fast.count(outcome, self.clock.monotonic().saturating_sub(start));
        self.tracer.emit(|| {
            let word = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
            Event::FcCommitStop {
                nblks: if let Outcome::Written(blocks) = outcome { blocks } else { 0 },
                reason: outcome.number(),
                num_fc: word(stats.commits),
                num_fc_ineligible: word(stats.ineligible),
                nblks_agg: word(stats.blocks),
                tid: tid.get(),
            }
        });
        match outcome {
            Outcome::Written(_) | Outcome::Skipped => Ok(()),
            Outcome::Ineligible | Outcome::Failed => self.commit_together(tid),
        }
    }

    fn try_commit_fast(
        &self,
        state: &JournalState,
        fast: &FastCommits,
        tid: TransactionId,
        record: impl FnOnce(&Noted, FastCommitSpace) -> Result<Option<Vec<Vec<u8>>>, Error>,
    ) -> Outcome {
        let mut locked = state.state.lock();
        // One that begins from here on has all that the caller waits for.
        let arrived = fast.begun.load(Ordering::Relaxed);
        let ticket = loop {
            if locked.journal.aborted().is_some() {
                return Outcome::Failed; // the full commit says why
            }
            if fast.written.load(Ordering::Relaxed) > arrived {
                return Outcome::Skipped;
            }
            match locked.journal.begin_fast_commit(tid) {
                FastCommitBegin::Granted(ticket) => break ticket,
                FastCommitBegin::Wait => locked = state.changed.wait(locked),
                FastCommitBegin::Done => return Outcome::Skipped,
                FastCommitBegin::Refused => return Outcome::Failed,
            }
        };
        let number = fast.begun.fetch_add(1, Ordering::Relaxed) + 1;
        drop(locked);
        let outcome = self.write_fast_commit(state, fast, &ticket, record);
        let mut locked = state.state.lock();
        let blocks = if let Outcome::Written(blocks) = outcome { blocks } else { 0 };
        if outcome == Outcome::Skipped || blocks > 0 {
            fast.written.store(number, Ordering::Relaxed);
        }
        locked.journal.end_fast_commit(ticket, blocks);
        let j_fc_off = locked.journal.fast_commit_blocks();
        drop(locked);
        state.changed.notify_all();
        if blocks > 0 {
            self.tracer.emit(|| Event::FcCleanup { j_fc_off, full: false, tid: 0 });
        }
        outcome
    }

    /// The work of a fast commit that may be written.
    fn write_fast_commit(
        &self,
        state: &JournalState,
        fast: &FastCommits,
        ticket: &FastCommitTicket,
        record: impl FnOnce(&Noted, FastCommitSpace) -> Result<Option<Vec<Vec<u8>>>, Error>,
    ) -> Outcome {
        let tid = ticket.tid();
        if let Some(refused) = refused(fast, tid) {
            return refused;
        }
        if fast.changes.is_empty(tid) {
            // Data may have been overwritten in place.
            return self.flush_all(state).map_or(Outcome::Failed, |()| Outcome::Skipped);
        }
        if ticket.is_first() && !self.bring_home(state, MOST_HOMES).unwrap_or(false) {
            fast.homes_wanted.store(true, Ordering::Relaxed);
            return Outcome::Failed;
        }
        let still = Standstill::begin(state);
        if let Some(refused) = refused(fast, tid) {
            return refused;
        }
        let blocks = ticket.room().saturating_sub(1);
        let space = FastCommitSpace { tid, is_first: ticket.is_first(), blocks };
        let recorded = record(&fast.changes.take(tid), space);
        let ordered = core::mem::take(&mut state.state.lock().ordered);
        drop(still);
        let written = match recorded {
            Ok(Some(blocks)) => self.write_records(state, ticket, blocks, &ordered),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match written {
            Ok(Some(0)) => return Outcome::Skipped,
            Ok(Some(blocks)) => return Outcome::Written(blocks),
            // Whoever needs the full commit is told of the error there.
            Ok(None) | Err(_) => {}
        }
        // What was noted is gone, so this transaction can only commit in full.
        fast.changes.refuse(tid);
        let mut locked = state.state.lock();
        ordered.into_iter().for_each(|data| locked.order(data));
        Outcome::Failed
    }

    /// Writes the blocks of a fast commit; they are durable when this returns how many.
    fn write_records(
        &self,
        state: &JournalState,
        ticket: &FastCommitTicket,
        blocks: Vec<Vec<u8>>,
        ordered: &[Ordered],
    ) -> Result<Option<u32>, Error> {
        for Ordered { data, bytes, .. } in ordered {
            // A failure is kept with the file, whose fsync tells it, as in a full commit.
            let _ = data.write_out(bytes.clone());
        }
        let Ok(len) = u32::try_from(blocks.len()) else { return Ok(None) };
        if len == 0 {
            return self.flush_all(state).map(|()| Some(0));
        }
        Tally::add(&self.io.tally.journal_blocks, u64::from(len));
        let end = ticket.start().0.saturating_add(len);
        // A scan goes on until it finds what is no record.
        let is_full = len + 1 == ticket.room();
        let mut writes: Vec<_> = (ticket.start().0..end).map(LogBlock).zip(blocks).collect();
        let decides = if ticket.is_first() { 0 } else { writes.len().saturating_sub(1) };
        let last = writes.swap_remove(decides);
        if is_full {
            writes.push((LogBlock(end), alloc::vec![0; self.geometry.block_len()]));
        }
        let request = |(at, bytes): (LogBlock, Vec<u8>), fua| {
            state.log_request(LogWrite { at, data: LogData::Own(bytes) }, fua)
        };
        let batch = writes.into_iter().map(|write| request(write, false));
        let mut batch: Vec<Request> = batch.collect::<Result<_, _>>()?;
        if !batch.is_empty() {
            state.io.run(&mut batch)?;
        }
        self.flush_all(state)?;
        if ticket.is_first() {
            self.begin_log_here(state)?;
        }
        state.io.run(&mut [request(last, state.barriers)?])?;
        Ok(Some(len))
    }

    fn flush_all(&self, state: &JournalState) -> Result<(), Error> {
        if state.barriers && state.separate {
            self.io.flush()?;
        }
        if state.barriers { state.io.flush() } else { Ok(()) }
    }

    /// Writes home what was too much for a fast commit to wait for, so that a later one need not.
    ///
    /// # Errors
    /// Of the device; the journal is aborted then.
    pub(crate) fn bring_home_for_fast_commits(&self) -> Result<(), Error> {
        match (&self.journal, &self.fast_commits) {
            (Some(state), Some(fast)) if fast.homes_wanted.swap(false, Ordering::Relaxed) => {
                self.bring_home(state, usize::MAX).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Writes all that older transactions have changed home, if that is no more than `most` blocks; whether it is there, if
    /// not yet flushed.
    fn bring_home(&self, state: &JournalState, most: usize) -> Result<bool, Error> {
        let mut locked = state.state.lock();
        loop {
            if locked.journal.aborted().is_some() || locked.journal.pending_blocks() > most {
                return Ok(false);
            }
            if locked.journal.is_all_home() {
                return Ok(true);
            }
            match locked.journal.plan_checkpoint(u32::MAX) {
                CheckpointStep::Write(plan) => {
                    drop(locked);
                    self.write_home(state, plan)?;
                    locked = state.state.lock();
                }
                CheckpointStep::Busy => locked = state.changed.wait(locked),
                _ => return Ok(locked.journal.is_all_home()),
            }
        }
    }

    /// Lets the log on disk begin with the running transaction; all older ones are home, durably.
    fn begin_log_here(&self, state: &JournalState) -> Result<(), Error> {
        let mut locked = state.state.lock();
        while !locked.journal.is_tail_running() {
            if let Some(error) = locked.journal.aborted() {
                return Err(self.refusal(error));
            }
            if locked.journal.is_tail_moving() {
                locked = state.changed.wait(locked);
                continue;
            }
            let update = locked.journal.plan_fast_commit_tail();
            let update = update.ok_or(JournalError::OutOfOrder("plan_fast_commit_tail"))?;
            drop(locked);
            if let Err(error) = self.write_journal_superblock(state, &update.superblock, true) {
                self.abort(&error, "the journal's tail could not be moved");
                return Err(error);
            }
            locked = state.state.lock();
            locked.journal.tail_updated(update);
            state.changed.notify_all();
        }
        Ok(())
    }
}

/// How a fast commit ends of a transaction that must commit in full.
fn refused(fast: &FastCommits, tid: TransactionId) -> Option<Outcome> {
    fast.changes.refusal(tid).map(|refusal| match refusal {
        Refusal::Ineligible => Outcome::Ineligible,
        Refusal::Failed => Outcome::Failed,
    })
}

/// No handle runs or begins, but those with credits set aside.
struct Standstill<'a>(&'a JournalState);

impl<'a> Standstill<'a> {
    fn begin(state: &'a JournalState) -> Self {
        let mut locked: MutexGuard<'_, Locked> = state.state.lock();
        locked.journal.lock_updates();
        while !locked.journal.handles_stopped() && locked.journal.aborted().is_none() {
            locked = state.changed.wait(locked);
        }
        Self(state)
    }
}

impl Drop for Standstill<'_> {
    fn drop(&mut self) {
        self.0.state.lock().journal.unlock_updates();
        self.0.changed.notify_all();
    }
}
