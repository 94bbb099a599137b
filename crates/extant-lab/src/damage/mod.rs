//! Damaged images: sound ones of every kind, in which live structures were changed as a seed says.
//!
//! [`Survey`] knows what lies where, [`Case`] chooses a base and harms it, and makes every checksum right again in half of
//! all cases, so that the damage gets deeper than the first check.
//!
//! # Invariants
//! The same seed and number give the same damage, whatever was damaged before.
//! # Locking
//! None.
//! # Not here
//! What is then done with the image, and what it may cost (`exercise`).
//! # Source
//! `docs/design.md`; the structures are those of `extant-format`.

mod exercise;
mod harm;
mod patch;
mod runner;
mod seal;
mod survey;
mod watch;

use std::fmt;

use extant_device::MemoryDevice;
use extant_testkit::Random;

pub use exercise::{Found, exercise, random_change};
pub use patch::patch;
pub use runner::{Failure, Run, run, try_case, work};
pub use seal::seal;
pub use survey::{Kind, Piece, Survey};
pub use watch::{LONGEST_STEP, Watch};

use crate::bases::{BASES, Base};

/// One damaged image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Case {
    /// The seed of the whole run.
    pub seed: u64,
    /// Which image of that run.
    pub number: u64,
}

impl fmt::Display for Case {
    /// The arguments that replay it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {} --only {}", self.seed, self.number)
    }
}

/// A damaged image and what was done to it.
#[derive(Debug)]
pub struct Damaged {
    /// The image.
    pub image: MemoryDevice,
    /// Base, harm, and whether checksums were made right.
    pub story: String,
    /// Goes on where the damage stopped, for what is done with the image.
    pub random: Random,
}

impl Case {
    /// The kind of image that is damaged.
    pub fn base(&self) -> Base {
        let kinds = u64::try_from(BASES.len()).expect("few");
        BASES[usize::try_from(self.number % kinds).expect("few")]
    }

    /// The damaged image; `None`, after a skip, where its base cannot be made.
    pub fn build(&self) -> Option<Damaged> {
        let base = self.base();
        let mut image = base.build()?;
        let survey = Survey::of(&image).expect("bases are sound");
        let mut random =
            Random::new(Random::new(self.seed).next_u64() ^ self.number.wrapping_mul(ODD));
        let harm = harm::harm(&mut image, &survey, &mut random);
        let sealed = random.coin();
        if sealed {
            seal(&image, &survey);
        }
        let checksums = if sealed { "; checksums made right" } else { "" };
        Some(Damaged { image, story: format!("{}: {harm}{checksums}", base.name), random })
    }
}

/// Spreads neighbouring numbers over all seeds.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_number_give_the_same_damage() {
        for number in 0..40 {
            let build = || Case { seed: 7, number }.build();
            let (Some(a), Some(b)) = (build(), build()) else { return };
            assert_eq!(a.story, b.story);
            assert_eq!(a.image.to_vec(), b.image.to_vec(), "{}", a.story);
        }
    }

    #[test]
    fn sealed_damage_passes_the_superblocks_checksum() {
        use extant_device::BlockDeviceExt;
        let sealed = (0..200).filter_map(|number| Case { seed: 3, number }.build());
        let sealed = sealed.filter(|damaged| damaged.story.ends_with("made right"));
        for damaged in sealed {
            let Ok(raw) = damaged.image.read_vec(1024, 1024) else { continue };
            let parsed = extant_format::Superblock::parse(&raw);
            let wrong =
                parsed.is_err_and(|error| error.to_string().contains("checksum does not match"));
            assert!(!wrong || damaged.story.contains("Superblock"), "{}", damaged.story);
        }
    }
}
