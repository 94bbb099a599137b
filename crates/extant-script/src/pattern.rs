//! What a write stores: decided by a tag and the place in the file, so that each byte on a device can be traced to the
//! write that it came from; no such byte is zero.

use extant_format::cast::u64_from;

/// With this tag every kibibyte starts as a block of the journal does: where data is journaled, it has to be escaped.
pub const JOURNAL_MAGIC: u32 = 0xC03B_3998;

/// The `len` bytes from `offset` on that `tag` writes.
pub fn pattern(tag: u32, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 16);
    let start = offset & !7;
    let mut word = start;
    while bytes.len() < len + 8 {
        bytes.extend(pattern_word(tag, word).to_le_bytes());
        word += 8;
    }
    let skip = usize::try_from(offset - start).expect("at most 7");
    bytes.drain(..skip);
    bytes.truncate(len);
    bytes
}

/// The pieces of a call that moves `len` bytes from `offset` on, each with where it starts: one, unless it is so long that
/// nobody would want to have it in memory. They end where the largest folios and requests do, so that nothing is cut
/// that would be whole in one call. `None` past the largest offset.
pub(crate) fn pieces(offset: u64, len: usize) -> Option<impl Iterator<Item = (u64, usize)>> {
    let end = offset.checked_add(u64_from(len)).filter(|end| i64::try_from(*end).is_ok())?;
    let mut at = offset;
    let mut has_more = true;
    Some(std::iter::from_fn(move || {
        if !std::mem::take(&mut has_more) {
            return None;
        }
        let start = at;
        at = if end - start <= PIECE_BYTES { end } else { (start / PIECE_BYTES + 1) * PIECE_BYTES };
        has_more = at < end;
        Some((start, usize::try_from(at - start).unwrap_or(len)))
    }))
}

const PIECE_BYTES: u64 = 16 << 20;

fn pattern_word(tag: u32, offset: u64) -> u64 {
    let mut mixed = (u64::from(tag) << 40) ^ offset;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed = (mixed ^ (mixed >> 31)) | 0x0101_0101_0101_0101;
    if tag == JOURNAL_MAGIC && offset.is_multiple_of(1024) {
        mixed = (mixed >> 32 << 32) | u64::from(JOURNAL_MAGIC.swap_bytes());
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_calls_are_cut_where_requests_end() {
        let cut = |offset, len| pieces(offset, len).map(Iterator::collect::<Vec<_>>);
        assert_eq!(cut(5, 0), Some(vec![(5, 0)]));
        assert_eq!(cut(5, 16 << 20), Some(vec![(5, 16 << 20)]));
        assert_eq!(cut(5, (16 << 20) + 1), Some(vec![(5, (16 << 20) - 5), (16 << 20, 6)]));
        assert_eq!(cut(0, 40 << 20).map(|pieces| pieces.len()), Some(3));
        assert_eq!(cut(u64::MAX, 1), None);
        assert_eq!(cut(1 << 62, 1 << 62), None);
    }

    #[test]
    fn a_pattern_is_the_same_however_it_is_cut() {
        let whole = pattern(7, 3, 100);
        assert_eq!(whole[40..60], pattern(7, 43, 20));
        assert_ne!(whole, pattern(8, 3, 100));
        assert!(whole.iter().all(|byte| *byte != 0));
        assert_eq!(pattern(JOURNAL_MAGIC, 2047, 5)[1..], [0xC0, 0x3B, 0x39, 0x98]);
    }
}
