//! The hashes that order names in an indexed directory.
//!
//! Source: kernel `fs/ext4/hash.c`, `__ext4fs_dirhash`; half MD4 and TEA are cut down from the published algorithms.

/// A name's place in a directory's order.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DirHash {
    /// The key in the index; bit 0 is clear, and the largest even number is never used.
    pub major: u32,
    /// Orders names with the same key, when a directory is read.
    pub minor: u32,
}

/// Which hash, as an index root stores it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HashVersion {
    /// The first one; keys collide often.
    Legacy,
    /// The default.
    HalfMd4,
    /// The tiny encryption algorithm.
    Tea,
    /// Of directories that are both encrypted and casefolded, with a key of their own.
    SipHash,
}

impl HashVersion {
    /// The version that a root's or superblock's byte says.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Legacy,
            1 => Self::HalfMd4,
            2 => Self::Tea,
            6 => Self::SipHash,
            _ => return None,
        })
    }

    /// The byte that says so.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Legacy => 0,
            Self::HalfMd4 => 1,
            Self::Tea => 2,
            Self::SipHash => 6,
        }
    }
}

/// How the bytes of a name become numbers: as the `char` of the machine that made the file system.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CharSign {
    /// -128 to 127.
    Signed,
    /// 0 to 255.
    Unsigned,
}

impl CharSign {
    fn widen(self, byte: u8) -> u32 {
        match self {
            Self::Signed => i32::from(byte.cast_signed()).cast_unsigned(),
            Self::Unsigned => byte.into(),
        }
    }
}

/// Hashes the names of one directory.
#[derive(Clone, Copy, Debug)]
pub enum DirHasher {
    /// All versions but [`HashVersion::SipHash`].
    Seeded {
        /// Which.
        version: HashVersion,
        /// How bytes are taken.
        sign: CharSign,
        /// The file system's seed; all zero for the constants of MD4.
        seed: [u32; 4],
    },
    /// [`HashVersion::SipHash`] with the directory's key.
    Keyed([u64; 2]),
}

impl DirHasher {
    /// The hash of a name, folded first if the directory is casefolded.
    pub fn hash(&self, name: &[u8]) -> DirHash {
        let (major, minor) = match *self {
            Self::Keyed(key) => {
                let sum = siphash(key, name);
                (crate::cast::high_u32(sum), crate::cast::low_u32(sum))
            }
            Self::Seeded { version: HashVersion::Legacy, sign, .. } => (legacy(name, sign), 0),
            Self::Seeded { version: HashVersion::HalfMd4, sign, seed } => {
                half_md4(name, sign, seed)
            }
            Self::Seeded { version: HashVersion::Tea | HashVersion::SipHash, sign, seed } => {
                tea(name, sign, seed)
            }
        };
        let major = major & !1;
        DirHash { major: if major == END { END.wrapping_sub(2) } else { major }, minor }
    }
}

/// A hash no name has: the end of a directory.
const END: u32 = 0xFFFF_FFFE;
const MD4_START: [u32; 4] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];

fn start(seed: [u32; 4]) -> [u32; 4] {
    if seed == [0; 4] { MD4_START } else { seed }
}

fn legacy(name: &[u8], sign: CharSign) -> u32 {
    let (mut last, mut before) = (0x12A3_FE2D_u32, 0x37AB_E8F9_u32);
    for &byte in name {
        let mut next = before.wrapping_add(last ^ sign.widen(byte).wrapping_mul(7_152_373));
        if next & 0x8000_0000 != 0 {
            next = next.wrapping_sub(0x7FFF_FFFF);
        }
        (before, last) = (last, next);
    }
    last << 1
}

fn half_md4(name: &[u8], sign: CharSign, seed: [u32; 4]) -> (u32, u32) {
    let mut state = start(seed);
    let mut rest = name;
    while !rest.is_empty() {
        half_md4_round(&mut state, &words::<8>(rest, sign));
        rest = rest.get(32..).unwrap_or(&[]);
    }
    let [_, major, minor, _] = state;
    (major, minor)
}

/// Three of MD4's passes, eight steps each.
fn half_md4_round(state: &mut [u32; 4], input: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let passes: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (
            |x, y, z| (x & y).wrapping_add((x ^ y) & z),
            0x5A82_7999,
            [1, 3, 5, 7, 0, 2, 4, 6],
            [3, 5, 9, 13],
        ),
        (|x, y, z| x ^ y ^ z, 0x6ED9_EBA1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in passes {
        for (which, shift) in order.iter().zip(shifts.iter().cycle()) {
            let word = input.get(*which).copied().unwrap_or(0).wrapping_add(constant);
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(word).rotate_left(*shift);
            (a, b, c, d) = (d, sum, b, c);
        }
    }
    for (to, from) in state.iter_mut().zip([a, b, c, d]) {
        *to = to.wrapping_add(from);
    }
}

fn tea(name: &[u8], sign: CharSign, seed: [u32; 4]) -> (u32, u32) {
    let [mut major, mut minor, ..] = start(seed);
    let mut rest = name;
    while !rest.is_empty() {
        let [a, b, c, d] = words::<4>(rest, sign);
        let (mut x, mut y, mut sum) = (major, minor, 0_u32);
        let mix = |n: u32, sum: u32, k: u32, l: u32| {
            (n << 4).wrapping_add(k) ^ n.wrapping_add(sum) ^ (n >> 5).wrapping_add(l)
        };
        for _ in 0..16 {
            sum = sum.wrapping_add(0x9E37_79B9);
            x = x.wrapping_add(mix(y, sum, a, b));
            y = y.wrapping_add(mix(x, sum, c, d));
        }
        (major, minor) = (major.wrapping_add(x), minor.wrapping_add(y));
        rest = rest.get(16..).unwrap_or(&[]);
    }
    (major, minor)
}

/// The first `4 * N` bytes of what is left of a name as words, high byte first, padded with its length.
fn words<const N: usize>(rest: &[u8], sign: CharSign) -> [u32; N] {
    let length = crate::cast::low_u32(crate::cast::u64_from(rest.len()));
    let pad = length.wrapping_mul(0x0101) & 0xFFFF | length.wrapping_mul(0x0101) << 16;
    let mut words = [pad; N];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        *word = bytes.iter().fold(pad, |word, &byte| sign.widen(byte).wrapping_add(word << 8));
    }
    words
}

/// SipHash with two rounds a word and four at the end.
fn siphash([k0, k1]: [u64; 2], name: &[u8]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let (words, tail) = name.as_chunks::<8>();
    for word in words {
        sip_word(&mut v, u64::from_le_bytes(*word));
    }
    let length = crate::cast::u64_from(name.len()) << 56;
    sip_word(&mut v, tail.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)) | length);
    let [_, _, c, _] = &mut v;
    *c ^= 0xFF;
    (0..4).for_each(|_| sip_round(&mut v));
    v.iter().fold(0, |sum, word| sum ^ word)
}

fn sip_word(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

fn sip_round(v: &mut [u64; 4]) {
    let [a, b, c, d] = v;
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: HashVersion, sign: CharSign, name: &[u8]) -> (u32, u32) {
        let hash = DirHasher::Seeded { version, sign, seed: [0; 4] }.hash(name);
        (hash.major, hash.minor)
    }

    #[test]
    fn the_kernels_hash_vectors() {
        use {CharSign::*, HashVersion::*};
        assert_eq!(check(Legacy, Signed, b"abc"), (0x75af_d992, 0));
        assert_eq!(check(HalfMd4, Signed, b"abc"), (0xd196_a868, 0xc420_eb28));
        assert_eq!(check(Tea, Signed, b"abc"), (0xb143_5ec4, 0x3f7e_aa0e));
        assert_eq!(check(HalfMd4, Signed, b""), (0xefcd_ab88, 0x98ba_dcfe));
        let digits = b"123456789012345678901234567890123";
        assert_eq!(check(HalfMd4, Signed, digits), (0xdc0c_2dec, 0x5ca2_3365));
        let high = [0x80, 0x81, 0x82, 0x83, 0x84];
        assert_eq!(check(HalfMd4, Signed, &high), (0x8bab_0498, 0xc326_632d));
        assert_eq!(check(HalfMd4, Unsigned, &high), (0xbc48_596e, 0xde0f_ad41));
    }

    #[test]
    fn siphash_agrees_with_its_paper() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let name: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(key, &name), 0xa129_ca61_49be_45e5);
        assert_eq!(siphash(key, b""), 0x726f_db47_dd0e_0e31);
        let hash = DirHasher::Keyed(key).hash(&name);
        assert_eq!((hash.major, hash.minor), (0xa129_ca60, 0x49be_45e5));
    }

    #[test]
    fn versions_are_stored_as_bytes() {
        for version in
            [HashVersion::Legacy, HashVersion::HalfMd4, HashVersion::Tea, HashVersion::SipHash]
        {
            assert_eq!(HashVersion::from_byte(version.byte()), Some(version));
        }
        assert_eq!(HashVersion::from_byte(3), None);
    }
}
