//! One transaction that is nobody's handles': blocks that are known, written to a log that has no other.
//!
//! Source: none in the kernel, whose replay of fast commits writes home at once.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use extant_device::{Frame, FrameSlice};
use extant_format::PhysicalBlock;
use extant_journal::{Begin, BlockChange, CommitTime, HandleRequest, JournalError};

use super::journal::JournalState;
use crate::Error;

impl JournalState {
    /// Writes `blocks` as one transaction, durable when this returns. The log has no other that is needed, and says so first;
    /// so a recovery finds all of it or nothing. The journal is of no use afterwards.
    ///
    /// # Errors
    /// [`Error::Journal`] if the log is too short; of the device.
    pub(crate) fn write_alone(self, blocks: Vec<(PhysicalBlock, Frame)>) -> Result<(), Error> {
        let blocks: BTreeMap<PhysicalBlock, FrameSlice> =
            blocks.into_iter().map(|(block, frame)| (block, frame.into())).collect();
        let mut plan = {
            let journal = &mut self.state.lock().journal;
            let granted = journal.begin(HandleRequest::default(), Duration::ZERO);
            let Begin::Granted { ticket, .. } = granted else {
                return Err(JournalError::OutOfOrder("begin").into());
            };
            let tid = ticket.tid();
            let _ = journal.stop(ticket, blocks.keys().map(|block| (*block, BlockChange::Dirty)));
            let _ = journal.lock(tid)?;
            journal.switch(Duration::ZERO, |block| blocks.get(&block).cloned())?
        };
        if let Some(superblock) = plan.superblock() {
            self.write_superblock(superblock, true)?;
        }
        let writes = plan.log_writes().into_iter().map(|write| self.log_request(write, false));
        self.io.run(&mut writes.collect::<Result<Vec<_>, Error>>()?)?;
        if self.barriers {
            self.io.flush()?;
        }
        // It was committed when the last one was: the transaction had begun before the crash.
        let commit = plan.commit_block(CommitTime::default());
        self.io.run(&mut [self.log_request(commit, self.barriers)?])
    }
}
