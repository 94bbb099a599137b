//! One round of a pass: dirty folios in order, those that need no place submitted at once, and one run of blocks that do.
//!
//! Source: kernel `mpage_prepare_extent_to_map`, `mpage_process_page_bufs`, `mpage_map_and_submit_extent` (D15.6 to D15.12).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::ops::Range;

use extant_format::cast::usize_from;
use extant_format::{LogicalBlock, LogicalRange};

use super::events::Told;
use super::pass::MAX_EXTENT_BLOCKS;
use super::submit::Submission;
use super::{OrderedFile, Writeback};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::page_cache::{DirtyKind, Folio, LockedFolio, PageIndex, Tag};
use crate::transaction::Handle;

/// What a pass goes over, and how.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) pages: Range<PageIndex>,
    pub(super) tag: Tag,
    /// For what is being written already; else it is passed over.
    pub(super) waits: bool,
    /// More is set aside for the file than it needs now.
    pub(super) grows: bool,
}

/// Dirty blocks that follow each other and have to get a place.
#[derive(Debug)]
struct Extent {
    blocks: LogicalRange,
    kind: DirtyKind,
}

/// How far a pass has come, and what its round has in its hands.
pub(super) struct Round {
    /// Locked, by rising index: those with blocks of the extent, and the last that was looked at.
    folios: VecDeque<LockedFolio>,
    extent: Option<Extent>,
    /// On its way to the device.
    pub(super) submission: Submission,
    /// Up to where all is dealt with, in bytes.
    pub(super) start: u64,
    /// The end of the folio that was looked at last.
    pub(super) next: u64,
    /// Where the run ends that got a place last, in bytes.
    placed: u64,
    /// Pages of folios that were submitted.
    pub(super) pages: u64,
    /// Nothing is left to be looked at.
    pub(super) done: bool,
    /// A folio that has to be waited for, which nobody may do with a handle or folios.
    pub(super) blocked: Option<Arc<Folio>>,
}

/// What became of a look at a folio.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Looked {
    /// The round goes on with the next one.
    On,
    /// The round ends with it.
    Enough,
}

impl Round {
    /// Nothing was looked at yet.
    pub(super) fn new(walk: &Walk) -> Self {
        let start = walk.pages.start.start();
        Self {
            folios: VecDeque::new(),
            extent: None,
            submission: Submission::default(),
            start,
            next: start,
            placed: 0,
            pages: 0,
            done: false,
            blocked: None,
        }
    }

    /// Where it begins, and where the folio that was looked at last ends.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.start, self.next)
    }

    /// Whether there are blocks to be placed.
    pub(super) fn has_extent(&self) -> bool {
        self.extent.is_some()
    }

    /// Lets go of what is locked still; something is left to be looked at then.
    ///
    /// Source: kernel `mpage_release_unused_pages`.
    pub(super) fn release(&mut self) {
        self.done &= self.start >= self.next;
        self.folios.clear();
        self.extent = None;
    }

    /// All of a folio is dealt with, which is not the round's any more.
    pub(super) fn passed(&mut self, folio: &LockedFolio) {
        self.start = folio.shape().end();
        self.pages += folio.shape().pages();
    }

    /// Takes `run`, dirty blocks of the file that need a place, into the extent; how many of them.
    fn extend(&mut self, run: LogicalRange, kind: DirtyKind) -> u32 {
        let (start, len) = match &self.extent {
            None => (run.start().get(), 0),
            Some(extent) if extent.kind == kind && extent.blocks.end() == run.start().get() => {
                (extent.blocks.start().get(), extent.blocks.len())
            }
            Some(_) => return 0,
        };
        let taken = run.len().min(MAX_EXTENT_BLOCKS - len);
        if let Some(blocks) = LogicalRange::new(start, len + taken) {
            self.extent = Some(Extent { blocks, kind });
        }
        taken
    }
}

impl Writeback {
    /// Looks at dirty folios, from where the walk begins, until there is an extent to be placed or there are no more. Those
    /// that need no place are submitted; with neither a handle nor `places`, others end the round.
    ///
    /// # Errors
    /// Of looking up where placed blocks are.
    pub(super) fn scan(
        &self,
        inode: &Arc<Inode>,
        walk: &Walk,
        places: bool,
        round: &mut Round,
    ) -> Result<(), Error> {
        let mut at = walk.pages.start;
        round.next = round.start;
        while let Some(folio) = inode.pages.next_dirty(at, walk.pages.end, walk.tag) {
            let shape = *folio.shape();
            if round.extent.is_some() && round.next != shape.start() {
                return Ok(());
            }
            let Some(locked) = inode.pages.lock(Arc::clone(&folio)) else { continue };
            let blocks = 0..shape.blocks();
            if !locked.is_dirty() {
                at = shape.end_index();
                continue;
            }
            if locked.is_under_writeback(blocks) {
                if walk.waits {
                    round.blocked = Some(folio);
                    return Ok(());
                }
                at = shape.end_index();
                continue;
            }
            at = shape.end_index();
            if round.extent.is_none() {
                round.start = shape.start();
            }
            round.next = shape.end();
            if self.look(inode, locked, 0, places, round)? == Looked::Enough {
                return Ok(());
            }
        }
        // One that is only tagged as dirty ends a round too, unless it goes on with the extent: it is locked, and found clean.
        let behind = PageIndex::new(PageIndex::holding(round.next).get() + 1);
        round.done = round.extent.is_none() || !inode.pages.is_tagged_in(behind..walk.pages.end);
        Ok(())
    }

    /// Looks at the folio's blocks from `from` on, up to the end of file: those that have to get a place go to the round's
    /// extent as long as they go on with it. A folio without such is submitted; else it is the round's.
    fn look(
        &self,
        inode: &Inode,
        folio: LockedFolio,
        from: usize,
        places: bool,
        round: &mut Round,
    ) -> Result<Looked, Error> {
        let (shape, size) = (*folio.shape(), inode.size());
        let inside = shape.touched(&shape.part_of(&(0..size))).end;
        let mut at = from;
        let mut looked = Looked::On;
        while at < inside {
            let unplaced = next_unplaced(&folio, at..inside);
            let (run, kind) = match unplaced {
                None if round.extent.is_none() => break,
                Some((run, _)) if round.extent.is_some() && run.start != at => {
                    looked = Looked::Enough;
                    break;
                }
                None => {
                    looked = Looked::Enough;
                    break;
                }
                Some(unplaced) => unplaced,
            };
            if !places {
                looked = Looked::Enough;
                break;
            }
            let taken = usize_from(round.extend(shape.file_blocks(&run), kind));
            at = run.start + taken;
            if taken < run.len() {
                looked = Looked::Enough;
                break;
            }
        }
        let ends_inside = inside < shape.blocks();
        if looked == Looked::On && ends_inside && (round.extent.is_some() || !places) {
            looked = Looked::Enough;
        }
        if looked == Looked::Enough {
            round.folios.push_back(folio);
            return Ok(looked);
        }
        // Behind the end of file nothing is written, so nothing is looked for.
        let is_last = ends_inside || shape.end() >= size;
        round.done |= is_last;
        if round.extent.is_none() {
            self.submit_folio(inode, &folio, &mut round.submission)?;
            round.passed(&folio);
        } else {
            round.folios.push_back(folio);
        }
        Ok(if is_last { Looked::Enough } else { Looked::On })
    }

    /// Gives the round's extent a place, and submits the folios of it that need nothing more. What else the last of them needs
    /// is placed too, so that it goes to the device as a whole.
    ///
    /// # Errors
    /// [`Error::TransactionFull`]: what has no place yet stays dirty. Of mapping.
    pub(super) fn place_all(
        &self,
        inode: &Arc<Inode>,
        handle: &mut Handle<'_>,
        walk: &Walk,
        round: &mut Round,
    ) -> Result<(), Error> {
        if round.extent.is_none() {
            return Ok(());
        }
        let outcome = self.place_extents(inode, handle, walk, round);
        // Also of a run that got a place in part: the transaction may commit before the rest comes.
        let reached = round.start.max(round.placed);
        // A folio that reaches past the end of file stores the inode too, though the size stays.
        let passed = round.start > inode.core.lock().size;
        let grown = self.raise_disk_size(inode, reached.min(inode.size()));
        if grown || !round.submission.is_empty() {
            inode.note_transaction(handle.transaction_id(), true);
        }
        if grown || passed {
            self.inodes.store(handle, inode)?;
        }
        outcome
    }

    fn place_extents(
        &self,
        inode: &Arc<Inode>,
        handle: &mut Handle<'_>,
        walk: &Walk,
        round: &mut Round,
    ) -> Result<(), Error> {
        while let Some(extent) = round.extent.take() {
            let end = self.place_one(inode, handle, walk, &extent, round)?;
            let end = u64::from(end) << self.transactions.geometry().block_bits;
            round.placed = end;
            while let Some(folio) = round.folios.pop_front_if(|folio| folio.shape().end() <= end) {
                self.submit_folio(inode, &folio, &mut round.submission)?;
                round.passed(&folio);
            }
            let within = round.folios.pop_front_if(|folio| folio.shape().start() < end);
            if let Some(folio) = within {
                let shape = *folio.shape();
                let from = shape.touched(&shape.part_of(&(0..end))).end;
                // Those behind it wait for another round.
                let behind = core::mem::take(&mut round.folios);
                self.look(inode, folio, from, true, round)?;
                drop(behind);
            }
        }
        Ok(())
    }

    /// Gives the start of `extent` a place; returns the block behind what has one now.
    fn place_one(
        &self,
        inode: &Arc<Inode>,
        handle: &mut Handle<'_>,
        walk: &Walk,
        extent: &Extent,
        round: &mut Round,
    ) -> Result<u32, Error> {
        let (lblk, len) = (extent.blocks.start().get(), extent.blocks.len());
        handle.ensure_credits(self.mapper.credits(inode, len), 0)?;
        Told::extent(self.transactions.tracer(), inode, lblk, len, extent.kind);
        let flags = self.placing_flags(inode, walk);
        let mapped = self.mapper.map(handle, inode, extent.blocks, flags)?;
        if self.mapper.orders_data(inode) && mapped.exposes_data() {
            let bits = self.transactions.geometry().block_bits;
            let bytes = u64::from(lblk) << bits..u64::from(mapped.blocks.end()) << bits;
            handle.order_submitted(OrderedFile::new(&self.own, inode), bytes);
        }
        let (BlockState::Written(at) | BlockState::Unwritten(at)) = mapped.state else {
            return Err(Error::Invalid("mapping gave no place"));
        };
        let is_unwritten = matches!(mapped.state, BlockState::Unwritten(_));
        let folios = round.folios.iter();
        round.submission.add(folios, mapped.blocks, at, is_unwritten, inode.size());
        Ok(mapped.blocks.end())
    }

    /// Submits what of a folio is dirty and has a place; what lies in a hole or behind the end of file needs no writing.
    pub(super) fn submit_folio(
        &self,
        inode: &Inode,
        folio: &LockedFolio,
        submission: &mut Submission,
    ) -> Result<(), Error> {
        let (shape, size) = (*folio.shape(), inode.end_to_write());
        let mut inside = shape.touched(&shape.part_of(&(0..size)));
        folio.end_file(inside.end);
        while let Some((run, kind)) = folio.dirty_run(inside.clone()) {
            inside.start = run.end;
            match kind {
                DirtyKind::Unmapped => folio.clean(run),
                DirtyKind::Delayed | DirtyKind::Unwritten => {}
                DirtyKind::Placed => self.submit_placed(inode, folio, run, submission)?,
            }
        }
        Ok(())
    }

    fn submit_placed(
        &self,
        inode: &Inode,
        folio: &LockedFolio,
        run: Range<usize>,
        submission: &mut Submission,
    ) -> Result<(), Error> {
        let mut rest = Some(folio.shape().file_blocks(&run));
        while let Some(range) = rest {
            let mapped = self.mapper.look_up_again(inode, range)?;
            if let BlockState::Written(at) | BlockState::Unwritten(at) = mapped.state {
                let is_unwritten = matches!(mapped.state, BlockState::Unwritten(_));
                let folio = core::iter::once(folio);
                submission.add(folio, mapped.blocks, at, is_unwritten, inode.size());
            }
            rest = LogicalBlock::new(mapped.blocks.end())
                .and_then(|next| LogicalRange::between(next, range.end()));
        }
        Ok(())
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
}

/// The first run of dirty blocks in `blocks` that have no place, or only an unwritten one.
fn next_unplaced(
    folio: &LockedFolio,
    mut blocks: Range<usize>,
) -> Option<(Range<usize>, DirtyKind)> {
    while let Some((run, kind)) = folio.dirty_run(blocks.clone()) {
        if matches!(kind, DirtyKind::Delayed | DirtyKind::Unwritten) {
            return Some((run, kind));
        }
        blocks.start = run.end;
    }
    None
}
