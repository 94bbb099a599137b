//! Names and link targets that are encrypted, as they look to those without the key: Base64 of the stored bytes, with
//! the name's hash, and with a digest in place of what is too long.
//!
//! Source: kernel `fs/crypto/fname.c`: `fscrypt_fname_disk_to_usr`, `fscrypt_setup_filename`, `fscrypt_match_name`.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use extant_format::corruption::{Place, Rule};
use extant_format::hash::DirHash;
use sha2::{Digest, Sha256};

use super::Namespace;
use super::directory::Found;
use super::read_dir::DirCursor;
use crate::Error;
use crate::inode::Inode;

impl Namespace {
    /// How a stored name is shown.
    pub(super) fn shown_name(&self, name: &[u8]) -> Vec<u8> {
        if matches!(name, b"." | b"..") {
            return name.to_vec();
        }
        let hasher = self.hashing.hasher(self.hashing.version);
        show(name, hasher.map_or(DirHash::default(), |hasher| hasher.hash(name)))
    }

    /// The entry whose name is shown as `shown`.
    pub(super) fn find_shown(&self, dir: &Inode, shown: &[u8]) -> Result<Option<Found>, Error> {
        let Some(wanted) = decode(shown) else { return Ok(None) };
        let Some(stored) = wanted.get(HASH_BYTES..).filter(|stored| !stored.is_empty()) else {
            return Ok(None);
        };
        if stored.len() <= WHOLE_BYTES {
            return self.find_entry(dir, stored);
        }
        let mut name = None;
        self.list_entries(dir, DirCursor::default(), &mut |listed| {
            if digest(listed.name) == stored {
                name = Some(listed.name.to_vec());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        name.map_or(Ok(None), |name| self.find_entry(dir, &name))
    }

    /// How the target of an encrypted link is shown: its bytes follow their count.
    ///
    /// Source: kernel `fscrypt_get_symlink`.
    pub(super) fn shown_target(&self, inode: &Inode, stored: &[u8]) -> Result<Vec<u8>, Error> {
        let target = stored
            .split_first_chunk()
            .and_then(|(len, rest)| rest.get(..u16::from_le_bytes(*len).into()));
        let target = target.ok_or_else(|| Place::Inode(inode.number()).breaks(Rule::FileSize))?;
        Ok(show(target, DirHash::default()))
    }
}

fn show(name: &[u8], hash: DirHash) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(hash.major.to_le_bytes());
    bytes.extend(hash.minor.to_le_bytes());
    bytes.extend(digest(name));
    encode(&bytes)
}

/// The name itself, or its start and the digest of its rest.
fn digest(name: &[u8]) -> Vec<u8> {
    let (start, rest) = name.split_at(name.len().min(WHOLE_BYTES));
    let mut bytes = start.to_vec();
    if !rest.is_empty() {
        bytes.extend(Sha256::digest(rest));
    }
    bytes
}

/// Base64 with `-` and `_`, without padding.
fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte))
            << (8 * (3 - chunk.len()));
        let letters = [18, 12, 6, 0].map(|shift| ALPHABET[usize::from(low_six(word >> shift))]);
        text.extend(&letters[..=chunk.len()]);
    }
    text
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    for chunk in text.chunks(4) {
        let mut word = 0_u32;
        for letter in chunk {
            let value = ALPHABET.iter().position(|known| known == letter)?;
            word = word << 6 | u32::try_from(value).ok()?;
        }
        let spare = 6 * chunk.len() % 8;
        if chunk.len() == 1 || word & ((1 << spare) - 1) != 0 {
            return None;
        }
        let whole = (word >> spare).to_be_bytes();
        bytes.extend(&whole[4 - 6 * chunk.len() / 8..]);
    }
    Some(bytes)
}

fn low_six(word: u32) -> u8 {
    word.to_le_bytes()[0] & 0x3F
}

/// Two hashes of four bytes come first.
const HASH_BYTES: usize = 8;
/// Names up to this are shown whole.
const WHOLE_BYTES: usize = 149;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_name_is_shown_in_a_name_that_fits() {
        let shown = show(&[7; 255], DirHash { major: 2, minor: 3 });
        assert_eq!(shown.len(), 252);
        assert_eq!(decode(&shown).unwrap()[..9], [2, 0, 0, 0, 3, 0, 0, 0, 7]);
    }

    #[test]
    fn names_that_differ_at_their_end_are_shown_apart() {
        let (mut one, mut two) = ([7; 200], [7; 200]);
        (one[199], two[199]) = (1, 2);
        assert_ne!(digest(&one), digest(&two));
        assert_eq!(digest(&one)[..149], one[..149]);
        assert_eq!(digest(&one).len(), 181);
    }

    #[test]
    fn what_is_no_base64_is_no_name() {
        for text in [b"a".as_slice(), b"ab+/", b"ab==", b"aab"] {
            assert_eq!(decode(text), None);
        }
        assert_eq!(encode(&[0xFB, 0xFF]), b"-_8");
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
