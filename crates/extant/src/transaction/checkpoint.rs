//! Checkpoint: committed blocks go home, and the log's tail follows.
//!
//! Source: kernel `fs/jbd2/checkpoint.c`, `jbd2_log_do_checkpoint`. Differs: writes the newest committed version of a
//! block, from the commit's own bytes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_device::FrameSlice;
use extant_device::Request;
use extant_format::PhysicalBlock;
use extant_journal::CheckpointPlan;
use extant_journal::CheckpointStep;
use extant_journal::TailUpdate;

use super::Transactions;
use super::journal::JournalState;
use crate::Error;
use crate::trace::Event;

/// Committed blocks held in memory until they are home, in bytes.
const MAX_PENDING_BYTES: usize = 32 << 20;
/// Blocks that one request writes home.
const MOST_AT_ONCE: usize = 256;

impl Transactions {
    /// Writes committed blocks home before somebody has to wait for the log's space or for memory: once half the log is in
    /// use, or many blocks are held. The tail follows with a later commit, so that nobody waits for a flush.
    pub(super) fn write_home_early(&self, state: &Arc<JournalState>) {
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
    pub(super) fn write_home(
        &self,
        state: &JournalState,
        plan: CheckpointPlan<FrameSlice>,
    ) -> Result<(), Error> {
        // Neighbours go together.
        let runs: Vec<_> = plan
            .blocks()
            .chunk_by(|(one, _), (next, _)| one.checked_add(1) == Some(*next))
            .flat_map(|run| run.chunks(MOST_AT_ONCE))
            .collect();
        let request = |run: &&[(PhysicalBlock, FrameSlice)]| {
            let data = run.iter().map(|(_, share)| share.clone()).collect();
            Request::write(self.io.offset(run[0].0), data)
        };
        let mut batch: Vec<Request> = runs.iter().map(request).collect();
        let outcome = self.io.run(&mut batch);
        let result = outcome.as_ref().err().map_or(0, |error| -error.errno().0);
        self.tracer.emit(|| Event::Checkpoint { result });
        let failed = runs.iter().zip(&batch).filter(|(_, request)| request.result.is_err());
        let failed: Vec<_> =
            failed.flat_map(|(run, _)| run.iter()).map(|(block, _)| *block).collect();
        let home = state.state.lock().journal.checkpointed(plan, &failed);
        for (block, tid) in home {
            self.cache.written_home(block, tid);
            self.data.written_home(block, tid);
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
        self.write_journal_superblock(state, &update.superblock, true)
    }
}
