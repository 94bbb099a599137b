//! How many pages in front of one the kernel takes to be in memory.
//!
//! It walks backwards through a tree whose nodes have 64 slots, a large folio filling several. The walk begins at the slot where the
//! folio begins, wherever in it the page was, and goes on from there while the page it counts falls by one a step: so a large
//! folio right in front counts as one page, and one at the start of a node can lead the walk astray.
//!
//! Source: kernel `mm/filemap.c`, `page_cache_prev_miss`; `lib/xarray.c`, `xas_load`, `__xas_prev`.

use super::folios::FolioMap;
use super::shape::PageIndex;

/// log2 of the slots of a node.
const SLOT_BITS: u32 = 6;
const SLOTS: u64 = 1 << SLOT_BITS;

/// Where the walk is.
struct Cursor {
    /// The page that it counts.
    page: u64,
    /// log2 of the pages of a slot of the node it is in.
    bits: u32,
    /// The first page of that node.
    base: u64,
    slot: u64,
}

/// What a slot has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Slot {
    Empty,
    Folio,
    Node,
}

impl FolioMap {
    /// The pages before `page`, `most` at the most, that the kernel would count as in memory one after the other.
    pub(super) fn counted_before(&self, page: PageIndex, most: u64) -> u64 {
        let Some(last) = page.get().checked_sub(1) else { return 0 };
        let Some(folio) = self.around(PageIndex::new(last)) else { return 0 };
        let bits = level_of(folio.shape().order());
        let base = last - last % (SLOTS << bits);
        let slot = (folio.shape().index().get() - base) >> bits;
        let mut cursor = Cursor { page: last, bits, base, slot };
        let mut count = 1;
        while count < most && cursor.step_back(self) {
            count += 1;
        }
        count
    }

    /// What the slot of `1 << bits` pages from `start` on has.
    fn slot(&self, start: u64, bits: u32) -> Slot {
        let start = PageIndex::new(start);
        if let Some(folio) = self.around(start) {
            return if level_of(folio.shape().order()) < bits { Slot::Node } else { Slot::Folio };
        }
        let next = self.from(start).next().map(|folio| folio.shape().index().get());
        match next.is_some_and(|next| next - start.get() < 1 << bits) {
            true => Slot::Node,
            false => Slot::Empty,
        }
    }
}

/// log2 of the pages of the slots that a folio fills.
fn level_of(order: u32) -> u32 {
    order / SLOT_BITS * SLOT_BITS
}

impl Cursor {
    /// Goes a page back; whether there is a folio.
    fn step_back(&mut self, folios: &FolioMap) -> bool {
        self.page = self.page.wrapping_sub(1);
        if self.bits == 0 && self.slot > 0 || self.slot != self.place_in_node() {
            while self.slot == 0 {
                if self.base == 0 {
                    return false;
                }
                // Where the node lies in the one above.
                self.slot = (self.base >> (self.bits + SLOT_BITS)) % SLOTS;
                self.bits += SLOT_BITS;
                self.base -= self.base % (SLOTS << self.bits);
            }
            self.slot -= 1;
        }
        loop {
            let start = self.base + (self.slot << self.bits);
            match folios.slot(start, self.bits) {
                Slot::Empty => return false,
                Slot::Folio => return true,
                Slot::Node => {
                    self.bits -= SLOT_BITS;
                    self.base = start;
                    self.slot = self.place_in_node();
                }
            }
        }
    }

    /// The slot that the page would have in a node of this level.
    fn place_in_node(&self) -> u64 {
        (self.page >> self.bits) % SLOTS
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::super::folio::Folio;
    use super::super::shape::{BlockSize, FolioShape};
    use super::*;

    /// What is counted before a page with these folios, each a first page and an order, in memory.
    fn counted(folios: &[(u64, u32)], page: u64) -> u64 {
        let mut map = FolioMap::default();
        for &(page, order) in folios {
            let shape = FolioShape::new(PageIndex::new(page), order, BlockSize::new(12).unwrap());
            map.insert(Arc::new(Folio::new_locked(shape, Arc::default())));
        }
        map.counted_before(PageIndex::new(page), 512)
    }

    #[test]
    fn folios_of_a_page_are_counted_one_by_one() {
        let folios: alloc::vec::Vec<_> = (3..200).map(|page| (page, 0)).collect();
        assert_eq!(counted(&folios, 200), 197);
        assert_eq!(counted(&folios, 201), 0);
        assert_eq!(counted(&folios[..1], 4), 1);
        assert_eq!(counted(&[(0, 0)], 1), 1, "all there is");
    }

    #[test]
    fn a_large_folio_right_in_front_counts_as_one_page() {
        assert_eq!(counted(&[(6, 0), (7, 0), (8, 2)], 12), 3);
        assert_eq!(counted(&[(6, 0), (7, 0), (8, 2)], 11), 3, "also in its middle");
        assert_eq!(counted(&[(6, 0), (7, 0), (8, 2), (12, 0)], 13), 7, "but not further in front");
    }

    #[test]
    fn the_walk_ends_at_a_large_folio_that_a_node_begins_with() {
        assert_eq!(counted(&[(0, 2)], 4), 1);
        assert_eq!(counted(&[(0, 1)], 2), 2);
        assert_eq!(counted(&[(0, 2), (4, 0)], 5), 5);
        // The node before has a page in the slot that the walk looks at.
        assert_eq!(counted(&[(2, 0), (64, 2)], 68), 2);
        assert_eq!(counted(&[(0, 9)], 512), 1);
        assert_eq!(counted(&[(0, 6)], 64), 64, "a page a step while the slot stays the same");
    }
}
