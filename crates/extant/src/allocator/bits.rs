//! Runs of bits in words (buddies) and in bytes (bitmap blocks).

use extant_format::cast::usize_from;

const WORD_BITS: u32 = u64::BITS;

/// The bits `from..to` of one word; `from < to <= 64`.
fn mask(from: u32, to: u32) -> u64 {
    (u64::MAX >> (WORD_BITS - (to - from))) << from
}

/// Calls `visit` with each word that the run touches and the mask of the run's bits in it.
fn for_each_word(start: u32, len: u32, mut visit: impl FnMut(usize, u64)) {
    let (mut at, end) = (start, start + len);
    while at < end {
        let base = at - at % WORD_BITS;
        let stop = end.min(base + WORD_BITS);
        visit(usize_from(at / WORD_BITS), mask(at - base, stop - base));
        at = stop;
    }
}

/// Whether bit `at` is set.
pub(super) fn is_set(words: &[u64], at: u32) -> bool {
    words[usize_from(at / WORD_BITS)] >> (at % WORD_BITS) & 1 == 1
}

/// Sets the run.
pub(super) fn set(words: &mut [u64], start: u32, len: u32) {
    for_each_word(start, len, |word, mask| words[word] |= mask);
}

/// Clears the run.
pub(super) fn clear(words: &mut [u64], start: u32, len: u32) {
    for_each_word(start, len, |word, mask| words[word] &= !mask);
}

/// How many bits of the run are set.
pub(super) fn count_set(words: &[u64], start: u32, len: u32) -> u32 {
    let mut count = 0;
    for_each_word(start, len, |word, mask| count += (words[word] & mask).count_ones());
    count
}

/// The first bit in `from..end` that is set (`wanted`) or clear, or `end`.
pub(super) fn next(words: &[u64], wanted: bool, from: u32, end: u32) -> u32 {
    let flip = if wanted { 0 } else { u64::MAX };
    let mut at = from;
    while at < end {
        let base = at - at % WORD_BITS;
        let word = (words[usize_from(at / WORD_BITS)] ^ flip) & (u64::MAX << (at - base));
        if word != 0 {
            return end.min(base + word.trailing_zeros());
        }
        at = base + WORD_BITS;
    }
    end
}

/// The words of a little-endian bitmap block; bits that the last word lacks are set.
pub(super) fn words_of(bytes: &[u8]) -> alloc::vec::Vec<u64> {
    let word = |chunk: &[u8]| {
        let mut padded = [u8::MAX; 8];
        padded[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(padded)
    };
    bytes.chunks(8).map(word).collect()
}

/// Calls `visit` with each byte that the run touches and the mask of the run's bits in it; false if the run passes the end.
fn for_each_byte(
    bytes: &mut [u8],
    start: u32,
    len: u32,
    mut visit: impl FnMut(&mut u8, u8),
) -> bool {
    let Some(end) = start.checked_add(len) else { return false };
    let Some(bytes) = bytes.get_mut(usize_from(start / 8)..usize_from(end.div_ceil(8))) else {
        return false;
    };
    let mut at = start;
    for byte in bytes.iter_mut().filter(|_| len > 0) {
        let base = at - at % 8;
        let stop = end.min(base + 8);
        visit(byte, (u8::MAX >> (8 - (stop - at))) << (at - base));
        at = stop;
    }
    true
}

/// Sets or clears a run of a bitmap block, and says how many bits changed; `None` if the run passes the end.
pub(super) fn change_bytes(bytes: &mut [u8], value: bool, start: u32, len: u32) -> Option<u32> {
    let mut changed = 0;
    let inside = for_each_byte(bytes, start, len, |byte, mask| {
        let new = if value { *byte | mask } else { *byte & !mask };
        changed += (new ^ *byte).count_ones();
        *byte = new;
    });
    inside.then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_of_bits_agree_with_single_bits(runs in proptest::collection::vec((0_u32..196, 0_u32..60, any::<bool>()), 1..12)) {
            let (mut words, mut bytes, mut model) = ([0_u64; 4], [0_u8; 32], [false; 256]);
            for (start, len, value) in runs {
                let run = usize_from(start)..usize_from(start + len);
                let changes = model[run.clone()].iter().filter(|&&bit| bit != value).count();
                model[run].fill(value);
                if value { set(&mut words, start, len) } else { clear(&mut words, start, len) }
                prop_assert_eq!(change_bytes(&mut bytes, value, start, len).map(usize_from), Some(changes));
                prop_assert_eq!(&words_of(&bytes), &words);
                for at in 0..256_u32 {
                    prop_assert_eq!(is_set(&words, at), model[usize_from(at)]);
                    let found = (at..256).find(|&i| model[usize_from(i)] == value).unwrap_or(256);
                    prop_assert_eq!(next(&words, value, at, 256), found);
                }
                let expected = model[usize_from(start)..usize_from(start + 50)].iter().filter(|&&bit| bit).count();
                prop_assert_eq!(usize_from(count_set(&words, start, 50)), expected);
            }
        }
    }

    #[test]
    fn a_run_past_the_block_changes_nothing() {
        assert_eq!(change_bytes(&mut [0; 4], true, 30, 3), None);
        assert_eq!(change_bytes(&mut [0; 4], true, u32::MAX, 3), None);
        assert_eq!(change_bytes(&mut [0; 4], true, 30, 2), Some(2));
    }
}
