//! Writeback of files whose data is journaled: commits what is dirty, and leaves going home to the journal.
//!
//! A dirty folio of such a file is part of a transaction. Once that has committed, the log has its bytes, and the folio is
//! clean: a reader who comes after it was dropped gets them from the journal until they are home.
//!
//! Source: kernel `ext4_do_writepages`, `mpage_prepare_extent_to_map` (D15.7, J5.4). Differs: the kernel writes the blocks home
//! here; then those that are written again before the log is full go home twice.

use alloc::sync::Arc;

use super::round::{Round, Walk};
use super::submit::Batch;
use super::{Purpose, Writeback};
use crate::Error;
use crate::inode::Inode;
use crate::page_cache::Tag;
use crate::trace::HandleType;
use crate::transaction::Credits;

impl Writeback {
    /// Cleans the dirty folios of a range whose transactions have committed; commits them first, if `purpose` wants that.
    ///
    /// # Errors
    /// Of the commit.
    pub(super) fn clean_journaled(
        &self,
        inode: &Arc<Inode>,
        walk: &Walk,
        purpose: Purpose,
        batch: &mut Batch,
        round: &mut Round,
    ) -> Result<(), Error> {
        // Whoever waits for the journal has no blocks that count as being written. A failure is kept with its file.
        let _ = self.submit(batch);
        if purpose.commits() {
            self.transactions.commit(inode.last_transaction(true))?;
        }
        // As the kernel, which may find pages here that have yet to join a transaction.
        let geometry = self.transactions.geometry();
        let credits = Credits::blocks((4096 >> geometry.block_bits).max(1), geometry);
        let credits = credits.of(HandleType::WritePage, inode.number());
        let handle = self.transactions.begin(credits)?;
        let mut at = walk.pages.start;
        while let Some(folio) = inode.pages.next_dirty(at, walk.pages.end, Tag::Dirty) {
            at = folio.shape().end_index();
            let Some(locked) = inode.pages.lock(folio) else { continue };
            if locked.journaled().is_none_or(|tid| self.transactions.is_committed(tid)) {
                round.passed(&locked);
                locked.clean(0..locked.shape().blocks());
            }
        }
        handle.stop()
    }
}
