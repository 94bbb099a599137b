//! [`PageCache`]: the folios of one file by page, and which of them are dirty.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::ops::Range;

use extant_format::cast::u64_from;
use smallvec::SmallVec;

use super::account::CacheAccount;
use super::errors::{ErrorPosition, WriteErrors};
use super::folio::Folio;
use super::folios::FolioMap;
use super::locked::LockedFolio;
use super::shape::{BlockSize, FolioShape, PAGE_BYTES, PageIndex};
use super::states::BlockFlags;
use crate::error::Error;
use crate::sync::{Mutex, MutexGuard, Rank};

/// One file's bytes in memory.
#[derive(Debug)]
pub(crate) struct PageCache {
    account: Arc<CacheAccount>,
    block_size: BlockSize,
    index: Mutex<Index>,
    errors: Mutex<WriteErrors>,
}

/// Which dirty folios to look for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tag {
    /// All of them.
    Dirty,
    /// Those that were dirty when [`PageCache::tag_for_write`] was called and have not been written since.
    ToWrite,
}

/// How large new folios may be, as log2 of their pages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FolioSizes {
    /// This, unless alignment or the end forbid it: none if another folio is in the way.
    Exactly(u32),
    /// The largest up to this that fits beside others.
    UpTo(u32),
}

#[derive(Debug, Default)]
struct Index {
    folios: FolioMap,
    /// First pages of folios that are dirty, as far as nobody has them locked.
    dirty: BTreeSet<PageIndex>,
    /// First pages of clean folios that are pieces of one that was dirty: the kernel leaves their tags, and so finds a file with
    /// something to write, and then nothing.
    tagged: BTreeSet<PageIndex>,
    to_write: BTreeSet<PageIndex>,
    dirty_blocks: u64,
    /// First pages of folios under writeback, with how many guards they have.
    writeback: BTreeMap<PageIndex, u32>,
    /// Where reclaim goes on.
    hand: PageIndex,
    /// Whether reclaim knows of this file.
    listed: bool,
}

impl PageCache {
    /// An empty cache, counted in `account`.
    pub(crate) fn new(account: Arc<CacheAccount>, block_size: BlockSize) -> Arc<Self> {
        let index = Mutex::new(Rank::CacheIndex, Index::default());
        Arc::new(Self {
            account,
            block_size,
            index,
            errors: Mutex::new(Rank::Leaf, WriteErrors::default()),
        })
    }

    /// The volume's account.
    pub(crate) fn account(&self) -> &Arc<CacheAccount> {
        &self.account
    }

    /// The folio that holds `page`, if it is in memory.
    pub(crate) fn find(&self, page: PageIndex) -> Option<Arc<Folio>> {
        self.index.lock().around(page).cloned()
    }

    /// The first folio that holds `from` or lies behind it, and begins before `to`.
    pub(crate) fn find_from(&self, from: PageIndex, to: PageIndex) -> Option<Arc<Folio>> {
        let index = self.index.lock();
        let found = index.around(from).or_else(|| index.folios.from(from).next())?;
        (found.shape().index() < to).then(|| Arc::clone(found))
    }

    /// The folio that holds `page`, locked, if it is in memory.
    pub(crate) fn get_locked(self: &Arc<Self>, page: PageIndex) -> Option<LockedFolio> {
        loop {
            if let Some(locked) = self.lock(self.find(page)?) {
                return Some(locked);
            }
        }
    }

    /// Waits for the lock of `folio`; `None` if it has left the file by then, so that the caller looks it up again.
    pub(crate) fn lock(self: &Arc<Self>, folio: Arc<Folio>) -> Option<LockedFolio> {
        LockedFolio::wait_for(self, folio)
    }

    /// The folio that holds `page`, locked. A new one is as large as `wanted_bytes` and the page's alignment allow, but of no
    /// higher order than `max_order`, no lower one than a block needs, and clear of its neighbours (D7.1, D7.2).
    ///
    /// Source: kernel `mm/filemap.c`, `__filemap_get_folio`.
    pub(crate) fn find_or_create(
        self: &Arc<Self>,
        page: PageIndex,
        wanted_bytes: usize,
        max_order: u32,
    ) -> LockedFolio {
        assert!(page.get() < END_OF_FILES, "{page:?} is past any file");
        let min_order = self.block_size.min_order();
        let aligned = |order: u32| page.get().trailing_zeros().min(order);
        let wanted = (wanted_bytes / PAGE_BYTES).checked_ilog2().unwrap_or(0);
        let order = aligned(wanted.min(max_order).min(self.block_size.max_order())).max(min_order);
        loop {
            let index = self.index.lock();
            if let Some(folio) = index.around(page).cloned() {
                drop(index);
                match self.lock(folio) {
                    Some(locked) => return locked,
                    None => continue,
                }
            }
            let shapes = (min_order..=order)
                .rev()
                .map(|order| FolioShape::new(page, order, self.block_size));
            let shape = { shapes }
                .find(|shape| index.is_free(shape))
                .expect("no folio is smaller than a block");
            return self.insert_new(index, shape);
        }
    }

    /// A new folio that holds `page`, locked, and of `sizes`, as far as its alignment and `end`, a page that it may not pass,
    /// allow; `None` if another is in its way.
    ///
    /// Source: kernel `ra_alloc_folio`.
    pub(crate) fn create(
        self: &Arc<Self>,
        page: PageIndex,
        end: u64,
        sizes: FolioSizes,
    ) -> Option<LockedFolio> {
        let (FolioSizes::Exactly(order) | FolioSizes::UpTo(order)) = sizes;
        let min_order = self.block_size.min_order();
        let order = order.min(self.block_size.max_order()).min(page.get().trailing_zeros());
        let ends_inside = |order: &u32| page.get() + (1 << order) <= end;
        let order = (0..=order).rev().find(ends_inside).unwrap_or(0).max(min_order);
        let lowest = if matches!(sizes, FolioSizes::Exactly(_)) { order } else { min_order };
        let index = self.index.lock();
        if index.around(page).is_some() {
            return None;
        }
        let mut shapes =
            (lowest..=order).rev().map(|order| FolioShape::new(page, order, self.block_size));
        let shape = shapes.find(|shape| index.is_free(shape))?;
        Some(self.insert_new(index, shape))
    }

    fn insert_new(
        self: &Arc<Self>,
        mut index: MutexGuard<'_, Index>,
        shape: FolioShape,
    ) -> LockedFolio {
        let folio = Arc::new(Folio::new_locked(shape, Arc::clone(&self.account)));
        index.folios.insert(Arc::clone(&folio));
        let unlisted = !core::mem::replace(&mut index.listed, true);
        drop(index);
        if unlisted {
            self.account.list(self);
        }
        LockedFolio::of_new(self, folio)
    }

    /// How many pages in front of `page`, one after the other, are in memory; no more than `most` are counted.
    pub(crate) fn cached_before(&self, page: PageIndex, most: u64) -> u64 {
        let index = self.index.lock();
        let mut start = page.get();
        while page.get() - start < most
            && let Some(before) = start.checked_sub(1)
            && let Some(folio) = index.around(PageIndex::new(before))
        {
            start = folio.shape().index().get();
        }
        (page.get() - start).min(most)
    }

    /// The same as the kernel counts them, which looks past much of large folios.
    pub(crate) fn counted_before(&self, page: PageIndex, most: u64) -> u64 {
        self.index.lock().folios.counted_before(page, most)
    }

    /// The first page from `page` on that is not in memory, or the one behind the `most` that were looked at.
    pub(crate) fn next_missing(&self, page: u64, most: u64) -> u64 {
        let index = self.index.lock();
        let mut at = page;
        while at - page < most
            && let Some(folio) = index.around(PageIndex::new(at))
        {
            at = folio.shape().end_index().get();
        }
        at.min(page + most)
    }

    /// How many blocks are dirty.
    pub(crate) fn dirty_blocks(&self) -> u64 {
        self.index.lock().dirty_blocks
    }

    /// Whether a folio is dirty, or tagged as if it were.
    ///
    /// Source: kernel `mapping_tagged`, of `PAGECACHE_TAG_DIRTY`.
    pub(crate) fn is_tagged(&self) -> bool {
        let index = self.index.lock();
        !index.dirty.is_empty() || !index.tagged.is_empty()
    }

    /// Whether a folio that begins in `pages` is clean, but tagged as if it were dirty.
    pub(crate) fn is_tagged_in(&self, pages: Range<PageIndex>) -> bool {
        pages.start < pages.end && self.index.lock().tagged.range(pages).next().is_some()
    }

    /// The first dirty folio that holds `from` or lies behind it, and begins before `to`. To be checked again under its lock.
    pub(crate) fn next_dirty(
        &self,
        from: PageIndex,
        to: PageIndex,
        tag: Tag,
    ) -> Option<Arc<Folio>> {
        let index = self.index.lock();
        let tagged = match tag {
            Tag::Dirty => &index.dirty,
            Tag::ToWrite => &index.to_write,
        };
        let around = index
            .around(from)
            .map(|folio| folio.shape().index())
            .filter(|first| tagged.contains(first));
        let first =
            around.or_else(|| tagged.range(from..).next().copied()).filter(|first| *first < to)?;
        index.folios.get(first).cloned()
    }

    /// Tags what is dirty now among the folios that begin in `pages` or hold their start, so that a pass over
    /// [`Tag::ToWrite`] ends however fast others dirty more.
    ///
    /// Source: kernel `tag_pages_for_writeback`.
    pub(crate) fn tag_for_write(&self, pages: Range<PageIndex>) {
        let mut index = self.index.lock();
        let Index { folios, dirty, to_write, .. } = &mut *index;
        let first = folios.around(pages.start).map_or(pages.start, |folio| folio.shape().index());
        if first < pages.end {
            to_write.extend(dirty.range(first..pages.end));
        }
    }

    /// Whether anything that touches `bytes` is dirty or being written.
    pub(crate) fn needs_writeback(&self, bytes: &Range<u64>) -> bool {
        let busy = BlockFlags::DIRTY | BlockFlags::WRITEBACK;
        let (mut at, to) = pages_of(bytes);
        while let Some(folio) = self.find_from(at, to) {
            let blocks = folio.shape().touched(&folio.shape().part_of(bytes));
            if busy.iter().any(|flag| folio.any(flag, blocks.clone())) {
                return true;
            }
            at = folio.shape().end_index();
        }
        false
    }

    /// The first of `bytes` that lies in a block with valid bytes in memory, or else the first that does not.
    ///
    /// Source: kernel `mm/filemap.c`, `mapping_seek_hole_data`.
    pub(crate) fn next_valid(&self, bytes: Range<u64>, valid: bool) -> Option<u64> {
        let (mut at, to) = (bytes.start, pages_of(&bytes).1);
        while at < bytes.end {
            let folio = self.find_from(PageIndex::holding(at), to);
            let start = folio.as_ref().map_or(bytes.end, |folio| folio.shape().start());
            if start > at && !valid {
                return Some(at);
            }
            let folio = folio?;
            let part = folio.shape().part_of(&(at..bytes.end));
            if let Some(block) = folio.first_valid(folio.shape().touched(&part), valid) {
                let first = folio.shape().bytes_of(&(block..block + 1)).start;
                return Some(at.max(start + u64_from(first)));
            }
            at = folio.shape().end();
        }
        None
    }

    /// Waits until nothing that touches `bytes` is being written, as it was when this was called.
    ///
    /// # Locks
    /// Waits for I/O: no handle, folio or map may be held.
    pub(crate) fn wait_writeback(&self, bytes: &Range<u64>) {
        let (mut at, to) = pages_of(bytes);
        loop {
            let next = {
                let index = self.index.lock();
                let first = index.folios.around(at).map_or(at, |folio| folio.shape().index());
                let first = index.writeback.range(first..).next().map(|(&first, _)| first);
                first.filter(|first| *first < to).and_then(|first| index.folios.get(first).cloned())
            };
            let Some(folio) = next else { return };
            folio.wait_writeback(folio.shape().touched(&folio.shape().part_of(bytes)));
            at = folio.shape().end_index();
        }
    }

    /// Keeps a failure of writeback, to be told once to each open file.
    pub(crate) fn record_error(&self, error: Error) {
        self.errors.lock().record(error.clone());
        self.account.record_error(error);
    }

    /// Where a file that is opened now begins to be told of failures.
    pub(crate) fn error_position(&self) -> ErrorPosition {
        self.errors.lock().position()
    }

    /// Whether data of the file was ever lost on its way to the device.
    pub(crate) fn has_failed(&self) -> bool {
        self.errors.lock().has_failed()
    }

    /// The last failure since `position`, which moves on.
    pub(crate) fn error_since(&self, position: &mut ErrorPosition) -> Option<Error> {
        let (error, news) = self.errors.lock().since(position);
        self.account.told_of_errors(news);
        error
    }

    /// Looks at some folios from where the last call stopped, and drops those that are idle and were not used again, until
    /// `bytes` are free. Returns the bytes freed, and whether it came to the end.
    pub(super) fn reclaim(self: &Arc<Self>, bytes: u64) -> (u64, bool) {
        let (batch, ended) = self.turn_hand();
        let mut freed = 0;
        for folio in batch {
            if freed >= bytes {
                self.index.lock().hand = folio.shape().index();
                return (freed, false);
            }
            freed += self.drop_if(folio, |referenced| !core::mem::take(referenced));
        }
        (freed, ended)
    }

    /// The next folios for reclaim to look at, and whether they are the last.
    fn turn_hand(&self) -> (SmallVec<[Arc<Folio>; BATCH]>, bool) {
        let mut index = self.index.lock();
        let batch: SmallVec<[_; BATCH]> =
            index.folios.from(index.hand).take(BATCH).map(Arc::clone).collect();
        let ended = batch.len() < BATCH;
        index.hand = batch
            .last()
            .filter(|_| !ended)
            .map_or(PageIndex::ZERO, |last| last.shape().end_index());
        (batch, ended)
    }

    /// Drops `folio` if it is idle and `agrees` to its referenced bit; the bytes freed.
    pub(super) fn drop_if(
        self: &Arc<Self>,
        folio: Arc<Folio>,
        agrees: impl FnOnce(&mut bool) -> bool,
    ) -> u64 {
        let shape = *folio.shape();
        let idle = |inner: &mut super::folio::Inner| {
            inner.is_idle(shape.blocks()) && agrees(&mut inner.referenced)
        };
        match LockedFolio::try_for(self, folio, idle) {
            Some(locked) => {
                locked.remove();
                u64_from(shape.bytes())
            }
            None => 0,
        }
    }

    /// Takes a folio out of the index; its lock is held.
    pub(super) fn detach(&self, folio: &Arc<Folio>) {
        let mut index = self.index.lock();
        index.tagged.remove(&folio.shape().index());
        let removed = index.folios.remove(folio.shape().index());
        drop(index);
        assert!(
            removed.is_some_and(|removed| Arc::ptr_eq(&removed, folio)),
            "{folio:?} is not in the index"
        );
    }

    /// Puts pieces of a folio in its place, which is clean and not being written; what is in no piece is dropped. The pieces are
    /// tagged if the whole is, or is to be.
    pub(super) fn replace(&self, locked: LockedFolio, pieces: &[FolioShape], tagged: bool) {
        let whole = Arc::clone(locked.folio());
        let pieces: SmallVec<[_; 8]> =
            pieces.iter().map(|piece| Arc::new(Folio::piece_of(&whole, *piece))).collect();
        let mut index = self.index.lock();
        index.folios.remove(whole.shape().index());
        if index.tagged.remove(&whole.shape().index()) || tagged {
            index.tagged.extend(pieces.iter().map(|piece| piece.shape().index()));
        }
        pieces.into_iter().for_each(|piece| index.folios.insert(piece));
        drop(index);
        // Who waits for the whole looks again when it is unlocked.
        whole.inner().attached = false;
    }

    /// Follows a change of how many blocks of a folio are dirty, and whether it is; its lock is held.
    pub(super) fn dirty_changed(&self, shape: &FolioShape, from: (u32, bool), to: (u32, bool)) {
        let ((before, was_dirty), (after, is_dirty)) = (from, to);
        let mut index = self.index.lock();
        index.dirty_blocks = index.dirty_blocks + u64::from(after) - u64::from(before);
        if is_dirty && !was_dirty {
            index.dirty.insert(shape.index());
            index.tagged.remove(&shape.index());
        } else if was_dirty && !is_dirty {
            index.dirty.remove(&shape.index());
            index.to_write.remove(&shape.index());
        }
        drop(index);
        let bytes = |blocks: u32| u64::from(blocks) * u64_from(shape.block_bytes());
        self.account.dirty.follow(bytes(before), bytes(after));
    }

    pub(super) fn writeback_begins(&self, shape: &FolioShape, bytes: u64) {
        *self.index.lock().writeback.entry(shape.index()).or_insert(0) += 1;
        self.account.writeback.add(bytes);
    }

    pub(super) fn writeback_ends(&self, shape: &FolioShape, bytes: u64) {
        let mut index = self.index.lock();
        let guards = index.writeback.get_mut(&shape.index()).expect("counted when it began");
        *guards -= 1;
        if *guards == 0 {
            index.writeback.remove(&shape.index());
        }
        drop(index);
        self.account.writeback.sub(bytes);
    }

    /// Panics if the index and the folios disagree; nobody may have a folio locked.
    pub(crate) fn check_invariants(&self) {
        let index = self.index.lock();
        let folios: alloc::vec::Vec<Arc<Folio>> =
            index.folios.from(PageIndex::ZERO).cloned().collect();
        let (dirty, to_write) = (index.dirty.clone(), index.to_write.clone());
        let (dirty_blocks, writeback) = (index.dirty_blocks, index.writeback.clone());
        drop(index);
        let mut counted = 0;
        for (n, folio) in folios.iter().enumerate() {
            let (shape, inner) = (folio.shape(), folio.inner());
            let overlaps =
                folios.get(n + 1).is_some_and(|next| next.shape().index() < shape.end_index());
            assert!(!overlaps, "{folio:?} overlaps the next");
            let blocks = inner.states.count(BlockFlags::DIRTY);
            counted += u64::from(blocks);
            assert_eq!(
                inner.is_dirty(),
                dirty.contains(&shape.index()),
                "{folio:?} in the dirty index"
            );
            let written = inner.states.any(BlockFlags::WRITEBACK, 0..shape.blocks());
            assert_eq!(
                written,
                writeback.contains_key(&shape.index()),
                "{folio:?} in the writeback index"
            );
            let clean = BlockFlags::UPTODATE;
            let invalid = inner.states.first_run(0..shape.blocks(), BlockFlags::DIRTY, clean);
            assert_eq!(invalid, None, "dirty blocks of {folio:?} have no valid bytes");
        }
        assert_eq!(dirty_blocks, counted, "counted against present dirty blocks");
        assert!(to_write.is_subset(&dirty), "what is to be written is dirty");
    }
}

impl Index {
    fn around(&self, page: PageIndex) -> Option<&Arc<Folio>> {
        self.folios.around(page)
    }

    /// Whether no folio overlaps `shape`, given that none holds the page it was made around.
    fn is_free(&self, shape: &FolioShape) -> bool {
        let is_free = || {
            self.folios
                .from(shape.index())
                .next()
                .is_none_or(|next| next.shape().index() >= shape.end_index())
                && self.around(shape.index()).is_none()
        };
        shape.bytes() == PAGE_BYTES || is_free() // one page is the one that was looked at
    }
}

/// The first page that `bytes` touch, and the one after the last.
pub(super) fn pages_of(bytes: &Range<u64>) -> (PageIndex, PageIndex) {
    let last = bytes.end.max(bytes.start).div_ceil(u64_from(PAGE_BYTES));
    (PageIndex::holding(bytes.start), PageIndex::new(last))
}

/// Folios that reclaim looks at between two looks at the index.
const BATCH: usize = 32;
/// No file has this page: 2^32 blocks of 64 KiB.
const END_OF_FILES: u64 = 1 << 36;
