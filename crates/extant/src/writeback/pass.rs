//! One pass over a file: gather dirty blocks, give them a place under one handle, submit them without it.
//!
//! Source: kernel `ext4_do_writepages`, `mpage_prepare_extent_to_map`, `mpage_map_and_submit_extent` (D15).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::{LogicalBlock, LogicalRange};

use super::events::{self, Told};
use super::submit::{Batch, Submission};
use super::{OrderedFile, Purpose, Writeback, is_open};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::MapFlags;
use crate::page_cache::{BlockFlags, DirtyKind, Folio, LockedFolio, MAX_ORDER, PageIndex, Tag};
use crate::trace::HandleType;
use crate::transaction::{Credits, Handle, credits};

/// Blocks that one mapping takes at the most: `MAX_WRITEPAGES_EXTENT_LEN` (D15.3).
const MAX_EXTENT_BLOCKS: usize = 2048;
/// How often space is looked for again after a commit has freed some (D15.14).
const MAX_SPACE_RETRIES: u32 = 3;

/// What a pass has in its hands.
#[derive(Default)]
struct Gathered {
    /// Locked, by rising index.
    folios: Vec<LockedFolio>,
    /// Where the next pass starts.
    next: PageIndex,
    /// The end of the folio that was looked at and did not fit, in bytes.
    looked_at: Option<u64>,
    /// Nothing dirty is left behind `next`.
    done: bool,
    /// The file is open, and nobody asked for this pass.
    growing: bool,
    /// A folio that has to be waited for before the pass can go on.
    blocked: Option<Arc<Folio>>,
}

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
        let (at, to) =
            (PageIndex::holding(first), PageIndex::holding(bytes.end.saturating_add(4095)));
        if self.mapper.journals_data(inode) {
            let is_clean = inode.pages.dirty_blocks() == 0;
            return match may_place && !is_clean {
                true => self.clean_journaled(inode, bytes, purpose, batch),
                false => Ok(()), // a commit has the data itself
            };
        }
        let mut tag = Tag::Dirty;
        if !purpose.is_background() {
            inode.pages.tag_for_write(at..to);
            tag = Tag::ToWrite;
        }
        if may_place && inode.pages.dirty_blocks() == 0 {
            return Ok(());
        }
        let mut told = Told::begin(self.transactions.tracer(), inode, bytes, purpose);
        let outcome = self.run_rounds(inode, at..to, (tag, may_place), batch, &mut told);
        told.end(&outcome);
        outcome
    }

    /// The rounds of one pass, each with a handle of its own if it has to give blocks a place.
    fn run_rounds(
        &self,
        inode: &Arc<Inode>,
        pages: Range<PageIndex>,
        (tag, may_place): (Tag, bool),
        batch: &mut Batch,
        told: &mut Told<'_>,
    ) -> Result<(), Error> {
        let (mut at, to) = (pages.start, pages.end);
        let mut outcome = Ok(());
        let mut retries = 0;
        loop {
            // Whether places are needed is known only with the folios locked, and a handle comes before folios.
            let unplaced = if may_place { self.needs_place(inode, at..to, tag) } else { None };
            let (moves_out, credits) = (inode.is_inline(), self.pass_credits(inode));
            let mut handle = match unplaced {
                Some(_) if moves_out => {
                    outcome = outcome.and(self.submit(batch));
                    Some(self.begin_moving_out(inode, credits)?)
                }
                Some(_) => Some(self.begin_pass(credits, batch)?),
                None => None,
            };
            let gathered = self.gather(inode, at..to, tag, handle.is_some());
            if let Some(folio) = gathered.blocked.as_ref().filter(|_| gathered.folios.is_empty()) {
                drop(handle);
                outcome = outcome.and(self.submit(batch));
                folio.wait_writeback(0..folio.shape().blocks());
                continue;
            }
            let mut contents = None;
            if let (Some(handle), Some(folio)) = (&mut handle, unplaced) {
                if moves_out && !gathered.folios.is_empty() {
                    contents = self.take_contents(handle, inode, credits)?;
                } else if inode.is_inline() {
                    return outcome; // it was cut meanwhile
                }
                told.round(folio);
            }
            let (next, mut done, looked_at) = (gathered.next, gathered.done, gathered.looked_at);
            let folios = events::span(&gathered.folios, at);
            let mut submission = Submission::default();
            let placed = self.place_all(inode, handle.as_mut(), gathered, &mut submission);
            if let (Some(contents), Some(handle)) = (contents, &mut handle) {
                self.see_contents_through(handle, inode, &contents, !submission.is_empty())?;
            }
            let reserved = handle.as_mut().and_then(Handle::take_reserved);
            let has_handle = handle.is_some();
            let stopped = handle.map_or(Ok(()), Handle::stop);
            told.round_end(&folios, looked_at, has_handle, placed.as_ref().map(|_| ()));
            batch.add(inode, submission, reserved);
            if batch.is_full() {
                outcome = outcome.and(self.submit(batch));
            }
            outcome = outcome.and(stopped);
            match placed {
                Ok(true) => at = next,
                Ok(false) => continue,
                Err(error)
                    if error.is_no_space()
                        && retries < MAX_SPACE_RETRIES
                        && self.transactions.is_journaled() =>
                {
                    retries += 1;
                    outcome = outcome.and(self.submit(batch));
                    self.transactions.commit_running()?;
                    continue;
                }
                Err(error) => {
                    done |= !self.give_up(inode, at..next, &error);
                    outcome = outcome.and(Err(error));
                    at = next;
                }
            }
            if done {
                return outcome;
            }
        }
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
        let per_extent = u32::try_from(MAX_EXTENT_BLOCKS).expect("a small constant");
        let per_folio = ((4096 << MAX_ORDER) >> geometry.block_bits).max(1);
        let blocks = self.mapper.credits(inode, per_extent);
        let converts = self.is_unwritten_until_done(inode);
        let reserved = if converts { credits::conversion(geometry, per_folio) } else { 0 };
        let wanted = Credits::blocks(blocks, geometry).with_reserved(reserved);
        wanted.of(HandleType::WritePage, inode.number())
    }

    /// Whether fresh blocks of the file stay unwritten until their data is there: maps of indirect blocks cannot say so.
    pub(super) fn is_unwritten_until_done(&self, inode: &Inode) -> bool {
        self.unwritten_until_done && self.mapper.has_extents(inode)
    }

    /// The bytes of the next dirty folio, if it has blocks without a place.
    fn needs_place(&self, inode: &Inode, pages: Range<PageIndex>, tag: Tag) -> Option<Range<u64>> {
        let folio = inode.pages.next_dirty(pages.start, pages.end, tag)?;
        has_unplaced(&folio).then(|| folio.shape().start()..folio.shape().end())
    }

    /// Locks neighbouring dirty folios, up to one extent's worth.
    fn gather(
        &self,
        inode: &Inode,
        pages: Range<PageIndex>,
        tag: Tag,
        may_place: bool,
    ) -> Gathered {
        let growing = tag == Tag::Dirty && is_open(inode);
        let mut gathered = Gathered { next: pages.start, growing, ..Gathered::default() };
        let mut blocks = 0;
        loop {
            let Some(folio) = inode.pages.next_dirty(gathered.next, pages.end, tag) else {
                gathered.done = true;
                return gathered;
            };
            let shape = *folio.shape();
            let follows =
                gathered.folios.last().is_none_or(|last| last.shape().end() == shape.start());
            if !follows || (blocks > 0 && blocks + shape.blocks() > MAX_EXTENT_BLOCKS) {
                gathered.looked_at = follows.then(|| shape.end());
                return gathered;
            }
            let Some(locked) = inode.pages.lock(Arc::clone(&folio)) else { continue };
            if locked.is_under_writeback(0..shape.blocks()) && tag == Tag::ToWrite {
                gathered.blocked = Some(folio);
                return gathered;
            }
            if locked.is_under_writeback(0..shape.blocks())
                || !locked.any(BlockFlags::DIRTY, 0..shape.blocks())
            {
                if !gathered.folios.is_empty() {
                    return gathered;
                }
                gathered.next = shape.end_index();
                continue;
            }
            if !may_place && has_unplaced(&locked) && !gathered.folios.is_empty() {
                return gathered;
            }
            blocks += shape.blocks();
            gathered.next = shape.end_index();
            gathered.folios.push(locked);
        }
    }

    /// Gives every dirty block of the folios a place, and moves them to `submission`. `false`: the transaction was full
    /// on the way; what has no place yet stays dirty.
    fn place_all(
        &self,
        inode: &Arc<Inode>,
        mut handle: Option<&mut Handle<'_>>,
        gathered: Gathered,
        submission: &mut Submission,
    ) -> Result<bool, Error> {
        let size = inode.size();
        let mut flags = if self.is_unwritten_until_done(inode) {
            MapFlags::WRITEBACK
        } else {
            MapFlags::WRITEBACK_WRITTEN
        };
        flags.set(MapFlags::GROWING, gathered.growing);
        let mut end_of_placed = 0;
        let mut outcome = Ok(true);
        let mut given = false; // one extent a handle
        // Unplaced runs are looked for over folio borders, so that neighbours get one extent.
        for run in dirty_runs(&gathered.folios, size) {
            let done = match (run.kind, handle.as_deref_mut()) {
                (DirtyKind::Placed, _) => {
                    self.find_place(inode, &run, &gathered.folios, submission).map(|()| true)
                }
                (DirtyKind::Delayed | DirtyKind::Unwritten, Some(_)) if given => Ok(false),
                (DirtyKind::Delayed | DirtyKind::Unwritten, Some(handle)) => {
                    given = true;
                    self.give_place(inode, handle, &run, &gathered.folios, flags, submission)
                }
                (DirtyKind::Delayed | DirtyKind::Unwritten, None) | (DirtyKind::Unmapped, _) => {
                    Ok(true)
                }
            };
            match done {
                Ok(true) => {
                    end_of_placed =
                        u64::from(run.blocks.end()) << self.transactions.geometry().block_bits
                }
                other => {
                    outcome = other;
                    break;
                }
            }
        }
        if let Some(handle) = handle {
            // Also of a run that got a place in part: the transaction may commit before the rest comes.
            let end = u64::from(submission.end()) << self.transactions.geometry().block_bits;
            let grown = self.raise_disk_size(inode, end_of_placed.max(end).min(size));
            if grown || !submission.is_empty() {
                inode.note_transaction(handle.transaction_id(), true);
            }
            if grown {
                self.inodes.store(handle, inode)?;
            }
        }
        outcome
    }

    /// Blocks that have a place: overwrites.
    fn find_place(
        &self,
        inode: &Inode,
        run: &DirtyRun,
        folios: &[LockedFolio],
        submission: &mut Submission,
    ) -> Result<(), Error> {
        let mut rest = Some(run.blocks);
        while let Some(range) = rest {
            let mapped = self.mapper.look_up_again(inode, range)?;
            if let BlockState::Written(at) | BlockState::Unwritten(at) = mapped.state {
                submission.add(
                    folios,
                    mapped.blocks,
                    at,
                    matches!(mapped.state, BlockState::Unwritten(_)),
                    inode.size(),
                );
            }
            rest = after(range, mapped.blocks);
        }
        Ok(())
    }

    /// Blocks that are delayed or unwritten: one run of the same kind.
    fn give_place(
        &self,
        inode: &Arc<Inode>,
        handle: &mut Handle<'_>,
        run: &DirtyRun,
        folios: &[LockedFolio],
        flags: MapFlags,
        submission: &mut Submission,
    ) -> Result<bool, Error> {
        let mut rest = Some(run.blocks);
        while let Some(range) = rest {
            let wanted = self.mapper.credits(inode, range.len());
            match handle.ensure_credits(wanted, 0) {
                Err(Error::TransactionFull) => return Ok(false),
                other => other?,
            }
            let (lblk, len) = (range.start().get(), range.len());
            Told::extent(self.transactions.tracer(), inode, lblk, len, run.kind);
            let mapped = match self.mapper.map(handle, inode, range, flags) {
                Err(Error::TransactionFull) => return Ok(false),
                other => other?,
            };
            let block_bits = self.transactions.geometry().block_bits;
            if self.mapper.orders_data(inode) && mapped.exposes_data() {
                let start = u64::from(mapped.blocks.start().get()) << block_bits;
                let end = u64::from(mapped.blocks.end()) << block_bits;
                handle.order(OrderedFile::new(&self.own, inode), start..end);
            }
            let (BlockState::Written(at) | BlockState::Unwritten(at)) = mapped.state else {
                return Err(Error::Invalid("mapping gave no place"));
            };
            submission.add(
                folios,
                mapped.blocks,
                at,
                matches!(mapped.state, BlockState::Unwritten(_)),
                inode.size(),
            );
            rest = after(range, mapped.blocks);
            if rest.is_some() {
                return Ok(false); // the rest is a request of its own
            }
        }
        Ok(true)
    }

    /// The size to store never passes what has a place (D15.15).
    fn raise_disk_size(&self, inode: &Inode, end: u64) -> bool {
        let mut core = inode.core.lock();
        let grows = end > core.size;
        if grows {
            core.size = end;
        }
        grows
    }

    /// Data that cannot get a place is lost, and its promise given back (D15.13). `false`: all stays dirty, since it was to
    /// move out of the inode, and nothing of it can be written before the first block.
    fn give_up(&self, inode: &Arc<Inode>, pages: Range<PageIndex>, error: &Error) -> bool {
        inode.pages.record_error(error.clone());
        if inode.is_inline() {
            return false;
        }
        let mut at = pages.start;
        while let Some(folio) = inode.pages.next_dirty(at, pages.end, Tag::Dirty) {
            at = folio.shape().end_index();
            let Some(locked) = inode.pages.lock(folio) else { continue };
            let blocks = 0..locked.shape().blocks();
            let range = locked.shape().file_blocks(&blocks);
            locked.forget(blocks);
            self.mapper.forget_delayed(inode, range);
        }
        true
    }
}

/// Whether a folio has dirty blocks that have no place, or only an unwritten one.
fn has_unplaced(folio: &Folio) -> bool {
    let blocks = 0..folio.shape().blocks();
    folio.any(BlockFlags::DELAY, blocks.clone()) || folio.any(BlockFlags::UNWRITTEN, blocks)
}

/// Dirty blocks that follow each other and need the same.
#[derive(Debug)]
struct DirtyRun {
    blocks: LogicalRange,
    kind: DirtyKind,
}

/// The runs of dirty blocks up to `size`, over folio borders; dirty blocks behind it are cleaned.
fn dirty_runs(folios: &[LockedFolio], size: u64) -> Vec<DirtyRun> {
    let mut runs: Vec<DirtyRun> = Vec::new();
    for folio in folios {
        let shape = folio.shape();
        let mut inside = shape.touched(&shape.part_of(&(0..size)));
        folio.clean(inside.end..shape.blocks());
        while let Some((blocks, kind)) = folio.dirty_run(inside.clone()) {
            inside.start = blocks.end;
            let range = shape.file_blocks(&blocks);
            match runs.last_mut() {
                Some(last) if last.kind == kind && last.blocks.end() == range.start().get() => {
                    let len = last.blocks.len() + range.len();
                    last.blocks =
                        LogicalRange::new(last.blocks.start().get(), len).unwrap_or(last.blocks);
                }
                _ => runs.push(DirtyRun { blocks: range, kind }),
            }
        }
    }
    runs
}

/// What of `range` follows `done`, which starts where `range` does.
fn after(range: LogicalRange, done: LogicalRange) -> Option<LogicalRange> {
    LogicalRange::between(LogicalBlock::new(done.end())?, range.end())
}
