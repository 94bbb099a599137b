//! Runs of bits in words.

use core::ops::Range;

/// How many bits a word has.
pub(super) const WORD: usize = 64;

/// The words that `range` touches, each with a mask of its bits in there.
fn masks(range: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    (range.start / WORD..range.end.div_ceil(WORD)).map(move |word| {
        let low = range.start.saturating_sub(word * WORD);
        let high = (range.end - word * WORD).min(WORD);
        let mask = if low < high { (u64::MAX >> (WORD - (high - low))) << low } else { 0 };
        (word, mask)
    })
}

/// Sets the bits of `range`.
pub(super) fn set(words: &mut [u64], range: Range<usize>) {
    masks(range).for_each(|(word, mask)| words[word] |= mask);
}

/// Clears the bits of `range`.
pub(super) fn clear(words: &mut [u64], range: Range<usize>) {
    masks(range).for_each(|(word, mask)| words[word] &= !mask);
}

/// How many bits of `range` are set.
pub(super) fn count(words: &[u64], range: Range<usize>) -> u32 {
    masks(range).map(|(word, mask)| (words[word] & mask).count_ones()).sum()
}

/// Whether any bit of `range` is set.
pub(super) fn any(words: &[u64], range: Range<usize>) -> bool {
    masks(range).any(|(word, mask)| words[word] & mask != 0)
}

/// Whether all bits of `range` are set.
pub(super) fn all(words: &[u64], range: Range<usize>) -> bool {
    masks(range).all(|(word, mask)| words[word] & mask == mask)
}

/// The first run of set bits in `range`, of the words that `word` computes.
pub(super) fn first_run(range: Range<usize>, word: impl Fn(usize) -> u64) -> Option<Range<usize>> {
    let start = first(range.clone(), &word)?;
    let end = first(start..range.end, |n| !word(n)).unwrap_or(range.end);
    Some(start..end)
}

/// The first set bit in `range`.
fn first(range: Range<usize>, word: impl Fn(usize) -> u64) -> Option<usize> {
    masks(range).find_map(|(n, mask)| {
        let bits = word(n) & mask;
        (bits != 0).then(|| n * WORD + usize::try_from(bits.trailing_zeros()).expect("at most 63"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_single_bits() {
        const BITS: usize = 3 * WORD;
        let edges = [0, 1, 5, 63, 64, 65, 127, 128, 150, 191, 192];
        for (i, &from) in edges.iter().enumerate() {
            for &to in &edges[i..] {
                let mut words = [0; 3];
                set(&mut words, from..to);
                let bit = |n: usize| words[n / WORD] >> (n % WORD) & 1 == 1;
                assert!((0..BITS).all(|n| bit(n) == (from..to).contains(&n)), "{from}..{to}");
                assert_eq!(count(&words, 0..BITS), u32::try_from(to - from).unwrap());
                assert_eq!(any(&words, 0..BITS), from < to);
                assert!(all(&words, from..to) && all(&words, 0..0));
                assert!(to == BITS || !all(&words, from..to + 1));
                let run = (from < to).then_some(from..to);
                assert_eq!(first_run(0..BITS, |n| words[n]), run);
                clear(&mut words, from..to);
                assert_eq!(words, [0; 3]);
            }
        }
    }
}
