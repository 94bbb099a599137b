//! What the kernel's tracepoints of writeback are told: [`Told`] follows one call of `writepages`.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::Purpose;
use crate::Error;
use crate::inode::Inode;
use crate::mapping::DELAY_BIT;
use crate::page_cache::{DirtyKind, LockedFolio, PageIndex};
use crate::trace::{Event, MappedFlags, Tracer};

/// Pages that may be written when nobody counts them.
const NO_LIMIT: i64 = i64::MAX;

/// One call of `writepages` as events tell it.
pub(super) struct Told<'a> {
    tracer: &'a Tracer,
    inode: &'a Inode,
    purpose: Purpose,
    range: Range<u64>,
    pages: i64,
    /// Start of what is being gathered, and end of the folio looked at last, in bytes.
    at: (u64, u64),
}

impl<'a> Told<'a> {
    /// Writeback of `range` of the inode begins.
    pub(super) fn begin(
        tracer: &'a Tracer,
        inode: &'a Inode,
        range: &Range<u64>,
        purpose: Purpose,
    ) -> Self {
        let told = Self { tracer, inode, purpose, range: range.clone(), pages: 0, at: (0, 0) };
        tracer.emit(|| {
            let last = |end: u64| i64::try_from(end.saturating_sub(1)).unwrap_or(i64::MAX);
            Event::Writepages {
                ino: inode.number(),
                nr_to_write: NO_LIMIT,
                pages_skipped: 0,
                range_start: i64::try_from(range.start).unwrap_or(i64::MAX),
                range_end: last(range.end),
                sync_mode: told.sync_mode(),
                for_kupdate: false,
                range_cyclic: purpose.is_background(),
                writeback_index: inode.writeback_index.load(Ordering::Relaxed),
            }
        });
        told
    }

    fn sync_mode(&self) -> u32 {
        u32::from(self.purpose == Purpose::Integrity)
    }

    /// The next dirty folio, which a handle is begun for.
    pub(super) fn round(&mut self, folio: Range<u64>) {
        if self.at.0 < folio.start && self.pages > 0 {
            // The kernel has looked no further than where it stopped.
        } else {
            self.at = (folio.start, folio.end);
        }
        let (start_pos, next_pos) = self.at;
        self.tracer.emit(|| Event::DaWriteFoliosStart {
            ino: self.inode.number(),
            start_pos,
            next_pos,
            nr_to_write: NO_LIMIT - self.pages,
            sync_mode: self.sync_mode(),
        });
    }

    /// A run without place, or with an unwritten one, is about to be mapped.
    pub(super) fn extent(tracer: &Tracer, inode: &Inode, lblk: u32, len: u32, kind: DirtyKind) {
        tracer.emit(|| {
            let flags = match kind {
                DirtyKind::Unwritten => MappedFlags::UNWRITTEN,
                _ => MappedFlags(DELAY_BIT),
            };
            Event::DaWritePagesExtent { ino: inode.number(), lblk: lblk.into(), len, flags }
        });
    }

    /// What was gathered has been dealt with; `has_handle` says whether a handle was stopped.
    pub(super) fn round_end(
        &mut self,
        folios: &Range<u64>,
        looked_at: Option<u64>,
        has_handle: bool,
        outcome: Result<(), &Error>,
    ) {
        self.pages += i64::try_from((folios.end - folios.start) / 4096).unwrap_or(0);
        self.at = (folios.end, looked_at.unwrap_or(folios.end));
        if has_handle {
            let (start_pos, next_pos) = self.at;
            self.tracer.emit(|| Event::DaWriteFoliosEnd {
                ino: self.inode.number(),
                start_pos,
                next_pos,
                nr_to_write: NO_LIMIT - self.pages,
                ret: outcome.err().map_or(0, |error| -error.errno().0),
            });
        }
    }

    /// A folio of so many pages needs no more writing.
    pub(super) fn cleaned(&mut self, pages: u64) {
        self.pages += i64::try_from(pages).unwrap_or(0);
    }

    /// The call is over.
    pub(super) fn end(self, outcome: &Result<(), Error>) {
        let whole = self.range.start == 0 && self.range.end >= u64::try_from(i64::MAX).unwrap_or(0);
        if whole {
            self.inode.writeback_index.store(self.at.0 / 4096, Ordering::Relaxed);
        }
        self.tracer.emit(|| Event::WritepagesResult {
            ino: self.inode.number(),
            ret: outcome.as_ref().err().map_or(0, |error| -error.errno().0),
            pages_written: i32::try_from(self.pages).unwrap_or(i32::MAX),
            pages_skipped: 0,
            sync_mode: self.sync_mode(),
            writeback_index: self.inode.writeback_index.load(Ordering::Relaxed),
        });
    }
}

/// The bytes from the first of these folios to the last.
pub(super) fn span(folios: &[LockedFolio], empty: PageIndex) -> Range<u64> {
    let nothing = empty.start()..empty.start();
    match (folios.first(), folios.last()) {
        (Some(first), Some(last)) => first.shape().start()..last.shape().end(),
        _ => nothing,
    }
}
