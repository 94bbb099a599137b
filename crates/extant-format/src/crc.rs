//! The two checksums of the format, without final inversion, as the kernel's functions of the same name.

/// Feeds `bytes` to the raw Castagnoli CRC that stands at `seed`.
///
/// Source: kernel `include/linux/crc32c.h`, `crc32c`.
pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    #[cfg(feature = "std")]
    return !crc32c::crc32c_append(!seed, bytes);
    #[cfg(not(feature = "std"))]
    {
        let mut digest = CASTAGNOLI.digest_with_initial(seed.reverse_bits());
        digest.update(bytes);
        !digest.finalize()
    }
}

/// Feeds `bytes` to the CRC-16 (0x8005, reflected) that stands at `seed`.
///
/// Source: kernel `lib/crc/crc16.c`, `crc16`.
pub fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    let mut digest = ARC.digest_with_initial(seed.reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

/// Feeds `bytes` to the CRC-32 (0x04C11DB7, most significant bit first) that stands at `seed`.
///
/// Source: kernel `include/linux/crc32.h`, `crc32_be`.
pub fn crc32_be(seed: u32, bytes: &[u8]) -> u32 {
    let mut digest = MPEG2.digest_with_initial(seed);
    digest.update(bytes);
    digest.finalize()
}

/// A CRC32C over pieces.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Crc32c(u32);

impl Crc32c {
    /// Starts at `seed`; the format's own first seed is [`START`].
    pub const fn new(seed: u32) -> Self {
        Self(seed)
    }

    /// Goes on over `bytes`.
    pub fn update(self, bytes: &[u8]) -> Self {
        Self(crc32c(self.0, bytes))
    }

    /// The sum so far.
    pub const fn finish(self) -> u32 {
        self.0
    }
}

/// Where a sum starts that has no seed of its own.
pub const START: u32 = u32::MAX;

#[cfg(not(feature = "std"))]
static CASTAGNOLI: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);
static MPEG2: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_MPEG_2);
static ARC: crc::Crc<u16, crc::Table<1>> = crc::Crc::<u16, crc::Table<1>>::new(&crc::CRC_16_ARC);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_raw_and_continues() {
        assert_eq!(!crc32c(START, b"123456789"), 0xE306_9283);
        assert_eq!(
            Crc32c::new(START).update(b"1234").update(b"56789").finish(),
            crc32c(START, b"123456789")
        );
        assert_eq!(crc32c(7, b""), 7);
    }

    #[test]
    fn crc32_be_is_not_reflected() {
        assert_eq!(crc32_be(START, b"123456789"), 0x0376_E6E7);
        assert_eq!(crc32_be(crc32_be(START, b"1234"), b"56789"), crc32_be(START, b"123456789"));
    }

    #[test]
    fn crc16_is_reflected_without_inversion() {
        assert_eq!(crc16(0, b"123456789"), 0xBB3D);
        assert_eq!(crc16(0xFFFF, b"123456789"), 0x4B37);
        assert_eq!(crc16(crc16(0xFFFF, b"1234"), b"56789"), 0x4B37);
    }
}
