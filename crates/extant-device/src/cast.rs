//! The integer conversions of this crate that cannot fail but that `From` lacks.

const _: () = assert!(usize::BITS >= 32 && usize::BITS <= 64);

/// `n` as a 64-bit number; never loses bits, since addresses have at most 64.
#[expect(clippy::as_conversions, reason = "the width is asserted above")]
pub(crate) const fn u64_from(n: usize) -> u64 {
    n as u64
}

/// `n` as an index, for numbers known to lie within a buffer.
pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).expect("lies within a buffer in memory")
}
