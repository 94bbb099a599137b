//! The journal superblock while the journal is in use: what is on disk, and images of what shall be.
//!
//! # Source
//! Kernel `fs/jbd2/journal.c`, `jbd2_journal_update_sb_log_tail`, `jbd2_mark_journal_empty`,
//! `jbd2_journal_update_sb_errno`. Differs: the REVOKE feature is set with the first commit into an empty log.

use alloc::vec;
use alloc::vec::Vec;

use extant_format::TransactionId;
use extant_format::cast::usize_from;
use extant_format::jbd2::{JournalIncompat, JournalSuperblock};
use zerocopy::IntoBytes;

use crate::{JournalParameters, LogBlock, LogState};

/// An image of the journal superblock, to write to block 0 of the journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SuperblockWrite(Vec<u8>);

impl SuperblockWrite {
    fn of(superblock: &JournalSuperblock) -> Self {
        let raw = superblock.to_raw();
        let mut bytes = vec![0; usize_from(superblock.format().block_size)];
        if let Some(start) = bytes.get_mut(..raw.as_bytes().len()) {
            start.copy_from_slice(raw.as_bytes());
        }
        Self(bytes)
    }

    /// One whole block; all behind the first 1024 bytes is zero.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The superblock as it is on disk, and where the update that is out will put the tail.
#[derive(Clone, Debug)]
pub(crate) struct SuperblockState {
    durable: JournalSuperblock,
    planned: Option<JournalSuperblock>,
}

impl SuperblockState {
    /// The log is empty and goes on where `state` says, or will be before anything is logged.
    pub(crate) fn new(parameters: &JournalParameters, state: LogState) -> Self {
        let mut durable = parameters.superblock().clone();
        durable.change(|raw| {
            raw.start = 0.into();
            // Whatever is told to the next mount must not lead it back to numbers that the log has seen.
            raw.sequence = state.next_tid.get().into();
            raw.head = state.head.get().into();
        });
        Self { durable, planned: None }
    }

    /// Step 5.1: the log was empty on disk, and starts now.
    pub(crate) fn first_commit(
        &mut self,
        tid: TransactionId,
        start: LogBlock,
    ) -> Option<SuperblockWrite> {
        if self.durable.start().is_some() {
            return None;
        }
        self.durable.change(|raw| {
            raw.set_incompat(raw.incompat() | JournalIncompat::REVOKE);
            raw.start = start.get().into();
            raw.sequence = tid.get().into();
        });
        Some(SuperblockWrite::of(&self.durable))
    }

    /// Whether a recovery would look for transactions, and for fast commits behind them.
    pub(crate) fn is_log_in_use(&self) -> bool {
        self.durable.start().is_some()
    }

    /// The oldest transaction that the log says is needed.
    pub(crate) fn tail_tid(&self) -> TransactionId {
        TransactionId(self.durable.raw().sequence.get())
    }

    /// The oldest transaction needed is `tid`, at `start`.
    pub(crate) fn tail(&mut self, tid: TransactionId, start: LogBlock) -> SuperblockWrite {
        let mut planned = self.durable.clone();
        planned.change(|raw| {
            raw.start = start.get().into();
            raw.sequence = tid.get().into();
        });
        self.plan(planned)
    }

    /// The log is empty: the next transaction comes after `next`, at `head`. Without fast commits the feature goes.
    pub(crate) fn clean(&mut self, next: TransactionId, head: LogBlock) -> SuperblockWrite {
        let mut planned = self.durable.clone();
        planned.change(|raw| {
            raw.start = 0.into();
            raw.sequence = next.get().into();
            raw.head = head.get().into();
        });
        let mut image = planned.clone();
        image.change(|raw| {
            raw.set_incompat(raw.incompat().difference(JournalIncompat::FAST_COMMIT))
        });
        self.planned = Some(planned);
        SuperblockWrite::of(&image)
    }

    /// The update that was out is durable.
    pub(crate) fn confirm(&mut self) {
        if let Some(mut planned) = self.planned.take() {
            planned.change(|raw| raw.errno = self.durable.raw().errno);
            self.durable = planned;
        }
    }

    /// Tells the next mount of an abort; stored as the kernel's negative number.
    pub(crate) fn record_errno(&mut self, errno: u16) -> SuperblockWrite {
        self.durable.change(|raw| raw.errno = u32::from(errno).wrapping_neg().into());
        SuperblockWrite::of(&self.durable)
    }

    /// Takes back what an earlier mount told.
    pub(crate) fn clear_errno(&mut self) -> Option<SuperblockWrite> {
        (self.durable.raw().errno.get() != 0).then(|| {
            self.durable.change(|raw| raw.errno = 0.into());
            SuperblockWrite::of(&self.durable)
        })
    }

    fn plan(&mut self, planned: JournalSuperblock) -> SuperblockWrite {
        let write = SuperblockWrite::of(&planned);
        self.planned = Some(planned);
        write
    }
}
