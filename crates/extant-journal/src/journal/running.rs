//! The running transaction: what is filed in it, and what its handles may still file.

use alloc::collections::BTreeSet;
use core::time::Duration;

use extant_format::{PhysicalBlock, TransactionId};

use super::BlockChange;
use crate::JournalParameters;

/// The transaction that handles join.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) tid: TransactionId,
    pub(crate) locked: bool,
    pub(crate) commit_wanted: bool,
    pub(crate) started: Duration,
    /// Handles that have begun and not stopped.
    pub(crate) updates: u32,
    /// Credits that those hold, revoke blocks included.
    pub(crate) open: u32,
    /// Reservations that it waits for.
    pub(crate) pins: u32,
    /// Blocks to log.
    pub(crate) dirty: BTreeSet<PhysicalBlock>,
    /// Blocks freed whose older versions must not go home once this transaction has committed.
    pub(crate) forgotten: BTreeSet<PhysicalBlock>,
    /// Blocks whose older versions must not be replayed.
    pub(crate) revoked: BTreeSet<PhysicalBlock>,
}

impl Running {
    pub(crate) fn new(tid: TransactionId, started: Duration) -> Self {
        Self {
            tid,
            locked: false,
            commit_wanted: false,
            started,
            updates: 0,
            pins: 0,
            open: 0,
            dirty: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            revoked: BTreeSet::new(),
        }
    }

    /// Whether no handle runs and none has left anything.
    pub(crate) fn is_unused(&self) -> bool {
        self.updates == 0
            && self.pins == 0
            && self.dirty.is_empty()
            && self.revoked.is_empty()
            && self.forgotten.is_empty()
    }

    /// Files one change; `was_logged`: an earlier transaction holds a version that is not home yet.
    ///
    /// Source: kernel `jbd2_journal_dirty_metadata`, `jbd2_journal_forget`, `jbd2_journal_revoke`,
    /// `jbd2_journal_cancel_revoke`.
    pub(crate) fn file(&mut self, block: PhysicalBlock, change: BlockChange, was_logged: bool) {
        match change {
            BlockChange::Dirty => {
                self.revoked.remove(&block);
                self.forgotten.remove(&block);
                self.dirty.insert(block);
            }
            BlockChange::Forget | BlockChange::Revoke => {
                self.dirty.remove(&block);
                if was_logged {
                    self.forgotten.insert(block);
                }
                if change == BlockChange::Revoke {
                    self.revoked.insert(block);
                }
            }
        }
    }

    /// Blocks and revoke blocks filed so far.
    pub(crate) fn filed(&self, parameters: &JournalParameters) -> u32 {
        count(&self.dirty).saturating_add(parameters.revoke_blocks(count(&self.revoked)))
    }

    /// Blocks that a commit of exactly this would write.
    pub(crate) fn log_blocks(&self, parameters: &JournalParameters) -> u32 {
        self.filed(parameters).saturating_add(parameters.overhead(count(&self.dirty)))
    }
}

fn count(set: &BTreeSet<PhysicalBlock>) -> u32 {
    u32::try_from(set.len()).unwrap_or(u32::MAX)
}
