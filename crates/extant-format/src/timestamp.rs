//! Time as inodes store it: 34 bits of seconds and 30 bits of nanoseconds, in a word and an optional extra word.

use crate::cast;

/// A moment, in seconds since 1970 and nanoseconds after that second.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp {
    /// Seconds since 1970; may be negative.
    pub seconds: i64,
    /// Always below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The earliest moment that an inode can store.
    pub const MIN: Self = Self { seconds: -0x8000_0000, nanoseconds: 0 };
    /// The latest second that an inode with extra words can store, in 2446.
    pub const MAX: Self = Self { seconds: 0x3_7FFF_FFFF, nanoseconds: 0 };

    /// From the two words; without the extra one only signed 32-bit seconds are known.
    ///
    /// Source: kernel `fs/ext4/ext4.h`, `ext4_decode_extra_time`. Differs: impossible nanoseconds are cut to the last.
    pub fn decode(word: u32, extra: Option<u32>) -> Self {
        let extra = extra.unwrap_or(0);
        let epoch = i64::from(extra & 3) << 32;
        Self {
            seconds: i64::from(word.cast_signed()).saturating_add(epoch),
            nanoseconds: (extra >> 2).min(999_999_999),
        }
    }

    /// Both words; seconds out of range become the nearest that fits.
    ///
    /// Source: kernel `fs/ext4/ext4.h`, `ext4_encode_extra_time` and `EXT4_INODE_SET_XTIME`.
    pub fn encode(self) -> (u32, u32) {
        let clamped = self.seconds.clamp(Self::MIN.seconds, Self::MAX.seconds);
        let word = cast::low_u32(clamped.cast_unsigned());
        let epoch = clamped.saturating_sub(i64::from(word.cast_signed())) >> 32;
        (word, cast::low_u32(epoch.cast_unsigned()) & 3 | self.nanoseconds.min(999_999_999) << 2)
    }

    /// The moment as an inode with or without extra words will give it back: no later or earlier than can be stored, and
    /// whole seconds at those ends and where no extra word is.
    ///
    /// Source: kernel `fs/inode.c`, `timestamp_truncate`.
    pub fn truncated(self, has_extra: bool) -> Self {
        let last = if has_extra { Self::MAX.seconds } else { i32::MAX.into() };
        let seconds = self.seconds.clamp(Self::MIN.seconds, last);
        let whole = !has_extra || seconds == last || seconds == Self::MIN.seconds;
        Self { seconds, nanoseconds: if whole { 0 } else { self.nanoseconds } }
    }

    /// The one word of an inode that has no extra one; seconds out of range become the nearest that fits.
    pub fn encode_short(self) -> u32 {
        cast::low_u32(self.seconds.clamp(i32::MIN.into(), i32::MAX.into()).cast_unsigned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_truncated_to_what_can_be_stored() {
        let at = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
        assert_eq!(at(5, 6).truncated(true), at(5, 6));
        assert_eq!(at(5, 6).truncated(false), at(5, 0));
        assert_eq!(at(-0x8000_0000, 5).truncated(true), Timestamp::MIN);
        assert_eq!(at(i64::MAX, 5).truncated(true), Timestamp::MAX);
        assert_eq!(at(0x1_0000_0000, 5).truncated(false), at(0x7FFF_FFFF, 0));
    }

    #[test]
    fn the_kernels_table_of_times() {
        let table: [(u32, [Option<i64>; 4]); 4] = [
            (0x8000_0000, [Some(-0x8000_0000), Some(0x8000_0000), Some(0x1_8000_0000), None]),
            (0xFFFF_FFFF, [Some(-1), Some(0xFFFF_FFFF), Some(0x1_FFFF_FFFF), None]),
            (0, [Some(0), Some(0x1_0000_0000), Some(0x2_0000_0000), Some(0x3_0000_0000)]),
            (
                0x7FFF_FFFF,
                [Some(0x7FFF_FFFF), Some(0x1_7FFF_FFFF), Some(0x2_7FFF_FFFF), Some(0x3_7FFF_FFFF)],
            ),
        ];
        for (word, row) in table {
            for (extra, seconds) in (0..).zip(row) {
                let Some(seconds) = seconds else { continue };
                let time = Timestamp { seconds, nanoseconds: 0 };
                assert_eq!(Timestamp::decode(word, Some(extra)), time);
                assert_eq!(time.encode(), (word, extra));
            }
        }
    }

    #[test]
    fn times_out_of_range_are_clamped() {
        let late = Timestamp { seconds: 1 << 40, nanoseconds: 5 };
        assert_eq!(late.encode(), (0x7FFF_FFFF, 3 | 5 << 2));
        assert_eq!(late.encode_short(), 0x7FFF_FFFF);
        assert_eq!(Timestamp { seconds: i64::MIN, nanoseconds: 0 }.encode_short(), 0x8000_0000);
    }

    proptest! {
        #[test]
        fn encode_then_decode_is_identity(seconds in -0x8000_0000_i64..=0x3_7FFF_FFFF, nanoseconds in 0..1_000_000_000_u32) {
            let time = Timestamp { seconds, nanoseconds };
            let (word, extra) = time.encode();
            prop_assert_eq!(Timestamp::decode(word, Some(extra)), time);
        }
    }
}
