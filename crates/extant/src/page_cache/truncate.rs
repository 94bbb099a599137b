//! Dropping parts of a file from memory.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use extant_format::cast::u64_from;

use super::cache::{PageCache, pages_of};
use super::folio::Folio;
use super::locked::LockedFolio;
use super::shape::{FolioShape, PageIndex};
use super::states::BlockFlags;

impl PageCache {
    /// Drops `bytes`, dirty or not, after waiting for their writeback: whole folios leave the file, of others the bytes read as
    /// zeros and the blocks that lie within are discarded. Zeroing the rest of an edge block on the device is the caller's.
    /// What is cut off folios that know of their blocks is `told`.
    ///
    /// A folio of several pages that loses a part and has nothing dirty forgets where its blocks are, and splits: so what
    /// was dropped takes no memory. Where the last dirty blocks of a folio go, the pieces stay tagged, and a folio that is not
    /// split is looked at once more by the next pass, as in the kernel. Pieces behind `size`, the end of the file, go too.
    ///
    /// # Locks
    /// The caller holds `Inode::invalidate` for writing, so that nobody fills the range again meanwhile.
    /// # Source
    /// Kernel `mm/truncate.c`, `truncate_inode_pages_range`, `truncate_inode_partial_folio`.
    pub(crate) fn invalidate(
        self: &Arc<Self>,
        bytes: Range<u64>,
        size: u64,
        told: impl FnMut(&FolioShape, Range<usize>),
    ) {
        self.invalidate_beside(bytes, size, || {}, told);
    }

    /// The same for one who has something under way, which has to end `before_waiting` for writeback. Whole folios that need not be
    /// waited for go first, then the parts of those at the ends.
    pub(crate) fn invalidate_beside(
        self: &Arc<Self>,
        bytes: Range<u64>,
        size: u64,
        mut before_waiting: impl FnMut(),
        mut told: impl FnMut(&FolioShape, Range<usize>),
    ) {
        let Some(last) = bytes.end.checked_sub(1).filter(|last| *last >= bytes.start) else {
            return;
        };
        let (from, to) = pages_of(&bytes);
        for waits in [false, true] {
            if waits {
                let last = PageIndex::holding(last);
                let is_one = self.find(from).is_some_and(|folio| folio.shape().holds(last));
                for page in [from, last].into_iter().take(if is_one { 1 } else { 2 }) {
                    while let Some(folio) = self.find(page)
                        && !self.drop_from(
                            folio,
                            (&bytes, size),
                            Some(&mut before_waiting),
                            &mut told,
                        )
                    {}
                }
            }
            let mut at = from;
            while let Some(folio) = self.find_from(at, to) {
                let shape = *folio.shape();
                let is_whole = shape.part_of(&bytes).len() == shape.bytes();
                let wait: Option<&mut dyn FnMut()> =
                    if waits { Some(&mut before_waiting) } else { None };
                if !is_whole || self.drop_from(folio, (&bytes, size), wait, &mut told) {
                    at = shape.end_index();
                }
            }
        }
    }

    /// Drops what `folio` has of `bytes`, unless it is being written: then with `before_waiting` it waits for that, else it leaves
    /// the folio. `false` if the folio has to be looked for again.
    fn drop_from(
        self: &Arc<Self>,
        folio: Arc<Folio>,
        (bytes, size): (&Range<u64>, u64),
        before_waiting: Option<&mut dyn FnMut()>,
        told: &mut impl FnMut(&FolioShape, Range<usize>),
    ) -> bool {
        let Some(locked) = self.lock(Arc::clone(&folio)) else { return false };
        let shape = *folio.shape();
        let blocks = 0..shape.blocks();
        if locked.is_under_writeback(blocks.clone()) {
            drop(locked);
            let Some(before_waiting) = before_waiting else { return true };
            before_waiting();
            folio.wait_writeback(blocks);
            return false;
        }
        let part = shape.part_of(bytes);
        if locked.knows_blocks() {
            told(&shape, part.clone());
        }
        if part.len() == shape.bytes() {
            locked.remove();
            return true;
        }
        let was_dirty = locked.any(BlockFlags::DIRTY, blocks.clone());
        locked.drop_part(&part);
        if locked.any(BlockFlags::DIRTY, blocks) {
            return true;
        }
        if shape.order() > shape.min_order() {
            locked.forget_places();
            self.split(locked, &part, size, was_dirty);
        } else if was_dirty {
            locked.note_emptied();
        }
        true
    }

    /// Drops the folios that touch `bytes` and are clean: the device has newer ones. Of others the clean blocks within are
    /// forgotten.
    ///
    /// Source: kernel `invalidate_inode_pages2_range`.
    pub(crate) fn forget_clean(self: &Arc<Self>, bytes: &Range<u64>) {
        let (mut at, to) = pages_of(bytes);
        while let Some(folio) = self.find_from(at, to) {
            let Some(locked) = self.lock(Arc::clone(&folio)) else { continue };
            at = folio.shape().end_index();
            let all = 0..folio.shape().blocks();
            let busy = BlockFlags::DIRTY | BlockFlags::WRITEBACK;
            if busy.iter().any(|flag| locked.any(flag, all.clone())) {
                locked.forget_clean(folio.shape().touched(&folio.shape().part_of(bytes)));
            } else {
                locked.remove();
            }
        }
    }

    /// Puts smaller folios in the place of a clean one, without those that lie in `dropped` or behind `size` as a whole: cut at the page where
    /// that starts, and at the one where it ends, each in as few pieces as alignment allows. They are tagged
    /// if the whole is, or is to be.
    ///
    /// Source: kernel `mm/huge_memory.c`, `folio_split`.
    fn split(
        self: &Arc<Self>,
        locked: LockedFolio,
        dropped: &Range<usize>,
        size: u64,
        tagged: bool,
    ) {
        let shape = *locked.shape();
        let page = |offset: usize| PageIndex::holding(shape.start() + u64_from(offset));
        let mut pieces = Vec::new();
        shape.cut_around(page(dropped.start), &mut pieces);
        if dropped.end < shape.bytes()
            && let Some(at) = pieces.iter().position(|piece| piece.holds(page(dropped.end)))
        {
            let piece = pieces.remove(at);
            piece.cut_around(page(dropped.end), &mut pieces);
        }
        let dropped =
            shape.start() + u64_from(dropped.start)..shape.start() + u64_from(dropped.end);
        pieces
            .retain(|piece| piece.part_of(&dropped).len() < piece.bytes() && piece.start() < size);
        self.replace(locked, &pieces, tagged);
    }

    /// Drops the folios that end in `bytes` and are idle, used or not; the bytes freed.
    pub(crate) fn drop_clean(self: &Arc<Self>, bytes: Range<u64>) -> u64 {
        let (mut at, to) = pages_of(&bytes);
        let mut freed = 0;
        while let Some(folio) = self.find_from(at, to) {
            at = folio.shape().end_index();
            if folio.shape().end() <= bytes.end {
                freed += self.drop_if(folio, |_| true);
            }
        }
        freed
    }
}

impl LockedFolio {
    /// Zeroes `bytes`, of which nothing is being written, and discards the blocks that lie within.
    fn drop_part(&self, bytes: &Range<usize>) {
        self.discard(self.shape().covered(bytes));
        for (frame, place) in self.shape().pieces(bytes.clone()) {
            if self.folio().inner().frames[frame].is_some() {
                let start = frame * self.shape().frame_bytes();
                self.zero(start + place.start..start + place.end);
            }
        }
    }
}
