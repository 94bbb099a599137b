//! [`CacheAccount`]: what the caches of a volume hold together, and giving it back.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use extant_device::{Frame, FramePool};
use extant_format::cast::u64_from;

use super::cache::PageCache;
use super::errors::Untold;
use super::shape::{MAX_FRAME_BYTES, PAGE_BYTES};
use crate::error::Error;
use crate::sync::{Mutex, Rank};

/// Counts of bytes over all caches of a volume; the clock that reclaim turns; used frames for the next folios.
///
/// The clock's circle is the files in turn, each by rising page.
pub(crate) struct CacheAccount {
    pub(super) cached: Gauge,
    pub(super) dirty: Gauge,
    pub(super) writeback: Gauge,
    clock: Mutex<Clock>,
    errors: Mutex<Untold>,
    /// How many bytes folios and kept frames may have together for a frame to be kept.
    limit: u64,
    pages: FramePool,
    frames: FramePool,
}

/// A number that goes up and down, and is never combined with another; in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Gauge(AtomicU64);

#[derive(Debug, Default)]
struct Clock {
    /// Files with folios; the first is being looked through. A file that is gone leaves an empty entry.
    files: VecDeque<Weak<PageCache>>,
    /// Look for empty entries when there are so many.
    prune_at: usize,
}

impl Default for CacheAccount {
    fn default() -> Self {
        Self::new(16 << 20)
    }
}

impl CacheAccount {
    /// Of a volume whose folios may have `limit` bytes. Frames of folios that are dropped are kept for the next ones as long as
    /// both together stay within that.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            cached: Gauge::default(),
            dirty: Gauge::default(),
            writeback: Gauge::default(),
            clock: Mutex::new(Rank::Leaf, Clock::default()),
            errors: Mutex::new(Rank::Leaf, Untold::default()),
            limit,
            pages: FramePool::new(PAGE_BYTES, usize::MAX),
            frames: FramePool::new(MAX_FRAME_BYTES, usize::MAX),
        }
    }

    pub(super) fn record_error(&self, error: Error) {
        self.errors.lock().record(error);
    }

    pub(super) fn told_of_errors(&self, count: u64) {
        if count > 0 {
            self.errors.lock().told(count);
        }
    }

    /// The last failure of writeback, if some were told to no open file; who asks tells of them.
    pub(crate) fn take_untold_error(&self) -> Option<Error> {
        self.errors.lock().take()
    }

    /// Bytes of the folios in memory.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cached.get()
    }

    /// Bytes of dirty blocks.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty.get()
    }

    /// Bytes of blocks that are being written.
    pub(crate) fn writeback_bytes(&self) -> u64 {
        self.writeback.get()
    }

    /// Bytes of frames that are kept for the next folios.
    fn kept_bytes(&self) -> u64 {
        u64_from(self.pages.kept_bytes() + self.frames.kept_bytes())
    }

    /// Bytes of folios and of kept frames beyond the limit.
    pub(crate) fn over_limit(&self) -> u64 {
        (self.cached_bytes() + self.kept_bytes()).saturating_sub(self.limit)
    }

    /// Gives back some of the frames that nobody needed for a while.
    pub(crate) fn release_unneeded(&self) {
        self.pages.release_unneeded();
        self.frames.release_unneeded();
    }

    /// Gives back kept frames of so many bytes, as far as there are.
    fn release(&self, bytes: u64) {
        let before = self.kept_bytes();
        for pool in [&self.frames, &self.pages] {
            let rest = bytes.saturating_sub(before.saturating_sub(self.kept_bytes()));
            let rest = usize::try_from(rest).unwrap_or(usize::MAX);
            if rest > 0 {
                pool.shrink_to(pool.kept_bytes().saturating_sub(rest));
            }
        }
    }

    /// Once folios are beyond the limit, drops some as [`Self::reclaim`] does, until there is room for `spare` bytes of new ones,
    /// which can have their frames; then frames that are kept beyond the limit. Returns by how many bytes there is too little
    /// room.
    ///
    /// # Locks
    /// As [`Self::reclaim`].
    pub(crate) fn make_room(&self, spare: u64) -> u64 {
        let beyond = self.cached_bytes().saturating_sub(self.limit);
        // Up to the limit nobody looks for folios to drop, or whoever comes when it is reached would, each time.
        let lacking = if beyond > 0 { beyond + spare } else { 0 };
        let freed = if lacking > 0 { self.reclaim(lacking) } else { 0 };
        let over = self.over_limit();
        if over > 0 {
            self.release(over);
        }
        lacking.saturating_sub(freed)
    }

    /// Drops folios that are clean, unlocked, not being written and not used again since the clock last came by, until `bytes`
    /// are free or it has gone round twice at least. Returns the bytes freed. Does no I/O and waits for nobody.
    ///
    /// # Locks
    /// The caller holds nothing above a folio's rank.
    pub(crate) fn reclaim(&self, bytes: u64) -> u64 {
        let mut freed = 0;
        // The first file may be half done, so that only three ends make sure of two rounds.
        let mut rest = 3 * self.clock.lock().files.len();
        while freed < bytes && rest > 0 {
            let Some(front) = self.clock.lock().files.front().cloned() else { break };
            let ended = match front.upgrade() {
                Some(file) => {
                    let (some, ended) = file.reclaim(bytes - freed);
                    freed += some;
                    ended
                }
                None => true,
            };
            if ended {
                self.clock.lock().pass(&front);
                rest -= 1;
            }
        }
        freed
    }

    /// Lets reclaim know of a file that has its first folio.
    pub(super) fn list(&self, file: &Arc<PageCache>) {
        let mut clock = self.clock.lock();
        clock.files.push_back(Arc::downgrade(file));
        if clock.files.len() >= clock.prune_at {
            clock.files.retain(|file| file.strong_count() > 0);
            clock.prune_at = FEW_FILES.max(2 * clock.files.len());
        }
    }

    /// A frame of `len` bytes with any content.
    pub(super) fn stale_frame(&self, len: usize) -> Frame {
        self.pool(len).stale(len)
    }

    /// A frame that holds a copy of `bytes`.
    pub(super) fn frame_of(&self, bytes: &[u8]) -> Frame {
        self.pool(bytes.len()).copy_from(bytes)
    }

    /// Keeps a frame for reuse, if nobody else holds it and there is room.
    pub(super) fn recycle(&self, frame: Frame) {
        if self.cached_bytes() + self.kept_bytes() + u64_from(frame.len()) <= self.limit {
            self.pool(frame.len()).recycle(frame);
        }
    }

    fn pool(&self, len: usize) -> &FramePool {
        if len <= PAGE_BYTES { &self.pages } else { &self.frames }
    }
}

impl Clock {
    /// Moves on from `front`, if no other thread has done so.
    fn pass(&mut self, front: &Weak<PageCache>) {
        if self.files.front().is_some_and(|file| Weak::ptr_eq(file, front)) {
            self.files.pop_front();
            if front.strong_count() > 0 {
                self.files.push_back(Weak::clone(front));
            }
        }
    }
}

impl Gauge {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(super) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    /// Follows a part of it that was `before`, and is `after`.
    pub(super) fn follow(&self, before: u64, after: u64) {
        if after >= before {
            self.add(after - before);
        } else {
            self.sub(before - after);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl fmt::Debug for CacheAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cached, dirty, writeback, .. } = self;
        let mut show = f.debug_struct("CacheAccount");
        show.field("cached", cached)
            .field("dirty", dirty)
            .field("writeback", writeback)
            .finish_non_exhaustive()
    }
}

/// So many entries of files need no looking through.
const FEW_FILES: usize = 1 << 10;
