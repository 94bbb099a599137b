//! A clock that stands still and numbers that can be told in advance, so that the same input makes the same image.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use extant::time::{Clock, Entropy};
use extant_format::Timestamp;
use extant_format::cast::low_u32;

/// It is always this moment.
#[derive(Clone, Copy, Debug)]
pub struct StillClock(pub Timestamp);

impl Clock for StillClock {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> Timestamp {
        self.0
    }
}

/// Numbers that follow from a UUID, and from how often the image was mounted before.
#[derive(Debug)]
pub struct UuidEntropy(AtomicU64);

impl UuidEntropy {
    /// Numbers for the image of this UUID.
    pub fn new(uuid: [u8; 16], mounts: u16) -> Self {
        let both = u128::from_be_bytes(uuid);
        let halves =
            [both >> 64, both].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
        let seed = mixed(mixed(halves[0]).wrapping_add(halves[1]));
        Self(AtomicU64::new(mixed(seed.wrapping_add(mounts.into()))))
    }
}

impl Entropy for UuidEntropy {
    fn draw(&self) -> u32 {
        low_u32(mixed(self.0.fetch_add(GOLDEN, Ordering::Relaxed)) >> 32)
    }
}

/// Sixteen bytes that follow from others, by a number of what they are for; marked as a UUID made by a rule of its own
/// (RFC 9562, version 8).
pub fn derived_uuid(seed: &[u8], purpose: u64) -> [u8; 16] {
    let start =
        seed.iter().fold(purpose, |sum, byte| mixed(sum.wrapping_add(GOLDEN) ^ u64::from(*byte)));
    let halves = [mixed(start), mixed(start.wrapping_add(GOLDEN))];
    let mut uuid = [0; 16];
    for (bytes, half) in uuid.chunks_mut(8).zip(halves) {
        bytes.copy_from_slice(&half.to_be_bytes());
    }
    uuid[6] = uuid[6] & 0x0F | 0x80;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}

/// Every bit of the result depends on every bit of the number.
///
/// Source: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_uuid_and_mounts_alone() {
        let draw = |uuid, mounts| {
            let entropy = UuidEntropy::new(uuid, mounts);
            [entropy.draw(), entropy.draw()]
        };
        assert_eq!(draw([1; 16], 0), draw([1; 16], 0));
        assert_ne!(draw([1; 16], 0), draw([1; 16], 1));
        assert_ne!(draw([1; 16], 0), draw([2; 16], 0));
        let [first, second] = draw([0; 16], 0);
        assert_ne!(first, second);
    }

    #[test]
    fn derived_uuids_differ_by_purpose() {
        assert_eq!(derived_uuid(b"root", 1), derived_uuid(b"root", 1));
        assert_ne!(derived_uuid(b"root", 1), derived_uuid(b"root", 2));
        assert_eq!(derived_uuid(b"", 0)[6] >> 4, 8);
    }
}
