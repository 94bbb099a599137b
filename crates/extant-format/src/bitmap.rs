//! Block and inode bitmaps: bit n is bit n % 8 of byte n / 8; a set bit is in use.
//!
//! Bits past the end of the slice read as set and cannot be changed, so a wrong number finds nothing free.

use core::ops::Range;

use crate::cast::{u64_from, usize_from};
use crate::crc::crc32c;
use crate::geometry::Geometry;

/// Whether bit `n` is set; also if there is no such bit.
pub fn test(bits: &[u8], n: u32) -> bool {
    bits.get(usize_from(n >> 3)).is_none_or(|byte| byte & 1 << (n & 7) != 0)
}

/// Sets every bit in `range`.
pub fn set(bits: &mut [u8], range: Range<u32>) {
    change(bits, range, |byte, mask| *byte |= mask, 0xFF);
}

/// Clears every bit in `range`.
pub fn clear(bits: &mut [u8], range: Range<u32>) {
    change(bits, range, |byte, mask| *byte &= !mask, 0);
}

/// How many of the bits in `range` are clear.
pub fn count_zeros(bits: &[u8], range: Range<u32>) -> u32 {
    let end = range.end.min(len_of(bits));
    let mut zeros = 0_u32;
    let mut at = range.start;
    while at < end {
        let (word, width) = word_at(bits, at, end);
        zeros = zeros.saturating_add(width.saturating_sub(word.count_ones()));
        at = at.saturating_add(width);
    }
    zeros
}

/// The first clear bit in `range`.
pub fn next_zero(bits: &[u8], range: Range<u32>) -> Option<u32> {
    next(bits, range, u64::MAX)
}

/// The first set bit in `range`; bits that do not exist are not found.
pub fn next_one(bits: &[u8], range: Range<u32>) -> Option<u32> {
    next(bits, range, 0)
}

/// The checksum of a block bitmap, for its descriptor.
///
/// Source: kernel `fs/ext4/bitmap.c`, `ext4_block_bitmap_csum_set`.
pub fn block_bitmap_csum(geometry: &Geometry, bits: &[u8]) -> u32 {
    csum(geometry, bits, geometry.clusters_per_group)
}

/// The checksum of an inode bitmap, for its descriptor.
///
/// Source: kernel `fs/ext4/bitmap.c`, `ext4_inode_bitmap_csum_set`.
pub fn inode_bitmap_csum(geometry: &Geometry, bits: &[u8]) -> u32 {
    csum(geometry, bits, geometry.inodes_per_group)
}

/// Fills the bitmap of a group whose inodes are not initialised: all free, the tail past the last inode set.
///
/// Source: kernel `fs/ext4/ialloc.c`, `ext4_mark_bitmap_end`.
pub fn init_inode_bitmap(geometry: &Geometry, bits: &mut [u8]) {
    bits.fill(0);
    let end = len_of(bits);
    set(bits, geometry.inodes_per_group..end);
}

fn csum(geometry: &Geometry, bits: &[u8], count: u32) -> u32 {
    crc32c(geometry.csum_seed, bits.get(..usize_from(count >> 3)).unwrap_or(bits))
}

/// Bits in the slice; bitmaps are at most one block.
fn len_of(bits: &[u8]) -> u32 {
    u32::try_from(u64_from(bits.len()) << 3).unwrap_or(!7)
}

/// Applies `edge` to the bytes of which only a part lies in `range`, and fills the others.
fn change(bits: &mut [u8], range: Range<u32>, edge: impl Fn(&mut u8, u8), fill: u8) {
    let end = range.end.min(len_of(bits));
    if range.start >= end {
        return;
    }
    let (first, last) = (usize_from(range.start >> 3), usize_from(end >> 3));
    let (head, tail) = (0xFF << (range.start & 7), !(0xFF << (end & 7)));
    if first == last {
        if let Some(byte) = bits.get_mut(first) {
            edge(byte, head & tail);
        }
        return;
    }
    if let Some(([byte], middle)) = bits.get_mut(first..last).map(|all| all.split_at_mut(1)) {
        edge(byte, head);
        middle.fill(fill);
    }
    if let Some(byte) = bits.get_mut(last) {
        edge(byte, tail);
    }
}

/// The bits from `at` on, lowest first, to the end of its aligned 64 or to `end`, and how many those are; above are zeros.
fn word_at(bits: &[u8], at: u32, end: u32) -> (u64, u32) {
    let start = usize_from(at >> 6 << 3);
    let rest = bits.get(start..).unwrap_or(&[]);
    let mut bytes = [0; 8];
    match rest.first_chunk::<8>() {
        Some(chunk) => bytes = *chunk,
        None => bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from),
    }
    let width = (at | 63).saturating_add(1).min(end).saturating_sub(at);
    let word = u64::from_le_bytes(bytes) >> (at & 63);
    let mask = if width >= 64 { u64::MAX } else { !(u64::MAX << width) };
    (word & mask, width)
}

/// The first bit of `range` that differs from `skipped`, word by word.
fn next(bits: &[u8], range: Range<u32>, skipped: u64) -> Option<u32> {
    let end = range.end.min(len_of(bits));
    let mut at = range.start;
    while at < end {
        let (word, width) = word_at(bits, at, end);
        let found = (word ^ skipped).trailing_zeros();
        if found < width {
            return at.checked_add(found);
        }
        at = at.checked_add(width)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_uninitialised_inode_bitmap_is_free_with_its_tail_set() {
        let geometry = crate::geometry::tests::with_block_bits(10);
        let mut bits = vec![0xAA; 1024];
        init_inode_bitmap(&geometry, &mut bits);
        assert_eq!(next_one(&bits, 0..8192), Some(1024));
        assert_eq!(next_zero(&bits, 1024..8192), None);
    }

    proptest! {
        #[test]
        fn ranges_agree_with_single_bits(
            bytes in prop::collection::vec(any::<u8>(), 1..40),
            a in 0..330_u32, b in 0..330_u32,
        ) {
            let range = a.min(b)..a.max(b);
            let all = u32::try_from(bytes.len() * 8).unwrap();
            let inside = range.start..range.end.min(all);
            prop_assert_eq!(next_zero(&bytes, range.clone()), inside.clone().find(|&n| !test(&bytes, n)));
            prop_assert_eq!(next_one(&bytes, range.clone()), inside.clone().find(|&n| test(&bytes, n)));
            let zeros = inside.clone().filter(|&n| !test(&bytes, n)).count();
            prop_assert_eq!(count_zeros(&bytes, range.clone()), u32::try_from(zeros).unwrap());
            let (mut on, mut off) = (bytes.clone(), bytes.clone());
            set(&mut on, range.clone());
            clear(&mut off, range.clone());
            for n in 0..all {
                prop_assert_eq!(test(&on, n), test(&bytes, n) || range.contains(&n));
                prop_assert_eq!(test(&off, n), test(&bytes, n) && !range.contains(&n));
            }
        }
    }
}
