//! Bringing bytes of a file into memory.
//!
//! Source: kernel `mm/readahead.c`, `page_cache_ra_order`, `page_cache_ra_unbounded`; `fs/ext4/readpage.c`,
//! `ext4_mpage_readpages`; `fs/buffer.c`, `block_read_full_folio`.

use alloc::sync::Arc;
use alloc::vec::Vec;

use extant_format::LogicalRange;

use super::prepare::{Layout, PlannedRead};
use super::{Files, OpenFile};
use crate::Error;
use crate::extent_status::BlockState;
use crate::inode::Inode;
use crate::mapping::Mapped;
use crate::page_cache::{Folio, FolioSizes, LockedFolio, PageIndex, Placement, Window};
use crate::trace::Event;

/// Bytes of a page.
const PAGE: u64 = 4096;

impl Files {
    /// The folio of the byte at `offset`, inside the file, if memory has it by now: with what lies ahead of a reader who wants
    /// the bytes up to `end`. Its bytes may be missing still.
    pub(super) fn find_ahead(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        offset: u64,
        end: u64,
    ) -> Option<Arc<Folio>> {
        let page = PageIndex::holding(offset);
        let count = end.div_ceil(PAGE).saturating_sub(page.get());
        let Some(folio) = inode.pages.find(page) else {
            let window = open.with_readahead(|readahead| {
                readahead.missed(page.get(), count, |most| match self.kernel_folios {
                    true => inode.pages.counted_before(page, most),
                    false => inode.pages.cached_before(page, most),
                })
            });
            self.read_ahead(inode, &window);
            return inode.pages.find(page);
        };
        self.read_behind_mark(inode, open, &folio, end);
        Some(folio)
    }

    /// Fetches the next window if the reader, who wants bytes up to `end`, comes to the mark of the last one.
    pub(super) fn read_behind_mark(
        &self,
        inode: &Arc<Inode>,
        open: &OpenFile,
        folio: &Folio,
        end: u64,
    ) {
        if folio.take_mark() {
            let pages = folio.shape().index().get()..folio.shape().end_index().get();
            let count = end.div_ceil(PAGE).saturating_sub(pages.start);
            let window = open.with_readahead(|readahead| {
                readahead.met(pages, count, |from, most| inode.pages.next_missing(from, most))
            });
            if let Some(window) = window {
                self.read_ahead(inode, &window);
            }
        }
    }

    /// Fetches what of `window` lies in the file and is not in memory. What fails stays missing: who needs it reads it again.
    pub(super) fn read_ahead(&self, inode: &Arc<Inode>, window: &Window) {
        self.writeback.make_room();
        let _invalidate = inode.invalidate.read();
        if inode.is_inline() {
            return;
        }
        let file_end = inode.size().div_ceil(PAGE);
        let max_order = if window.by_page { 0 } else { self.max_order(inode) };
        let mut at = window.pages.start;
        if window.ahead > 0 {
            let end = window.pages.end.min(file_end);
            let sizes = match self.kernel_folios {
                true => FolioSizes::Exactly(window.order.min(max_order)),
                false => FolioSizes::UpTo(max_order),
            };
            let mut folios = Vec::new();
            while at < end
                && let Some(folio) = inode.pages.create(PageIndex::new(at), end, sizes)
            {
                at = note_mark(&folio, window.pages.end - window.ahead);
                folios.push(folio);
            }
            // A failure shows when somebody wants the bytes.
            let _ = self.read_new(inode, &folios);
            if at >= end {
                return;
            }
        }
        // Something is in memory already: the rest of the window lies around it.
        let len = window.pages.end.min(file_end).saturating_sub(at);
        let end = at + len;
        let mark = len.checked_sub(window.ahead).map_or(u64::MAX, |before| at + before);
        let sizes = FolioSizes::UpTo(if self.kernel_folios { 0 } else { max_order });
        let mut folios = Vec::new();
        while at < end {
            match inode.pages.create(PageIndex::new(at), end, sizes) {
                Some(folio) => {
                    at = note_mark(&folio, mark);
                    folios.push(folio);
                }
                None => {
                    let _ = self.read_new(inode, &core::mem::take(&mut folios));
                    at = inode.pages.next_missing(at, end - at);
                }
            }
        }
        let _ = self.read_new(inode, &folios);
    }

    /// Reads folios that were made just now, one behind the other: a look at the map for each run, and one batch of requests.
    fn read_new(&self, inode: &Inode, folios: &[LockedFolio]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (folios.first(), folios.last()) else { return Ok(()) };
        let bytes = first.shape().start()..last.shape().end().min(inode.size());
        let all = self.blocks_touched(&bytes);
        let mut known: Option<Mapped> = None;
        let (mut reads, mut outcome) = (Vec::new(), Ok(()));
        for folio in folios {
            let inside = folio.shape().touched(&folio.shape().part_of(&bytes)).end;
            let look_up = |range: LogicalRange| {
                let part = known.and_then(|known| known.from(range.start()));
                if let Some(part) = part {
                    return Ok(part);
                }
                let rest = all.and_then(|all| LogicalRange::between(range.start(), all.end()));
                let found = self.mapper.look_up(inode, rest.unwrap_or(range))?;
                if !matches!(found.state, BlockState::Written(_)) {
                    self.mapper.note_used(inode, &found);
                }
                known = Some(found);
                Ok(found)
            };
            match self.plan_reads(folio, 0..inside, &mut reads, look_up) {
                // The others may be whole.
                Err(error) => outcome = outcome.and(Err(error)),
                Ok(layout) => {
                    folio.fill_hole(inside..folio.shape().blocks());
                    if layout == Layout::Mixed {
                        folio.note_blocks();
                        note_places(folio, &reads);
                    }
                }
            }
        }
        outcome.and(self.run_reads(folios, reads))
    }

    /// Reads what is missing of the folio.
    ///
    /// # Errors
    /// Of the block map or the device.
    pub(super) fn read_folio(&self, inode: &Inode, folio: &LockedFolio) -> Result<(), Error> {
        let (shape, size) = (*folio.shape(), inode.size());
        self.transactions.tracer().emit(|| {
            let index = shape.index().get();
            Event::ReadFolio { ino: inode.number(), index }
        });
        folio.note_read();
        if self.fill_from_inode(inode, folio)? {
            return Ok(());
        }
        let inside = shape.part_of(&(0..size));
        let (mut reads, mut layout) = (Vec::new(), Layout::Simple);
        let has_buffers = folio.knows_blocks();
        for mut missing in folio.missing(&inside) {
            while !missing.is_empty() {
                let (run, is_placed) = folio.same_place(missing.clone());
                missing.start = run.end;
                let planned = self.plan_reads(folio, run, &mut reads, |range| match is_placed {
                    true => self.mapper.look_up_again(inode, range),
                    false if has_buffers => self.mapper.look_up_buffers(inode, range),
                    false => self.mapper.look_up(inode, range),
                })?;
                if planned == Layout::Mixed {
                    layout = planned;
                }
            }
        }
        for run in folio.missing(&(inside.end..shape.bytes())) {
            folio.fill_hole(run);
        }
        if layout == Layout::Mixed || folio.knows_blocks() {
            folio.note_blocks();
            note_places(folio, &reads);
        }
        self.run_reads(core::slice::from_ref(folio), reads)
    }
}

/// Notes the places of the blocks that are read into the folio.
///
/// Source: kernel `block_read_full_folio`.
fn note_places(folio: &LockedFolio, reads: &[PlannedRead]) {
    for read in reads.iter().filter(|read| read.folio == folio.shape().start()) {
        folio.place(read.blocks.clone(), Placement::Written);
    }
}

/// Marks the folio if it has page `mark`; the page behind it.
fn note_mark(folio: &LockedFolio, mark: u64) -> u64 {
    let (start, end) = (folio.shape().index().get(), folio.shape().end_index().get());
    if (start..end).contains(&mark) {
        folio.set_mark();
    }
    end
}
