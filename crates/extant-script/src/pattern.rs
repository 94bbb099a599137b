//! What a write stores: decided by a tag and the place in the file, so that each byte on a device can be traced to the
//! write that it came from; no such byte is zero.

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

fn pattern_word(tag: u32, offset: u64) -> u64 {
    let mut mixed = (u64::from(tag) << 40) ^ offset;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) | 0x0101_0101_0101_0101
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_however_it_is_cut() {
        let whole = pattern(7, 3, 100);
        assert_eq!(whole[40..60], pattern(7, 43, 20));
        assert_ne!(whole, pattern(8, 3, 100));
        assert!(whole.iter().all(|byte| *byte != 0));
    }
}
