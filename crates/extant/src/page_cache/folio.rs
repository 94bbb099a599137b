//! [`Folio`]: one aligned piece of a file's bytes.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use extant_device::{Frame, FrameSlice};
use extant_format::TransactionId;
use extant_format::cast::u64_from;
use smallvec::{SmallVec, smallvec};

use super::account::CacheAccount;
use super::shape::{FolioShape, PAGE_BYTES};
use super::states::{BlockFlags, BlockStates};
use crate::sync::{self, Condvar, Mutex, MutexGuard, Rank};

/// Some aligned pages of a file, with their blocks' states.
///
/// Its bytes and states change only through a [`LockedFolio`](super::LockedFolio), but for the end of writeback.
/// Readers need no such lock.
pub(crate) struct Folio {
    shape: FolioShape,
    account: Arc<CacheAccount>,
    /// A reader who comes here fetches what lies ahead.
    mark: AtomicBool,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// What the leaf lock inside a folio protects, the folio's own lock included.
pub(super) struct Inner {
    /// Somebody has a [`LockedFolio`](super::LockedFolio) of it.
    locked: bool,
    /// The file's index has it.
    pub(super) attached: bool,
    /// Its blocks were looked up or were to be, for a change or for zeros (the kernel's folio has buffers).
    pub(super) knows_blocks: bool,
    /// Used again after its first use: to be spared once by reclaim.
    pub(super) referenced: bool,
    /// Up to where it has been used in sequence.
    used_until: usize,
    /// It lost all that was dirty of it and stays, so the next pass over dirty folios comes by once more; never with dirty blocks.
    pub(super) emptied: bool,
    /// Blocks became valid behind the end of file alone, so who wants all of it reads it as if one were missing.
    pub(super) unread: bool,
    /// The newest transaction that its dirty blocks are part of, if the file's data is journaled.
    pub(super) journaled: Option<TransactionId>,
    pub(super) states: BlockStates,
    /// None where no byte is known yet; a frame may have bytes that nobody put there, in blocks that are not up to date.
    pub(super) frames: SmallVec<[Option<Frame>; 1]>,
}

/// Bytes of a folio, in order; most reads need one slice.
pub(crate) type Slices = SmallVec<[FrameSlice; 2]>;

impl Folio {
    /// A folio of which nothing is known, locked and attached.
    pub(super) fn new_locked(shape: FolioShape, account: Arc<CacheAccount>) -> Self {
        account.cached.add(u64_from(shape.bytes()));
        let inner = Inner {
            locked: true,
            attached: true,
            knows_blocks: false,
            referenced: false,
            used_until: 0,
            emptied: false,
            unread: false,
            journaled: None,
            states: BlockStates::new(shape.blocks()),
            frames: smallvec![None; shape.frames()],
        };
        let inner = Mutex::new(Rank::Leaf, inner);
        Self { shape, account, mark: AtomicBool::new(false), inner, changed: Condvar::new() }
    }

    /// A folio with the bytes and states that `whole` has in its place; nobody has it locked.
    pub(super) fn piece_of(whole: &Self, shape: FolioShape) -> Self {
        let start =
            usize::try_from(shape.start() - whole.shape.start()).expect("a part of a folio");
        let piece = Self::new_locked(shape, Arc::clone(&whole.account));
        {
            let (from, mut to) = (whole.inner.lock(), Vec::new());
            let blocks = start / shape.block_bytes()..(start + shape.bytes()) / shape.block_bytes();
            for (frame, place) in whole.shape.pieces(start..start + shape.bytes()) {
                to.push(from.frames[frame].as_ref().map(|frame| {
                    if place.len() == frame.len() {
                        frame.clone()
                    } else {
                        whole.account.frame_of(&frame.as_slice()[place])
                    }
                }));
            }
            let (states, referenced) = (from.states.part(blocks), from.referenced);
            drop(from);
            let mut inner = piece.inner.lock();
            (inner.frames, inner.states) = (to.into(), states);
            (inner.locked, inner.referenced) = (false, referenced);
        }
        piece
    }

    /// Where it lies and how it is divided.
    pub(crate) fn shape(&self) -> &FolioShape {
        &self.shape
    }

    /// The bytes of `range`, shared, if all of its blocks are up to date. Counts as a use, unless it goes on where the last
    /// one ended.
    pub(crate) fn read(&self, range: Range<usize>) -> Option<Slices> {
        let mut inner = self.inner.lock();
        if !inner.states.all(BlockFlags::UPTODATE, self.shape.touched(&range)) {
            return None;
        }
        inner.touch(&range);
        Some(self.slices(&inner, range))
    }

    /// Copies the bytes from `offset` on into `into`, if all of their blocks are up to date; says whether it did.
    pub(crate) fn copy_to(&self, offset: usize, into: &mut [u8]) -> bool {
        if into.len() <= PAGE_BYTES {
            return self.copy_little(offset, into);
        }
        let Some(slices) = self.read(offset..offset + into.len()) else { return false };
        let mut rest = into;
        for slice in slices {
            let (part, behind) = rest.split_at_mut(slice.len());
            part.copy_from_slice(slice.as_slice());
            rest = behind;
        }
        true
    }

    /// The same for so few bytes that copying them under the leaf lock takes less than sharing their frames.
    fn copy_little(&self, offset: usize, into: &mut [u8]) -> bool {
        let range = offset..offset + into.len();
        let mut inner = self.inner.lock();
        if !inner.states.all(BlockFlags::UPTODATE, self.shape.touched(&range)) {
            return false;
        }
        inner.touch(&range);
        let mut rest = into;
        for (frame, place) in self.shape.pieces(range) {
            let (part, behind) = rest.split_at_mut(place.len());
            let frame = inner.frames[frame].as_ref();
            let bytes = frame.expect("blocks that are up to date have bytes").as_slice();
            part.copy_from_slice(&bytes[place]);
            rest = behind;
        }
        true
    }

    /// The bytes of one block, shared, whatever they are worth.
    pub(crate) fn share(&self, block: usize) -> FrameSlice {
        let bytes = self.shape.bytes_of(&(block..block + 1));
        let (len, inner) = (bytes.len(), self.inner.lock());
        let (frame, place) = self.shape.pieces(bytes).next().expect("a block lies in one frame");
        let frame = inner.frames[frame].as_ref();
        frame.map_or_else(|| Frame::zeroed(len).into(), |frame| frame.slice(place))
    }

    /// Whether all of the bytes lie in blocks that are up to date.
    pub(crate) fn is_valid(&self, bytes: Range<usize>) -> bool {
        self.inner.lock().states.all(BlockFlags::UPTODATE, self.shape.touched(&bytes))
    }

    /// Whether all of it can be copied without a look at it, as far as its blocks are up to date.
    ///
    /// Source: kernel `filemap_range_uptodate`, `block_is_partially_uptodate`, for a range from the first block to the last.
    pub(crate) fn is_read(&self) -> bool {
        !self.inner.lock().unread
    }

    /// Has whoever reads here next fetch what lies ahead.
    pub(crate) fn set_mark(&self) {
        self.mark.store(true, Ordering::Relaxed);
    }

    /// Takes the mark away, if there is one and the folio is not being written; says whether it did.
    pub(crate) fn take_mark(&self) -> bool {
        self.mark.load(Ordering::Relaxed)
            && !self.any(BlockFlags::WRITEBACK, 0..self.shape.blocks())
            && self.mark.swap(false, Ordering::Relaxed)
    }

    /// Whether any of `blocks` has the one flag `flag`.
    pub(crate) fn any(&self, flag: BlockFlags, blocks: Range<usize>) -> bool {
        self.inner.lock().states.any(flag, blocks)
    }

    /// The flags of one block.
    pub(crate) fn flags(&self, block: usize) -> BlockFlags {
        self.inner.lock().states.of(block)
    }

    /// The first of `blocks` whose bytes are valid, or else the first whose bytes are not.
    pub(super) fn first_valid(&self, blocks: Range<usize>, valid: bool) -> Option<usize> {
        let (with, without) = match valid {
            true => (BlockFlags::UPTODATE, BlockFlags::empty()),
            false => (BlockFlags::empty(), BlockFlags::UPTODATE),
        };
        self.inner.lock().states.first_run(blocks, with, without).map(|run| run.start)
    }

    /// Waits until none of `blocks` is being written.
    ///
    /// # Locks
    /// Waits for I/O: no handle, folio or map may be held.
    pub(crate) fn wait_writeback(&self, blocks: Range<usize>) {
        sync::assert_may_wait();
        let mut inner = self.inner.lock();
        while inner.states.any(BlockFlags::WRITEBACK, blocks.clone()) {
            inner = self.changed.wait(inner);
        }
    }

    /// Waits for the folio's lock and takes it, if the folio still belongs to the file; the caller makes a guard of it.
    pub(super) fn acquire(&self) -> bool {
        let mut inner = self.inner.lock();
        while inner.locked {
            inner = self.changed.wait(inner);
        }
        inner.locked = inner.attached;
        inner.attached
    }

    /// Takes the folio's lock if nobody has it and `suitable` agrees; the caller makes a guard of it.
    pub(super) fn try_acquire(&self, suitable: impl FnOnce(&mut Inner) -> bool) -> bool {
        let Some(mut inner) = self.inner.try_lock() else { return false };
        let takes = !inner.locked && suitable(&mut inner);
        inner.locked |= takes;
        takes
    }

    /// Lets go of the folio's lock.
    pub(super) fn release(&self) {
        let mut inner = self.inner.lock();
        inner.locked = false;
        self.wake(inner);
    }

    /// What the leaf lock protects.
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Lets go of the leaf lock and wakes whoever waits for a change.
    pub(super) fn wake(&self, inner: MutexGuard<'_, Inner>) {
        drop(inner);
        self.changed.notify_all();
    }

    pub(super) fn account(&self) -> &CacheAccount {
        &self.account
    }

    /// The bytes of `range`, shared.
    pub(super) fn slices(&self, inner: &Inner, range: Range<usize>) -> Slices {
        let slice = |(frame, range): (usize, Range<usize>)| {
            inner.frames[frame]
                .as_ref()
                .expect("blocks that are up to date have bytes")
                .slice(range)
        };
        self.shape.pieces(range).map(slice).collect()
    }
}

impl Inner {
    /// Notes a use. Going on where the last one ended makes nothing worth keeping.
    pub(super) fn touch(&mut self, bytes: &Range<usize>) {
        self.referenced |= bytes.start != self.used_until;
        self.used_until = bytes.end;
    }

    /// Whether a pass over dirty folios has to come by.
    pub(super) fn is_dirty(&self) -> bool {
        self.emptied || self.states.count(BlockFlags::DIRTY) > 0
    }

    /// Whether dropping the folio would lose nothing and disturb nobody.
    pub(super) fn is_idle(&self, blocks: usize) -> bool {
        let busy = BlockFlags::DIRTY | BlockFlags::WRITEBACK;
        self.attached && !busy.iter().any(|flag| self.states.any(flag, 0..blocks))
    }
}

impl Drop for Folio {
    fn drop(&mut self) {
        self.account.cached.sub(u64_from(self.shape.bytes()));
        let inner = self.inner.get_mut();
        let dirty =
            u64::from(inner.states.count(BlockFlags::DIRTY)) * u64_from(self.shape.block_bytes());
        self.account.dirty.sub(dirty);
        inner.frames.drain(..).flatten().for_each(|frame| self.account.recycle(frame));
    }
}

impl fmt::Debug for Folio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folio").field("shape", &self.shape).finish_non_exhaustive()
    }
}
