//! What the kernel's tracepoints of writeback are told: [`Told`] follows one call of `writepages`.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::Purpose;
use super::round::Round;
use crate::Error;
use crate::inode::Inode;
use crate::mapping::DELAY_BIT;
use crate::page_cache::{DirtyKind, PageIndex};
use crate::trace::{Event, MappedFlags, Tracer};

/// Pages that may be written when nobody counts them.
const NO_LIMIT: i64 = i64::MAX;

/// One call of `writepages` as events tell it.
pub(super) struct Told<'a> {
    tracer: &'a Tracer,
    inode: &'a Inode,
    purpose: Purpose,
    range: Range<u64>,
}

impl<'a> Told<'a> {
    /// Writeback of `range` of the inode begins.
    pub(super) fn begin(
        tracer: &'a Tracer,
        inode: &'a Inode,
        range: &Range<u64>,
        purpose: Purpose,
    ) -> Self {
        let told = Self { tracer, inode, purpose, range: range.clone() };
        tracer.emit(|| {
            let last = |end: u64| i64::try_from(end.saturating_sub(1)).unwrap_or(i64::MAX);
            Event::Writepages {
                ino: inode.number(),
                nr_to_write: NO_LIMIT,
                pages_skipped: 0,
                range_start: i64::try_from(range.start).unwrap_or(i64::MAX),
                range_end: last(range.end),
                sync_mode: told.sync_mode(),
                for_kupdate: purpose == Purpose::Age,
                range_cyclic: told.is_cyclic(),
                writeback_index: inode.writeback_index.load(Ordering::Relaxed),
            }
        });
        told
    }

    fn sync_mode(&self) -> u32 {
        u32::from(self.purpose == Purpose::Integrity)
    }

    fn is_cyclic(&self) -> bool {
        matches!(self.purpose, Purpose::Age | Purpose::Pressure)
    }

    /// A round with a handle begins.
    pub(super) fn round(&self, (start_pos, next_pos): (u64, u64), pages: u64) {
        self.tracer.emit(|| Event::DaWriteFoliosStart {
            ino: self.inode.number(),
            start_pos,
            next_pos,
            nr_to_write: left(pages),
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

    /// The round is over, and its handle stopped.
    pub(super) fn round_end(&self, round: &Round, outcome: Result<(), &Error>) {
        self.tracer.emit(|| Event::DaWriteFoliosEnd {
            ino: self.inode.number(),
            start_pos: round.start,
            next_pos: round.next,
            nr_to_write: left(round.pages),
            ret: outcome.err().map_or(0, |error| -error.errno().0),
        });
    }

    /// The call is over.
    pub(super) fn end(self, round: &Round, outcome: &Result<(), Error>) {
        let whole = self.range.start == 0 && self.range.end >= u64::try_from(i64::MAX).unwrap_or(0);
        if whole || self.is_cyclic() {
            let index = PageIndex::holding(round.start).get();
            self.inode.writeback_index.store(index, Ordering::Relaxed);
        }
        self.tracer.emit(|| Event::WritepagesResult {
            ino: self.inode.number(),
            ret: outcome.as_ref().err().map_or(0, |error| -error.errno().0),
            pages_written: i32::try_from(round.pages).unwrap_or(i32::MAX),
            pages_skipped: 0,
            sync_mode: self.sync_mode(),
            writeback_index: self.inode.writeback_index.load(Ordering::Relaxed),
        });
    }
}

/// Pages that may be written still.
fn left(pages: u64) -> i64 {
    NO_LIMIT.saturating_sub(i64::try_from(pages).unwrap_or(NO_LIMIT))
}
