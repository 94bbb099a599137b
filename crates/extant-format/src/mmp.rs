//! Multiple mount protection: the block by which hosts see that another one uses the file system.
//!
//! Source: kernel `fs/ext4/ext4.h`, `struct mmp_struct`; `fs/ext4/mmp.c`.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::corruption::{Corruption, Place, Rule};
use crate::crc::crc32c;
use crate::geometry::Geometry;

/// The block's bytes, by name.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the names are the format's own; the kernel's documentation explains them"
)]
pub struct RawMmp {
    pub magic: U32,
    pub sequence: U32,
    pub time: U64,
    pub node_name: [u8; 64],
    pub device_name: [u8; 32],
    pub check_interval: U16,
    pub padding1: U16,
    pub padding2: [U32; 226],
    pub checksum: U32,
}
const _: () = assert!(size_of::<RawMmp>() == 1024 && offset_of!(RawMmp, checksum) == CHECKSUM_AT);

/// What a sequence number means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MmpState {
    /// Nobody uses the file system.
    Clean,
    /// A checker runs.
    Checking,
    /// Somebody has it mounted, or had when it crashed.
    Mounted(u32),
}

impl RawMmp {
    /// A block that says that nobody uses the file system.
    pub fn clean(check_interval: u16) -> Self {
        let mut raw = Self::new_zeroed();
        raw.magic = MAGIC.into();
        raw.sequence = CLEAN.into();
        raw.check_interval = check_interval.into();
        raw
    }

    /// From the start of the block.
    ///
    /// # Errors
    /// The rule that it breaks, its checksum included.
    pub fn parse(block: &[u8], at: Place, geometry: &Geometry) -> Result<Self, Corruption> {
        let (raw, _) = Self::ref_from_prefix(block).map_err(|_| at.breaks(Rule::TooShort))?;
        at.require(raw.magic.get() == MAGIC, Rule::Magic)?;
        let summed = geometry.has_metadata_csum();
        at.require(
            !summed || raw.checksum.get() == raw.computed_checksum(geometry),
            Rule::Checksum,
        )?;
        at.require(raw.state().is_some(), Rule::MmpSequence)?;
        Ok(*raw)
    }

    /// What the sequence number means, unless it is impossible.
    pub const fn state(&self) -> Option<MmpState> {
        match self.sequence.get() {
            CLEAN => Some(MmpState::Clean),
            CHECKING => Some(MmpState::Checking),
            sequence if sequence <= MAX_SEQUENCE => Some(MmpState::Mounted(sequence)),
            _ => None,
        }
    }

    /// Sets the sequence number.
    pub fn set_state(&mut self, state: MmpState) {
        self.sequence = match state {
            MmpState::Clean => CLEAN,
            MmpState::Checking => CHECKING,
            MmpState::Mounted(sequence) => sequence,
        }
        .into();
    }

    /// Sets the checksum, if the file system has any.
    pub fn set_checksum(&mut self, geometry: &Geometry) {
        if geometry.has_metadata_csum() {
            self.checksum = self.computed_checksum(geometry).into();
        }
    }

    fn computed_checksum(&self, geometry: &Geometry) -> u32 {
        self.as_bytes()
            .first_chunk::<CHECKSUM_AT>()
            .map_or(0, |covered| crc32c(geometry.csum_seed, covered))
    }
}

/// The largest sequence number of a mount.
pub const MAX_SEQUENCE: u32 = 0xE24D_4D4F;
const MAGIC: u32 = 0x004D_4D50;
const CLEAN: u32 = 0xFF4D_4D50;
const CHECKING: u32 = 0xE24D_4D50;
const CHECKSUM_AT: usize = 1020;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_and_wrong_bytes_are_refused() {
        let geometry = crate::geometry::tests::with_block_bits(12);
        let mut raw = RawMmp::clean(5);
        for state in [MmpState::Clean, MmpState::Checking, MmpState::Mounted(7)] {
            raw.set_state(state);
            raw.set_checksum(&geometry);
            assert_eq!(
                RawMmp::parse(raw.as_bytes(), Place::Superblock, &geometry).unwrap().state(),
                Some(state)
            );
        }
        let rule = |raw: &RawMmp| {
            RawMmp::parse(raw.as_bytes(), Place::Superblock, &geometry).unwrap_err().rule
        };
        raw.time = 1.into();
        assert_eq!(rule(&raw), Rule::Checksum);
        raw.sequence = 0xF000_0000.into();
        raw.set_checksum(&geometry);
        assert_eq!(rule(&raw), Rule::MmpSequence);
        raw.magic = 0.into();
        assert_eq!(rule(&raw), Rule::Magic);
    }
}
