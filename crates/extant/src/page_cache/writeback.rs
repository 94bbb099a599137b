//! Writing folios to the device: which blocks are dirty, and [`WritebackGuard`] for those under way.

use alloc::sync::Arc;
use core::ops::Range;

use extant_format::cast::u64_from;

use super::cache::PageCache;
use super::folio::{Folio, Slices};
use super::locked::LockedFolio;
use super::states::BlockFlags;
use crate::error::Error;

/// What a run of dirty blocks needs before it can be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DirtyKind {
    /// A place: it has a promise only.
    Delayed,
    /// Its preallocated place, and conversion once it is written.
    Unwritten,
    /// Nothing.
    Placed,
    /// It has neither place nor promise, so it cannot be written: it lies in a hole.
    Unmapped,
}

/// Blocks whose bytes are on their way to the device. Dropped without [`complete`](Self::complete), it counts as failed.
#[derive(Debug)]
#[must_use = "the blocks stay under writeback until this is completed"]
pub(crate) struct WritebackGuard {
    cache: Arc<PageCache>,
    folio: Arc<Folio>,
    blocks: Range<usize>,
}

impl LockedFolio {
    /// The first run of dirty blocks in `blocks` that need the same before they can be written (D15.8).
    pub(crate) fn dirty_run(&self, blocks: Range<usize>) -> Option<(Range<usize>, DirtyKind)> {
        const DIRTY: BlockFlags = BlockFlags::DIRTY;
        const MAPPED: BlockFlags = DIRTY.union(BlockFlags::MAPPED);
        let inner = self.folio().inner();
        let first = inner.states.first_run(blocks.clone(), DIRTY, BlockFlags::empty())?;
        let flags = inner.states.of(first.start);
        let (kind, with, without) = if !flags.contains(BlockFlags::MAPPED) {
            (DirtyKind::Unmapped, DIRTY, BlockFlags::MAPPED)
        } else if flags.contains(BlockFlags::DELAY) {
            (DirtyKind::Delayed, MAPPED | BlockFlags::DELAY, BlockFlags::empty())
        } else if flags.contains(BlockFlags::UNWRITTEN) {
            (DirtyKind::Unwritten, MAPPED | BlockFlags::UNWRITTEN, BlockFlags::DELAY)
        } else {
            (DirtyKind::Placed, MAPPED, BlockFlags::DELAY | BlockFlags::UNWRITTEN)
        };
        Some((inner.states.first_run(first, with, without)?, kind))
    }

    /// Whether any of `blocks` is being written: then unlock, [`wait`](Folio::wait_writeback) and lock again.
    pub(crate) fn is_under_writeback(&self, blocks: Range<usize>) -> bool {
        self.any(BlockFlags::WRITEBACK, blocks)
    }

    /// Takes shares of the bytes of dirty `blocks` for a device request. They are clean from now on, and under writeback until
    /// the guard is completed; a change made meanwhile goes to a copy, and makes them dirty again.
    ///
    /// # Panics
    /// If any of `blocks` is clean, or still under an earlier writeback, which the caller has to wait for.
    pub(crate) fn begin_writeback(&self, blocks: Range<usize>) -> (WritebackGuard, Slices) {
        let bytes = self.shape().bytes_of(&blocks);
        // Counted before the blocks are clean, so that whoever waits for the file never misses them.
        self.cache().writeback_begins(self.shape(), u64_from(bytes.len()));
        let slices = self.change(|inner| {
            assert!(
                inner.states.all(BlockFlags::DIRTY, blocks.clone()),
                "clean blocks are not written"
            );
            assert!(
                !inner.states.any(BlockFlags::WRITEBACK, blocks.clone()),
                "the first write has to end first"
            );
            inner.states.clear(BlockFlags::DIRTY | BlockFlags::NEW, blocks.clone());
            inner.states.set(BlockFlags::WRITEBACK, blocks.clone());
            self.folio().slices(inner, bytes)
        });
        (
            WritebackGuard {
                cache: Arc::clone(self.cache()),
                folio: Arc::clone(self.folio()),
                blocks,
            },
            slices,
        )
    }
}

impl WritebackGuard {
    /// Ends the writeback: records a failure for the file, then wakes whoever waits. Takes no folio lock.
    pub(crate) fn complete(mut self, result: Result<(), Error>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<(), Error>) {
        let blocks = core::mem::take(&mut self.blocks);
        if blocks.is_empty() {
            return;
        }
        if let Err(error) = result {
            self.cache.record_error(error);
        }
        self.cache.writeback_ends(
            self.folio.shape(),
            u64_from(self.folio.shape().bytes_of(&blocks).len()),
        );
        let mut inner = self.folio.inner();
        inner.states.clear(BlockFlags::WRITEBACK, blocks);
        self.folio.wake(inner);
    }
}

impl Drop for WritebackGuard {
    fn drop(&mut self) {
        self.end(Err(Error::Shutdown));
    }
}
