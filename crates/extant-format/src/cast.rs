//! The few integer conversions that cannot fail but that `From` lacks.

const _: () = assert!(usize::BITS >= 32 && usize::BITS <= 64);

/// `n` as an index; never loses bits, since addresses have at least 32.
#[expect(clippy::as_conversions, reason = "the width is asserted above")]
pub const fn usize_from(n: u32) -> usize {
    n as usize
}

/// `n` as a 64-bit number; never loses bits, since addresses have at most 64.
#[expect(clippy::as_conversions, reason = "the width is asserted above")]
pub const fn u64_from(n: usize) -> u64 {
    n as u64
}

/// The low 32 bits of `n`, for formats that store a number in halves.
#[expect(clippy::as_conversions, reason = "cutting is the purpose")]
pub const fn low_u32(n: u64) -> u32 {
    (n & 0xFFFF_FFFF) as u32
}

/// The high 32 bits of `n`.
pub const fn high_u32(n: u64) -> u32 {
    low_u32(n >> 32)
}

/// The low 16 bits of `n`.
#[expect(clippy::as_conversions, reason = "cutting is the purpose")]
pub const fn low_u16(n: u32) -> u16 {
    (n & 0xFFFF) as u16
}

/// The high 16 bits of `n`.
pub const fn high_u16(n: u32) -> u16 {
    low_u16(n >> 16)
}
