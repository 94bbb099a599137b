//! [`LockedFolio`]: the right to change a folio.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, Range};

use extant_device::Frame;
use extant_format::TransactionId;
use smallvec::SmallVec;

use super::cache::PageCache;
use super::folio::{Folio, Inner};
use super::prepare::{Coverage, PrepareStep, prepare_step};
use super::states::BlockFlags;
use crate::sync::{Held, Rank};

/// Proof that a folio is locked; every transition of its blocks is a method, but for the end of writeback. Unlocks on drop.
///
/// Offsets and blocks count from the folio's start.
#[must_use = "the folio unlocks when this is dropped"]
pub(crate) struct LockedFolio {
    cache: Arc<PageCache>,
    folio: Arc<Folio>,
    _held: Held,
}

/// What a block's place turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Placement {
    /// None yet, but space was promised (D9.2).
    Delayed,
    /// Allocated, reads as zeros (D9.3).
    Unwritten,
    /// Allocated with data, by an earlier write.
    Written,
    /// Allocated just now, counts as written.
    Fresh,
}

impl LockedFolio {
    /// The guard of a folio that was made locked.
    pub(super) fn of_new(cache: &Arc<PageCache>, folio: Arc<Folio>) -> Self {
        Self { cache: Arc::clone(cache), folio, _held: Held::new(Rank::Folio) }
    }

    /// Waits for the lock of `folio`; `None` if it has left the file by then.
    pub(super) fn wait_for(cache: &Arc<PageCache>, folio: Arc<Folio>) -> Option<Self> {
        let held = Held::new(Rank::Folio);
        folio.acquire().then(|| Self { cache: Arc::clone(cache), folio, _held: held })
    }

    /// The lock of `folio` if nobody has it and `suitable` agrees.
    pub(super) fn try_for(
        cache: &Arc<PageCache>,
        folio: Arc<Folio>,
        suitable: impl FnOnce(&mut Inner) -> bool,
    ) -> Option<Self> {
        let held = Held::new(Rank::Folio);
        folio.try_acquire(suitable).then(|| Self { cache: Arc::clone(cache), folio, _held: held })
    }

    /// The folio itself, to wait for it or read it after this guard is gone.
    pub(crate) fn folio(&self) -> &Arc<Folio> {
        &self.folio
    }

    /// The file's cache.
    pub(crate) fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }

    /// The runs of blocks touched by `bytes` that have neither a place nor a promise: map them, tell
    /// [`place`](Self::place), then do what [`edges`](Self::edges) says (D8.3). Flags that an earlier failure left are cleared
    /// (D8.2). Where nobody has looked at the folio, all of them: some may lie where contents of the inode were put.
    pub(crate) fn unmapped(&self, bytes: &Range<usize>) -> SmallVec<[Range<usize>; 2]> {
        let blocks = self.shape().touched(bytes);
        let mut inner = self.folio.inner();
        inner.states.clear(BlockFlags::NEW, blocks.clone());
        if !core::mem::replace(&mut inner.knows_blocks, true) {
            return SmallVec::from_iter([blocks]);
        }
        inner.states.runs(blocks, BlockFlags::empty(), BlockFlags::MAPPED).collect()
    }

    /// The first of `blocks` and those that follow it which all have a place or a promise, or all have none; and whether
    /// they do.
    pub(crate) fn same_place(&self, blocks: Range<usize>) -> (Range<usize>, bool) {
        let inner = self.folio.inner();
        let is_placed = inner.states.of(blocks.start).contains(BlockFlags::MAPPED);
        let (with, without) = match is_placed {
            true => (BlockFlags::empty(), BlockFlags::MAPPED),
            false => (BlockFlags::MAPPED, BlockFlags::empty()),
        };
        let other = inner.states.first_run(blocks.clone(), with, without);
        (blocks.start..other.map_or(blocks.end, |other| other.start), is_placed)
    }

    /// Whether its blocks were looked up, or were to be, since it came into memory.
    pub(crate) fn knows_blocks(&self) -> bool {
        self.folio.inner().knows_blocks
    }

    /// Notes that its blocks are looked up now, or need not be.
    pub(crate) fn note_blocks(&self) {
        self.folio.inner().knows_blocks = true;
    }

    /// Forgets where the first block is: contents of the inode were put there without a look at the folio. What was known of its blocks
    /// before is known still.
    ///
    /// Source: kernel `ext4_convert_inline_data_nolock`, which writes the block by a buffer of its own.
    pub(crate) fn forget_first(&self, knew_blocks: bool) {
        let mut inner = self.folio.inner();
        inner.states.clear(PLACEMENT_FLAGS, 0..1);
        inner.knows_blocks = knew_blocks;
    }

    /// Forgets where its blocks are, none of which is dirty: who changes them looks again. Which of them are valid goes as well,
    /// unless all are.
    ///
    /// Source: kernel `try_to_free_buffers`, which takes along what was known of each block but not of the folio.
    pub(super) fn forget_places(&self) {
        let blocks = 0..self.shape().blocks();
        let mut inner = self.folio.inner();
        inner.states.clear(PLACEMENT_FLAGS, blocks.clone());
        inner.knows_blocks = false;
        // What waits in the log is not where a reader would look.
        if inner.journaled.is_none() && !inner.states.all(BlockFlags::UPTODATE, blocks.clone()) {
            inner.states.clear(BlockFlags::UPTODATE, blocks);
        }
    }

    /// Notes what mapping `blocks` gave.
    pub(crate) fn place(&self, blocks: Range<usize>, placement: Placement) {
        let flags = match placement {
            Placement::Delayed => BlockFlags::MAPPED | BlockFlags::NEW | BlockFlags::DELAY,
            Placement::Unwritten => BlockFlags::MAPPED | BlockFlags::NEW | BlockFlags::UNWRITTEN,
            Placement::Written => BlockFlags::MAPPED,
            Placement::Fresh => BlockFlags::MAPPED | BlockFlags::NEW,
        };
        let mut inner = self.folio.inner();
        inner.states.clear(PLACEMENT_FLAGS, blocks.clone());
        inner.states.set(flags, blocks);
    }

    /// Notes that writeback found the place of delayed or unwritten `blocks`, and that their write is about to be submitted
    /// (D15.12).
    pub(crate) fn placed_for_write(&self, blocks: Range<usize>) {
        self.folio.inner().states.clear(BlockFlags::DELAY | BlockFlags::UNWRITTEN, blocks);
    }

    /// What the at most two blocks that `bytes` cover in part need, once all are mapped: reading, or zeroing of what the write
    /// leaves out (D8.4, D8.6).
    pub(crate) fn edges(&self, bytes: &Range<usize>) -> SmallVec<[(usize, PrepareStep); 2]> {
        let (touched, covered) = (self.shape().touched(bytes), self.shape().covered(bytes));
        if touched == covered {
            return SmallVec::new();
        }
        let last = touched.end.checked_sub(1).filter(|last| *last > touched.start);
        let ends = touched.clone().next().into_iter().chain(last);
        let inner = self.folio.inner();
        let uptodate = inner.states.all(BlockFlags::UPTODATE, 0..self.shape().blocks());
        let step =
            |block| (block, prepare_step(inner.states.of(block), Coverage::Partial, uptodate));
        let partial = ends.filter(|block| !covered.contains(block));
        partial.map(step).filter(|(_, step)| *step != PrepareStep::Nothing).collect()
    }

    /// Puts `bytes` at `offset`. A frame that a device request still holds is copied, or replaced if `bytes` cover it.
    pub(crate) fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        let mut rest = bytes;
        for (number, place) in self.shape().pieces(offset..offset + bytes.len()) {
            let (part, behind) = rest.split_at(place.len());
            let mut inner = self.folio.inner();
            if self.is_useless(&inner, number, &place) && part.len() == self.shape().frame_bytes() {
                inner.frames[number] = Some(self.folio.account().frame_of(part));
            } else {
                self.frame_mut(&mut inner, number, &place)[place].copy_from_slice(part);
            }
            rest = behind;
        }
    }

    /// Takes bytes for `bytes` of the folio from `source`, which is told how many it has delivered and says how many more it did;
    /// stops when that is short. The folio does not have them before [`put`](Self::put): who finds that they are too few changes
    /// nothing.
    ///
    /// # Locks
    /// `source` runs under the folio's lock alone.
    pub(crate) fn fetch(
        &self,
        bytes: &Range<usize>,
        mut source: impl FnMut(usize, &mut [u8]) -> usize,
    ) -> Fetched {
        let mut fetched = Fetched { frames: Vec::new(), count: 0 };
        for (_, place) in self.shape().pieces(bytes.clone()) {
            let mut frame = self.folio.account().stale_frame(self.shape().frame_bytes());
            let came = source(fetched.count, &mut frame.make_mut()[place.clone()]);
            assert!(came <= place.len(), "a source delivered more than it was asked for");
            fetched.frames.push(frame);
            fetched.count += came;
            if came < place.len() {
                break;
            }
        }
        fetched
    }

    /// Puts what was fetched for the bytes from `offset` on there. Frames that it fills, or that the folio lacks, become the
    /// folio's.
    pub(crate) fn put(&self, offset: usize, fetched: Fetched) {
        let pieces = self.shape().pieces(offset..offset + fetched.count);
        for ((number, place), frame) in pieces.zip(fetched.frames) {
            let mut inner = self.folio.inner();
            if place.len() == frame.len() || inner.frames[number].is_none() {
                inner.frames[number] = Some(frame);
            } else {
                let bytes = &frame.as_slice()[place.clone()];
                self.frame_mut(&mut inner, number, &place)[place].copy_from_slice(bytes);
                drop(inner);
                self.folio.account().recycle(frame);
            }
        }
    }

    /// Zeroes `bytes`. Says nothing about their blocks' states.
    pub(crate) fn zero(&self, bytes: Range<usize>) {
        for (frame, place) in self.shape().pieces(bytes) {
            self.frame_mut(&mut self.folio.inner(), frame, &place)[place].fill(0);
        }
    }

    /// Zeroes the part of `block` that `bytes` leave out.
    pub(crate) fn zero_outside(&self, block: usize, bytes: &Range<usize>) {
        let whole = self.shape().bytes_of(&(block..block + 1));
        self.zero(whole.start..bytes.start.clamp(whole.start, whole.end));
        self.zero(bytes.end.clamp(whole.start, whole.end)..whole.end);
    }

    /// The runs of blocks touched by `bytes` that are not up to date.
    pub(crate) fn missing(&self, bytes: &Range<usize>) -> SmallVec<[Range<usize>; 2]> {
        let blocks = self.shape().touched(bytes);
        self.folio.inner().states.runs(blocks, BlockFlags::empty(), BlockFlags::UPTODATE).collect()
    }

    /// Frames to read `blocks` into, one after the other.
    pub(crate) fn read_frames(&self, blocks: &Range<usize>) -> Vec<Frame> {
        let pieces = self.shape().pieces(self.shape().bytes_of(blocks));
        pieces.map(|(_, place)| self.folio.account().stale_frame(place.len())).collect()
    }

    /// Takes in what was read into [`read_frames`](Self::read_frames) for `blocks`, none of which was up to date.
    pub(crate) fn read_done(&self, blocks: Range<usize>, frames: Vec<Frame>) {
        let pieces = self.shape().pieces(self.shape().bytes_of(&blocks));
        for ((number, place), frame) in pieces.zip(frames) {
            let mut inner = self.folio.inner();
            if frame.len() == self.shape().frame_bytes() {
                inner.frames[number] = Some(frame);
            } else {
                self.frame_mut(&mut inner, number, &place)[place].copy_from_slice(frame.as_slice());
                drop(inner);
                self.folio.account().recycle(frame);
            }
        }
        self.folio.inner().states.set(BlockFlags::UPTODATE, blocks);
    }

    /// Makes `blocks`, none of which was up to date, valid as zeros: they are a hole, or unwritten.
    pub(crate) fn fill_hole(&self, blocks: Range<usize>) {
        self.zero(self.shape().bytes_of(&blocks));
        self.folio.inner().states.set(BlockFlags::UPTODATE, blocks);
    }

    /// Notes that a write has put `bytes` in, and that what their blocks hold beside them is valid: their blocks are up to date and dirty, and no block of the folio is new any more
    /// (D13.1).
    ///
    /// Source: kernel `fs/buffer.c`, `block_commit_write`.
    pub(crate) fn commit_write(&self, bytes: &Range<usize>) {
        let blocks = self.shape().touched(bytes);
        self.change(|inner| {
            inner.touch(bytes);
            inner.states.set(BlockFlags::UPTODATE | BlockFlags::DIRTY, blocks);
            inner.states.clear(BlockFlags::NEW, 0..self.shape().blocks());
            inner.unread &= !inner.states.all(BlockFlags::UPTODATE, 0..self.shape().blocks());
        });
    }

    /// The runs of blocks touched by `bytes` that are new: they got their place, or a promise, and no bytes yet.
    pub(crate) fn new_runs(&self, bytes: &Range<usize>) -> SmallVec<[Range<usize>; 2]> {
        let blocks = self.shape().touched(bytes);
        self.folio.inner().states.runs(blocks, BlockFlags::NEW, BlockFlags::empty()).collect()
    }

    /// After a failed or short write: blocks that are still new and were not valid before become dirty zeros, instead of what
    /// their frame held before (D8.8).
    ///
    /// Source: kernel `fs/buffer.c`, `folio_zero_new_buffers`. Differs: whole blocks, since the edges of a write are zeroed
    /// only once all its blocks are mapped.
    pub(crate) fn zero_new(&self, bytes: &Range<usize>) {
        for run in self.new_runs(bytes) {
            for stale in self.missing(&self.shape().bytes_of(&run)) {
                self.zero(self.shape().bytes_of(&stale));
            }
            self.change(|inner| {
                inner.states.set(BlockFlags::UPTODATE | BlockFlags::DIRTY, run.clone());
                inner.states.clear(BlockFlags::NEW, run);
            });
        }
    }

    /// Notes that `blocks`, whose bytes are valid, have to be written.
    pub(crate) fn set_dirty(&self, blocks: Range<usize>) {
        self.change(|inner| {
            assert!(
                inner.states.all(BlockFlags::UPTODATE, blocks.clone()),
                "dirty blocks have valid bytes"
            );
            inner.states.set(BlockFlags::DIRTY, blocks);
        });
    }

    /// Notes that what is or becomes dirty of the folio is part of transaction `tid`, which is newer than those before.
    pub(crate) fn note_journaled(&self, tid: TransactionId) {
        self.folio.inner().journaled = Some(tid);
    }

    /// The transaction that [`note_journaled`](Self::note_journaled) told of last.
    pub(crate) fn journaled(&self) -> Option<TransactionId> {
        self.folio.inner().journaled
    }

    /// Whether a pass over dirty folios has to look at it: a block is dirty, or the last that was is gone.
    pub(crate) fn is_dirty(&self) -> bool {
        self.folio.inner().is_dirty()
    }

    /// Notes that `blocks` need not be written: they lie past the end of file, or have no place (D15.16). Nor does the folio, if
    /// nothing of it is dirty now.
    pub(crate) fn clean(&self, blocks: Range<usize>) {
        self.change(|inner| {
            inner.emptied = false;
            inner.states.clear(BlockFlags::DIRTY | BlockFlags::NEW, blocks);
        });
    }

    /// Notes that what was dirty of it has been dropped, so that a pass looks at it once more; its content is not of a log.
    ///
    /// Source: kernel `block_invalidate_folio`, which leaves the folio dirty.
    pub(super) fn note_emptied(&self) {
        self.change(|inner| inner.emptied = inner.journaled.is_none());
    }

    /// Notes that it was read as a whole.
    pub(crate) fn note_read(&self) {
        self.folio.inner().unread = false;
    }

    /// The file ends before the block at `end`: what lies from there on need not be written, and is valid as zeros, should the
    /// file grow.
    ///
    /// Source: kernel `fs/ext4/page-io.c`, `ext4_bio_write_folio`.
    pub(crate) fn end_file(&self, end: usize) {
        let behind = end..self.shape().blocks();
        self.clean(behind.clone());
        for run in self.missing(&self.shape().bytes_of(&behind)) {
            self.fill_hole(run);
            self.folio.inner().unread = true;
        }
    }

    /// Forgets all about `blocks` but whether their bytes are valid: they were truncated or punched out.
    ///
    /// Source: kernel `fs/buffer.c`, `discard_buffer`.
    pub(crate) fn discard(&self, blocks: Range<usize>) {
        self.change(|inner| inner.states.clear(BlockFlags::DIRTY | PLACEMENT_FLAGS, blocks));
    }

    /// Forgets the bytes of `blocks` as well: their data was lost (D15.13).
    pub(crate) fn forget(&self, blocks: Range<usize>) {
        self.change(|inner| {
            inner.states.clear(BlockFlags::UPTODATE | BlockFlags::DIRTY | PLACEMENT_FLAGS, blocks)
        });
    }

    /// Forgets the bytes of those of `blocks` that are neither dirty nor being written.
    pub(crate) fn forget_clean(&self, blocks: Range<usize>) {
        const BUSY: BlockFlags = BlockFlags::DIRTY.union(BlockFlags::WRITEBACK);
        let mut inner = self.folio.inner();
        let idle: SmallVec<[Range<usize>; 2]> =
            inner.states.runs(blocks, BlockFlags::empty(), BUSY).collect();
        for run in idle {
            inner.states.clear(BlockFlags::UPTODATE | PLACEMENT_FLAGS, run);
        }
    }

    /// Takes the folio out of the file, dirty or not; nothing of it is being written.
    pub(crate) fn remove(self) {
        let blocks = 0..self.shape().blocks();
        self.change(|inner| {
            assert!(
                !inner.states.any(BlockFlags::WRITEBACK, blocks.clone()),
                "removed while it is written"
            );
            inner.states.clear(BlockFlags::DIRTY, blocks);
            inner.emptied = false;
            inner.attached = false;
        });
        self.cache.detach(&self.folio);
    }

    /// Changes blocks, and lets the file's and the volume's counts of dirty blocks follow.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.folio.inner();
        let count = inner.states.count(BlockFlags::DIRTY);
        let before = (count, count > 0 || inner.emptied);
        let result = change(&mut inner);
        let count = inner.states.count(BlockFlags::DIRTY);
        inner.emptied &= count == 0;
        let after = (count, count > 0 || inner.emptied);
        drop(inner);
        if before != after {
            self.cache.dirty_changed(self.shape(), before, after);
        }
        result
    }

    /// The bytes of a frame, to change `place` in it. Content that `place` will replace is neither zeroed nor copied.
    fn frame_mut<'a>(
        &self,
        inner: &'a mut Inner,
        frame: usize,
        place: &Range<usize>,
    ) -> &'a mut [u8] {
        if self.is_useless(inner, frame, place) {
            inner.frames[frame] =
                Some(self.folio.account().stale_frame(self.shape().frame_bytes()));
        }
        inner.frames[frame].as_mut().expect("filled above").make_mut()
    }

    /// Whether what a frame holds is of no use to a change of `place`: it holds nothing, or all changes and is shared.
    fn is_useless(&self, inner: &Inner, frame: usize, place: &Range<usize>) -> bool {
        let whole = place.len() == self.shape().frame_bytes();
        inner.frames[frame].as_ref().is_none_or(|frame| whole && frame.is_shared())
    }
}

/// Bytes that were fetched for a folio, in frames as it would have them.
#[must_use = "the folio does not have them yet"]
pub(crate) struct Fetched {
    frames: Vec<Frame>,
    count: usize,
}

impl Fetched {
    /// How many came.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl Deref for LockedFolio {
    type Target = Folio;
    fn deref(&self) -> &Folio {
        &self.folio
    }
}

impl Drop for LockedFolio {
    fn drop(&mut self) {
        self.folio.release();
    }
}

impl fmt::Debug for LockedFolio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LockedFolio").field(&self.folio).finish()
    }
}

/// What says where a block is.
const PLACEMENT_FLAGS: BlockFlags =
    BlockFlags::MAPPED.union(BlockFlags::NEW).union(BlockFlags::DELAY).union(BlockFlags::UNWRITTEN);
