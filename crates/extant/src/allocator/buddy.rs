//! A group's free clusters, as a bitmap and as the largest aligned chunks that it falls into.
//!
//! Source: kernel `fs/ext4/mballoc.c`: `ext4_mb_generate_buddy`, `mb_find_extent`, `mb_mark_used`, `mb_free_blocks`.
//! Differs: chunk maps have a set bit for a free chunk; nothing is cached that the counters already say.

use super::bits;
use alloc::boxed::Box;
use alloc::vec;
use extant_format::cast::usize_from;

/// More orders than any block size has (18 with blocks of 64 KiB).
const MAX_ORDERS: usize = 20;

/// Bitmap and chunks of one group, two blocks of memory together.
///
/// # Invariants
/// A free run is cut into chunks of `2^k` clusters, aligned to their size, each as large as possible up to the top order;
/// bit `i` of the map of order `k >= 1` is set when chunk `i` is one of them. Chunks of order 0 are clear bits of the bitmap
/// that no larger chunk covers. Clusters that the group lacks count as used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Buddy {
    used: Box<[u64]>,
    chunks: Box<[u64]>,
    counters: [u32; MAX_ORDERS],
    orders: u32,
    clusters: u32,
    free: u32,
    fragments: u32,
    /// No cluster below is free; the first free one may lie later.
    first_free: u32,
}

/// The first chunk of which an allocation took only a part.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Broken {
    /// Clusters that were still to be taken when it was reached.
    pub(super) tail: u32,
    /// Its order.
    pub(super) order: u32,
}

/// A cluster was freed that is free already: the group is corrupt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AlreadyFree;

impl Buddy {
    /// The buddy of a group of `clusters`, whose bitmap block starts with `bitmap`, for blocks of `2^block_bits` bytes.
    pub(super) fn new(bitmap: &[u8], block_bits: u32, clusters: u32) -> Self {
        let capacity = 8 << block_bits;
        let mut used = bits::words_of(bitmap);
        used.resize(usize_from(capacity / 64), u64::MAX);
        let clusters = clusters.min(capacity);
        bits::set(&mut used, clusters, capacity - clusters);
        let mut buddy = Self {
            chunks: vec![0; used.len()].into(),
            used: used.into(),
            counters: [0; MAX_ORDERS],
            orders: block_bits + 2,
            clusters,
            free: 0,
            fragments: 0,
            first_free: clusters,
        };
        buddy.build();
        buddy
    }

    fn build(&mut self) {
        let mut at = self.next_free(0);
        self.first_free = at;
        while at < self.clusters {
            let end = self.next_used(at);
            self.put(at, end - at);
            self.free += end - at;
            self.fragments += 1;
            at = self.next_free(end);
        }
    }

    /// How many orders of chunks there are.
    pub(super) fn orders(&self) -> u32 {
        self.orders
    }

    /// Clusters of the group.
    pub(super) fn clusters(&self) -> u32 {
        self.clusters
    }

    /// Free clusters.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Free runs.
    pub(super) fn fragments(&self) -> u32 {
        self.fragments
    }

    /// Free chunks of exactly this order.
    pub(super) fn counter(&self, order: u32) -> u32 {
        self.counters[usize_from(order)]
    }

    /// Where a walk over the free runs may begin.
    pub(super) fn first_free(&self) -> u32 {
        self.first_free
    }

    /// The order of the largest free chunk.
    pub(super) fn largest_free_order(&self) -> Option<u32> {
        (0..self.orders).rev().find(|&order| self.counters[usize_from(order)] != 0)
    }

    /// The class of the average free run's length.
    pub(super) fn average_order(&self) -> Option<u32> {
        Some(fragment_order(self.free.checked_div(self.fragments)?, self.orders))
    }

    /// The first free cluster from `from` on, or the number of clusters.
    pub(super) fn next_free(&self, from: u32) -> u32 {
        bits::next(&self.used, false, from, self.clusters)
    }

    /// The first used cluster from `from` on, or the number of clusters.
    pub(super) fn next_used(&self, from: u32) -> u32 {
        bits::next(&self.used, true, from, self.clusters)
    }

    /// Whether `cluster` is free.
    pub(super) fn is_free(&self, cluster: u32) -> bool {
        cluster < self.clusters && !bits::is_set(&self.used, cluster)
    }

    /// Free clusters from `start` on: whole chunks are added until there are `needed`, or a used cluster follows.
    ///
    /// So the result may exceed `needed` by nearly a chunk, and the free run may be longer still.
    pub(super) fn find_extent(&self, start: u32, needed: u32) -> u32 {
        let mut end = start;
        while self.is_free(end) && (end == start || end - start < needed) {
            let order = self.order_of(end);
            end = ((end >> order) + 1) << order;
        }
        end - start
    }

    /// The first chunk of the lowest order from `order >= 1` on, as start and order.
    pub(super) fn first_chunk(&self, order: u32) -> Option<(u32, u32)> {
        let order =
            (order.max(1)..self.orders).find(|&order| self.counters[usize_from(order)] != 0)?;
        let base = self.map_start(order);
        let end = base + (self.capacity() >> order);
        let at = bits::next(&self.chunks, true, base, end);
        (at < end).then(|| ((at - base) << order, order))
    }

    /// Takes a free run away, and says which chunk had to be broken first.
    pub(super) fn mark_used(&mut self, start: u32, len: u32) -> Broken {
        let end = start + len;
        assert!(len > 0 && self.next_used(start) >= end, "only free clusters are taken");
        let left = start > 0 && self.is_free(start - 1);
        let right = self.is_free(end);
        self.free -= len;
        self.fragments = self.fragments + u32::from(left && right) - u32::from(!left && !right);
        if self.first_free == start {
            self.first_free = end;
        }
        let mut broken = Broken::default();
        let mut at = start;
        while at < end {
            let order = self.order_of(at);
            let chunk = at >> order << order;
            let chunk_end = chunk + (1 << order);
            self.remove_chunk(chunk, order);
            if chunk < at || chunk_end > end {
                if broken == Broken::default() {
                    broken = Broken { tail: end - at, order };
                }
                self.put(chunk, at - chunk);
                self.put(end, chunk_end.saturating_sub(end));
            }
            at = chunk_end.min(end);
        }
        bits::set(&mut self.used, start, len);
        broken
    }

    /// Gives a used run back; changes nothing if any of it is free or outside the group.
    pub(super) fn release(&mut self, start: u32, len: u32) -> Result<(), AlreadyFree> {
        let end = start.checked_add(len).filter(|&end| end <= self.clusters).ok_or(AlreadyFree)?;
        if self.next_free(start).min(end) != end {
            return Err(AlreadyFree);
        }
        let left = start > 0 && self.is_free(start - 1);
        let right = self.is_free(end);
        self.free += len;
        self.fragments = self.fragments + u32::from(!left && !right) - u32::from(left && right);
        self.first_free = self.first_free.min(start);
        for (start, order) in pieces(start, len, self.orders) {
            bits::clear(&mut self.used, start, 1 << order);
            self.merge(start, order);
        }
        Ok(())
    }

    /// The order of the chunk that covers the free cluster `at`.
    fn order_of(&self, at: u32) -> u32 {
        (1..self.orders)
            .find(|&order| bits::is_set(&self.chunks, self.map_start(order) + (at >> order)))
            .unwrap_or(0)
    }

    /// Adds a chunk, joined with its neighbour as often as that is free too.
    fn merge(&mut self, mut start: u32, mut order: u32) {
        while order + 1 < self.orders {
            let other = start ^ (1 << order);
            let free = match order {
                0 => self.is_free(other),
                _ => bits::is_set(&self.chunks, self.map_start(order) + (other >> order)),
            };
            if !free {
                break;
            }
            self.remove_chunk(other, order);
            start &= other;
            order += 1;
        }
        self.add_chunk(start, order);
    }

    /// Adds a run whose chunks cannot be joined with anything.
    fn put(&mut self, start: u32, len: u32) {
        for (start, order) in pieces(start, len, self.orders) {
            self.add_chunk(start, order);
        }
    }

    fn add_chunk(&mut self, start: u32, order: u32) {
        self.counters[usize_from(order)] += 1;
        if order > 0 {
            let bit = self.map_start(order) + (start >> order);
            bits::set(&mut self.chunks, bit, 1);
        }
    }

    fn remove_chunk(&mut self, start: u32, order: u32) {
        self.counters[usize_from(order)] -= 1;
        if order > 0 {
            let bit = self.map_start(order) + (start >> order);
            bits::clear(&mut self.chunks, bit, 1);
        }
    }

    fn capacity(&self) -> u32 {
        8 << (self.orders - 2)
    }

    /// Where the map of order `order >= 1` begins: order 1 takes half of the bits, order 2 a quarter, and so on.
    fn map_start(&self, order: u32) -> u32 {
        self.capacity() - (self.capacity() >> (order - 1))
    }
}

/// The class of free runs of `len` clusters on average, among `orders` classes.
pub(super) fn fragment_order(len: u32, orders: u32) -> u32 {
    len.checked_ilog2().unwrap_or(0).saturating_sub(1).min(orders - 1)
}

/// The largest aligned chunks that a run falls into, as start and order.
fn pieces(mut start: u32, mut len: u32, orders: u32) -> impl Iterator<Item = (u32, u32)> {
    core::iter::from_fn(move || {
        let order = len.checked_ilog2()?.min(start.trailing_zeros()).min(orders - 1);
        let piece = (start, order);
        start += 1 << order;
        len -= 1 << order;
        Some(piece)
    })
}

#[cfg(test)]
#[path = "buddy_tests.rs"]
mod tests;
