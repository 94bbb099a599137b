//! Numbers as mke2fs takes them, on its command line and in its configuration.
//!
//! Source: mke2fs(8), `fs-blocks-count`; strtoul(3), base 0.

/// How much of something: blocks, or bytes if a unit says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Amount {
    /// So many blocks, of a size that is decided later.
    Blocks(u64),
    /// So many bytes.
    Bytes(u64),
}

impl Amount {
    /// A number of blocks, or of bytes with a unit: `s` for sectors of 512 bytes, `k`, `M`, `G`, `T` for powers of 1024.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (digits, scale) = match text.bytes().last()?.to_ascii_lowercase() {
            b's' => (&text[..text.len() - 1], 512),
            b'k' => (&text[..text.len() - 1], 1 << 10),
            b'm' => (&text[..text.len() - 1], 1 << 20),
            b'g' => (&text[..text.len() - 1], 1 << 30),
            b't' => (&text[..text.len() - 1], 1 << 40),
            _ => return integer(text).map(Self::Blocks),
        };
        integer(digits)?.checked_mul(scale).map(Self::Bytes)
    }

    /// Whole blocks of that size.
    pub fn blocks(self, block_size: u32) -> u64 {
        match self {
            Self::Blocks(blocks) => blocks,
            Self::Bytes(bytes) => bytes / u64::from(block_size.max(1)),
        }
    }

    /// Bytes, where a block has that size; as many as there can be if there are more.
    pub fn bytes(self, block_size: u32) -> u64 {
        match self {
            Self::Blocks(blocks) => blocks.saturating_mul(block_size.into()),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A number in decimal, in hexadecimal behind `0x`, or in octal behind `0`.
pub fn integer(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // The standard library takes a sign here, which no number has.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, radix).ok().filter(|_| is_number)
}

/// Parts of a hundred, to the millionth: what mke2fs takes as a fraction.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Percent(u32);

impl Percent {
    /// So many whole ones; `None` above 100.
    pub fn new(percent: u8) -> Option<Self> {
        (percent <= 100).then(|| Self(u32::from(percent) * MILLION))
    }

    /// A decimal number from 0 to 100; digits past the sixth behind its point count for nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u32 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let digits = fraction.bytes().chain(core::iter::repeat(b'0')).take(6);
        let millionths = digits.fold(0, |sum: u32, digit| sum * 10 + u32::from(digit - b'0'));
        let all = whole.checked_mul(MILLION)?.checked_add(millionths)?;
        (all <= 100 * MILLION).then_some(Self(all))
    }

    /// That part of `count`, rounded down.
    pub fn of(self, count: u64) -> u64 {
        let part = u128::from(count) * u128::from(self.0) / u128::from(100 * MILLION);
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

const MILLION: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_blocks_without_a_unit_and_bytes_with_one() {
        assert_eq!(Amount::parse("1000"), Some(Amount::Blocks(1000)));
        assert_eq!(Amount::parse("8s"), Some(Amount::Bytes(4096)));
        assert_eq!(Amount::parse("3K"), Some(Amount::Bytes(3072)));
        assert_eq!(Amount::parse("2T"), Some(Amount::Bytes(2 << 40)));
        assert_eq!(Amount::parse("10M").map(|amount| amount.blocks(4096)), Some(2560));
        assert_eq!(Amount::parse("10").map(|amount| amount.bytes(4096)), Some(40960));
        for wrong in ["", "k", "1.5M", "10x", "-1", "99999999999999T"] {
            assert_eq!(Amount::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn integers_have_three_bases() {
        assert_eq!([integer("010"), integer("0x1F"), integer("10")], [Some(8), Some(31), Some(10)]);
        assert_eq!(
            [integer("0"), integer("08"), integer("0x"), integer("+1")],
            [Some(0), None, None, None]
        );
    }

    #[test]
    fn percents_have_fractions() {
        assert_eq!(Percent::parse("0.5").map(|part| part.of(1000)), Some(5));
        assert_eq!(Percent::parse("5").map(|part| part.of(1001)), Some(50));
        assert_eq!(Percent::parse(".25"), Percent::parse("0.2500000000001"));
        assert_eq!(Percent::new(7), Percent::parse("7.0"));
        for wrong in ["", ".", "-1", "101", "5%", "1e1"] {
            assert_eq!(Percent::parse(wrong), None, "{wrong}");
        }
    }
}
