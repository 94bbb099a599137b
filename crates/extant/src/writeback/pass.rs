//! One pass over a file: what has a place goes as it is; then, round by round under a handle each, one run of dirty blocks
//! gets a place.
//!
//! Source: kernel `ext4_do_writepages`, `mpage_prepare_extent_to_map`, `mpage_map_and_submit_extent` (D15).

use alloc::sync::Arc;
use core::ops::Range;

use extant_format::LogicalRange;

use super::events::Told;
use super::round::{Round, Walk};
use super::submit::{Batch, Ending, Submission};
use super::{Purpose, Writeback};
use crate::Error;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::page_cache::{MAX_ORDER, PageIndex, Tag};
use crate::trace::HandleType;
use crate::transaction::{Credits, Handle, credits};

/// Blocks that one mapping takes at the most: `MAX_WRITEPAGES_EXTENT_LEN` (D15.3).
pub(super) const MAX_EXTENT_BLOCKS: u32 = 2048;
/// How often space is looked for again after a commit has freed some (D15.14).
const MAX_SPACE_RETRIES: u32 = 3;

impl Writeback {
    /// Writes the dirty bytes of a range, and, for [`Purpose::Integrity`], waits until they are on the device.
    ///
    /// # Errors
    /// The first failure; it is kept with the file as well.
    /// # Locks
    /// None may be held of rank 45 or more.
    pub(crate) fn write_inode(
        &self,
        inode: &Arc<Inode>,
        bytes: Range<u64>,
        purpose: Purpose,
    ) -> Result<(), Error> {
        let mut batch = Batch::default();
        let outcome = self.run_passes(inode, &bytes, purpose, true, &mut batch);
        let outcome = outcome.and(self.submit(&mut batch));
        if purpose == Purpose::Integrity {
            inode.pages.wait_writeback(&bytes);
        }
        outcome
    }

    /// Starts the writeback of all that is dirty; what comes with its end is left to the caller, who waits for no handle
    /// before that, as a commit may be waiting for it.
    ///
    /// # Errors
    /// As [`Self::write_inode`].
    /// # Locks
    /// None may be held of rank 45 or more.
    /// # Source
    /// Kernel `filemap_flush`.
    pub(crate) fn start_inode(&self, inode: &Arc<Inode>) -> Result<Ending<'_>, Error> {
        let mut batch = Batch::default();
        let outcome = self.run_passes(inode, &(0..u64::MAX), Purpose::Everything, true, &mut batch);
        let (passes, transferred) = self.transfer(&mut batch);
        let ending = Ending::new(self, passes);
        outcome.and(transferred).map(|()| ending)
    }

    /// Writes the block that contents of an inode were moved to at once. The commit waits for it anyway; but for everyone else
    /// the file is clean, as it is in the kernel, which has the block in its journal.
    ///
    /// # Errors
    /// Of the device.
    pub(crate) fn write_moved(&self, inode: &Arc<Inode>) -> Result<(), Error> {
        let pages = PageIndex::ZERO..PageIndex::new(1);
        let walk = Walk { pages, tag: Tag::Dirty, waits: true, grows: false };
        let mut batch = Batch::default();
        let outcome = self.submit_placed_folios(inode, &walk, &mut batch);
        outcome.and(self.submit(&mut batch))
    }

    /// Writes those dirty bytes of a range that have a place already; starts no handle.
    ///
    /// # Errors
    /// Of the device.
    pub(super) fn write_placed(
        &self,
        inode: &Arc<Inode>,
        bytes: Range<u64>,
        purpose: Purpose,
    ) -> Result<(), Error> {
        let mut batch = Batch::default();
        let outcome = self.run_passes(inode, &bytes, purpose, false, &mut batch);
        outcome.and(self.submit(&mut batch))
    }

    /// Places the dirty bytes of a range and adds them to `batch`, which goes to the device when it is full, and before
    /// this waits for anything.
    ///
    /// # Errors
    /// The first; those of the device may be of other files in the batch.
    pub(super) fn run_passes(
        &self,
        inode: &Arc<Inode>,
        bytes: &Range<u64>,
        purpose: Purpose,
        may_place: bool,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        // Contents that move out of the inode begin with the first block, and are dropped there with it (D15.5).
        let first = if inode.is_inline() || inode.may_inline() { 0 } else { bytes.start };
        let pages = PageIndex::holding(first)..PageIndex::holding(bytes.end.saturating_add(4095));
        let tag = if purpose.is_tagged() {
            inode.pages.tag_for_write(pages.clone());
            Tag::ToWrite
        } else {
            Tag::Dirty
        };
        let is_clean = !inode.pages.is_tagged();
        let is_journaled = self.mapper.journals_data(inode);
        if is_clean && may_place && !purpose.visits_clean() || is_journaled && !may_place {
            return Ok(()); // journaled data is in the commit itself
        }
        let mut told = Told::begin(self.transactions.tracer(), inode, bytes, purpose);
        let mut walk = Walk { pages, tag, waits: purpose.waits(), grows: purpose.grows(inode) };
        let mut round = Round::new(&walk);
        let outcome = if is_clean {
            Ok(())
        } else if is_journaled {
            self.clean_journaled(inode, &walk, purpose, batch, &mut round)
        } else if may_place {
            let begun = self.begin_rounds(inode, &mut walk, batch, &mut round);
            begun.and_then(|()| self.run_rounds(inode, &mut walk, batch, &mut round, &mut told))
        } else {
            self.submit_placed_folios(inode, &walk, batch)
        };
        told.end(&round, &outcome);
        outcome
    }

    /// The round without a handle: up to the first block that has to get a place.
    fn begin_rounds(
        &self,
        inode: &Arc<Inode>,
        walk: &mut Walk,
        batch: &mut Batch,
        round: &mut Round,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        loop {
            let scanned = self.scan(inode, walk, false, round);
            round.release();
            batch.add(inode, core::mem::take(&mut round.submission), None);
            outcome = outcome.and(scanned);
            let Some(blocked) = round.blocked.take() else { return outcome };
            outcome = outcome.and(self.submit(batch));
            blocked.wait_writeback(0..blocked.shape().blocks());
            walk.pages.start = blocked.shape().index();
        }
    }

    /// The rounds with a handle each, and in each a run of blocks that gets a place.
    fn run_rounds(
        &self,
        inode: &Arc<Inode>,
        walk: &mut Walk,
        batch: &mut Batch,
        round: &mut Round,
        told: &mut Told<'_>,
    ) -> Result<(), Error> {
        let (mut outcome, mut retries) = (Ok(()), 0);
        while !round.done {
            walk.pages.start = PageIndex::holding(round.start);
            let (moves_out, credits) = (inode.is_inline(), self.pass_credits(inode));
            let mut handle = match moves_out {
                true => {
                    outcome = outcome.and(self.submit(batch));
                    self.begin_moving_out(inode, credits)?
                }
                false => self.begin_pass(credits, batch)?,
            };
            let placed = self.run_round(inode, &mut handle, moves_out, walk, round, told);
            let reserved = handle.take_reserved();
            let stopped = handle.stop();
            round.release();
            told.round_end(round, placed.as_ref().map(|_| ()));
            batch.add(inode, core::mem::take(&mut round.submission), reserved);
            if batch.is_full() {
                outcome = outcome.and(self.submit(batch));
            }
            outcome = outcome.and(stopped);
            match placed {
                Ok(()) | Err(Error::TransactionFull) => {}
                Err(error)
                    if error.is_no_space()
                        && retries < MAX_SPACE_RETRIES
                        && self.transactions.is_journaled() =>
                {
                    retries += 1;
                    outcome = outcome.and(self.submit(batch));
                    self.transactions.commit_running()?;
                }
                Err(error) => {
                    let lost = PageIndex::holding(round.start)..PageIndex::holding(round.next);
                    self.give_up(inode, lost, &error);
                    return outcome.and(Err(error));
                }
            }
            if let Some(blocked) = round.blocked.take() {
                outcome = outcome.and(self.submit(batch));
                blocked.wait_writeback(0..blocked.shape().blocks());
            }
        }
        outcome
    }

    /// All dirty blocks that have a place, and no others: for those who may start no handle (D15.20).
    fn submit_placed_folios(
        &self,
        inode: &Arc<Inode>,
        walk: &Walk,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let (mut outcome, mut at) = (Ok(()), walk.pages.start);
        let mut submission = Submission::default();
        while let Some(folio) = inode.pages.next_dirty(at, walk.pages.end, walk.tag) {
            let Some(locked) = inode.pages.lock(Arc::clone(&folio)) else { continue };
            let blocks = 0..folio.shape().blocks();
            let waits = locked.is_under_writeback(blocks.clone());
            if !waits {
                at = folio.shape().end_index();
                outcome = outcome.and(self.submit_folio(inode, &locked, &mut submission));
            }
            drop(locked);
            if waits || submission.is_full() {
                batch.add(inode, core::mem::take(&mut submission), None);
                outcome = outcome.and(self.submit(batch));
            }
            if waits {
                folio.wait_writeback(blocks);
            }
        }
        batch.add(inode, submission, None);
        outcome
    }

    /// One round under a handle; of contents that move out of the inode, the first one takes them out.
    fn run_round(
        &self,
        inode: &Arc<Inode>,
        handle: &mut Handle<'_>,
        moves_out: bool,
        walk: &Walk,
        round: &mut Round,
        told: &Told<'_>,
    ) -> Result<(), Error> {
        let before = round.position();
        if !moves_out {
            told.round(before, round.pages);
        }
        self.scan(inode, walk, true, round)?;
        if !moves_out && inode.is_inline() {
            return Ok(()); // since just now: another round takes them out
        }
        let mut contents = None;
        if moves_out {
            if round.has_extent() {
                contents = self.take_contents(handle, inode, self.pass_credits(inode))?;
            }
            told.round(before, round.pages);
        }
        let placed = self.place_all(inode, handle, walk, round);
        if let Some(contents) = contents {
            let has_place = !round.submission.is_empty();
            self.see_contents_through(handle, inode, &contents, has_place)?;
        }
        placed
    }

    fn begin_pass(&self, wanted: Credits, batch: &mut Batch) -> Result<Handle<'_>, Error> {
        if !batch.is_empty() {
            if let Some(handle) = self.transactions.try_begin(wanted)? {
                return Ok(handle);
            }
            // A failure is kept with its file.
            let _ = self.submit(batch);
        }
        self.transactions.begin(wanted)
    }

    /// What one extent takes, and the end of its I/O.
    fn pass_credits(&self, inode: &Inode) -> Credits {
        let geometry = self.transactions.geometry();
        let per_folio = ((4096 << MAX_ORDER) >> geometry.block_bits).max(1);
        let blocks = self.mapper.credits(inode, MAX_EXTENT_BLOCKS);
        let converts = self.is_unwritten_until_done(inode);
        let reserved = if converts { credits::conversion(geometry, per_folio) } else { 0 };
        let wanted = Credits::blocks(blocks, geometry).with_reserved(reserved);
        wanted.of(HandleType::WritePage, inode.number())
    }

    /// Whether fresh blocks of the file stay unwritten until their data is there: maps of indirect blocks cannot say so.
    pub(super) fn is_unwritten_until_done(&self, inode: &Inode) -> bool {
        self.unwritten_until_done && self.mapper.has_extents(inode)
    }

    /// How blocks of the file get their place.
    pub(super) fn placing_flags(&self, inode: &Inode, walk: &Walk) -> MapFlags {
        let mut flags = if self.is_unwritten_until_done(inode) {
            MapFlags::WRITEBACK
        } else {
            MapFlags::WRITEBACK_WRITTEN
        };
        flags.set(MapFlags::GROWING, walk.grows);
        flags
    }

    /// Data that cannot get a place is lost, and its promise given back (D15.13). What was to move out of the inode stays
    /// dirty: nothing of it can be written before the first block.
    fn give_up(&self, inode: &Arc<Inode>, pages: Range<PageIndex>, error: &Error) {
        inode.pages.record_error(error.clone());
        if inode.is_inline() {
            return;
        }
        let mut at = pages.start;
        while let Some(folio) = inode.pages.next_dirty(at, pages.end, Tag::Dirty) {
            at = folio.shape().end_index();
            let Some(locked) = inode.pages.lock(folio) else { continue };
            let blocks = 0..locked.shape().blocks();
            let range: LogicalRange = locked.shape().file_blocks(&blocks);
            locked.forget(blocks);
            self.mapper.forget_delayed(inode, range);
        }
    }
}
