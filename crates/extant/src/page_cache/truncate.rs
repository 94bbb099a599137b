//! Dropping parts of a file from memory.

use alloc::sync::Arc;
use core::ops::Range;

use super::cache::{PageCache, pages_of};
use super::locked::LockedFolio;
use super::shape::PAGE_BYTES;
use super::states::BlockFlags;

impl PageCache {
    /// Drops `bytes`, dirty or not, after waiting for their writeback: whole folios leave the file, of others the bytes read as
    /// zeros and the blocks that lie within are discarded. Zeroing the rest of an edge block on the device is the caller's.
    ///
    /// # Locks
    /// The caller holds `Inode::invalidate` for writing, so that nobody fills the range again meanwhile.
    /// # Source
    /// Kernel `mm/truncate.c`, `truncate_inode_pages_range`. Differs: a partly dropped folio is not split; it gives back the
    /// frames that are dropped whole.
    pub(crate) fn invalidate(self: &Arc<Self>, bytes: Range<u64>) {
        self.drop_range(bytes, LockedFolio::drop_part);
    }

    /// Drops `bytes`, whole blocks, dirty or not, after waiting for their writeback; who wants them reads them again.
    ///
    /// # Locks
    /// As [`Self::invalidate`].
    /// # Source
    /// Kernel `invalidate_inode_pages2_range`, and `truncate_pagecache` where collapse and insert call it.
    pub(crate) fn forget(self: &Arc<Self>, bytes: Range<u64>) {
        self.drop_range(bytes, |folio, part| folio.forget(folio.shape().touched(part)));
    }

    /// Forgets those blocks in `bytes`, whole blocks, that are neither dirty nor being written: the device has newer ones.
    ///
    /// Source: kernel `invalidate_inode_pages2_range`.
    pub(crate) fn forget_clean(self: &Arc<Self>, bytes: &Range<u64>) {
        let (mut at, to) = pages_of(bytes);
        while let Some(folio) = self.find_from(at, to) {
            let Some(locked) = self.lock(Arc::clone(&folio)) else { continue };
            at = folio.shape().end_index();
            let blocks = folio.shape().touched(&folio.shape().part_of(bytes));
            locked.forget_clean(blocks);
        }
    }

    fn drop_range(
        self: &Arc<Self>,
        bytes: Range<u64>,
        drop_part: impl Fn(&LockedFolio, &Range<usize>),
    ) {
        let (mut at, to) = pages_of(&bytes);
        while let Some(folio) = self.find_from(at, to) {
            let Some(locked) = self.lock(Arc::clone(&folio)) else { continue };
            let part = folio.shape().part_of(&bytes);
            let blocks = folio.shape().touched(&part);
            if locked.is_under_writeback(blocks.clone()) {
                drop(locked);
                folio.wait_writeback(blocks);
                continue;
            }
            at = folio.shape().end_index();
            if part.len() == folio.shape().bytes() {
                locked.remove();
            } else {
                drop_part(&locked, &part);
            }
        }
    }

    /// Drops the folios that lie in `bytes` and are idle, used or not; the bytes freed.
    pub(crate) fn drop_clean(self: &Arc<Self>, bytes: Range<u64>) -> u64 {
        let (mut at, to) = pages_of(&bytes);
        let mut freed = 0;
        while let Some(folio) = self.find_from(at, to) {
            at = folio.shape().end_index();
            if folio.shape().part_of(&bytes).len() == folio.shape().bytes() {
                freed += self.drop_if(folio, |_| true);
            }
        }
        freed
    }
}

impl LockedFolio {
    /// Drops `bytes`, of which nothing is being written.
    fn drop_part(&self, bytes: &Range<usize>) {
        self.discard(self.shape().covered(bytes));
        // In pages that go as a whole nothing is known any more, as with the kernel, whose folios are split.
        let pages = bytes.start.next_multiple_of(PAGE_BYTES)..bytes.end - bytes.end % PAGE_BYTES;
        if !pages.is_empty() {
            let blocks = self.shape().covered(&pages);
            self.folio().inner().states.clear(BlockFlags::UPTODATE, blocks);
        }
        let frame_bytes = self.shape().frame_bytes();
        for (frame, place) in self.shape().pieces(bytes.clone()) {
            if place.len() == frame_bytes {
                let dropped = self.folio().inner().frames[frame].take();
                dropped.into_iter().for_each(|frame| self.folio().account().recycle(frame));
            } else if self.folio().inner().frames[frame].is_some() {
                let start = frame * frame_bytes;
                self.zero(start + place.start..start + place.end);
            }
        }
    }
}
