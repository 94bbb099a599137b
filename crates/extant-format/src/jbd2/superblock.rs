//! The journal's superblock: its 1024 bytes by name, and the checked form.
//!
//! Source: kernel `include/linux/jbd2.h`, `struct journal_superblock_s`; `fs/jbd2/journal.c`, `journal_get_superblock`.

use core::mem::offset_of;

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BlockType, JournalCompat, JournalIncompat, LogFormat, MAGIC};
use crate::corruption::{FormatError, Place, Rule, Unsupported};
use crate::crc::{self, crc32c};
use crate::numbers::TransactionId;

/// The journal superblock's bytes, by name.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the names are the format's own; the kernel's documentation explains them"
)]
pub struct RawJournalSuperblock {
    pub magic: U32,
    pub block_type: U32,
    pub header_sequence: U32,
    pub block_size: U32,
    pub max_len: U32,
    pub first: U32,
    pub sequence: U32,
    pub start: U32,
    pub errno: U32,
    pub feature_compat: U32,
    pub feature_incompat: U32,
    pub feature_ro_compat: U32,
    pub uuid: [u8; 16],
    pub nr_users: U32,
    pub dynsuper: U32,
    pub max_transaction: U32,
    pub max_trans_data: U32,
    pub checksum_type: u8,
    pub padding2: [u8; 3],
    pub num_fc_blocks: U32,
    pub head: U32,
    pub padding: [U32; 40],
    pub checksum: U32,
    pub users: [[u8; 16]; 48],
}
const _: () = assert!(
    size_of::<RawJournalSuperblock>() == 1024 && offset_of!(RawJournalSuperblock, uuid) == 0x30
);
const _: () = assert!(offset_of!(RawJournalSuperblock, checksum) == CHECKSUM_AT);
const _: () = assert!(offset_of!(RawJournalSuperblock, head) == 0x58);

impl RawJournalSuperblock {
    /// A clean, empty journal of `max_len` blocks without features.
    pub fn blank(block_size: u32, max_len: u32, uuid: [u8; 16]) -> Self {
        let mut raw = Self::new_zeroed();
        raw.magic = MAGIC.into();
        raw.block_type = BlockType::SuperblockV2.number().into();
        raw.block_size = block_size.into();
        raw.max_len = max_len.into();
        raw.first = 1.into();
        raw.sequence = 1.into();
        raw.nr_users = 1.into();
        raw.uuid = uuid;
        raw
    }

    /// Features that may be ignored.
    pub const fn compat(&self) -> JournalCompat {
        JournalCompat::from_bits_retain(self.feature_compat.get())
    }

    /// Features that a reader must know.
    pub const fn incompat(&self) -> JournalIncompat {
        JournalIncompat::from_bits_retain(self.feature_incompat.get())
    }

    /// Sets the features that a reader must know, and with them the type of checksum.
    pub fn set_incompat(&mut self, features: JournalIncompat) {
        self.feature_incompat = features.bits().into();
        if features.intersects(SUMMED) {
            self.checksum_type = CRC32C;
            self.feature_compat = self.compat().difference(JournalCompat::CHECKSUM).bits().into();
        }
    }

    /// What the checksum should be.
    pub fn computed_checksum(&self) -> u32 {
        let mut copy = *self;
        copy.checksum = 0.into();
        crc32c(crc::START, copy.as_bytes())
    }

    /// Sets the checksum, if the journal has any.
    pub fn set_checksum(&mut self) {
        if self.incompat().intersects(SUMMED) {
            self.checksum = self.computed_checksum().into();
        }
    }
}

/// A journal superblock that passed the checks which need no device; it keeps the bytes, so that it can be written back.
#[derive(Clone, Debug)]
pub struct JournalSuperblock {
    raw: RawJournalSuperblock,
    format: LogFormat,
}

impl JournalSuperblock {
    /// From the start of the journal's first block.
    ///
    /// # Errors
    /// The first rule broken or feature missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let (raw, _) =
            RawJournalSuperblock::ref_from_prefix(bytes).map_err(|_| AT.breaks(Rule::TooShort))?;
        Self::try_from(raw)
    }

    /// The fields.
    pub const fn raw(&self) -> &RawJournalSuperblock {
        &self.raw
    }

    /// Changes fields, features among them, and recomputes what depends on them.
    pub fn change(&mut self, change: impl FnOnce(&mut RawJournalSuperblock)) {
        change(&mut self.raw);
        self.format = LogFormat::of(&self.raw);
    }

    /// The bytes to write, with the checksum set.
    pub fn to_raw(&self) -> RawJournalSuperblock {
        let mut raw = self.raw;
        raw.set_checksum();
        raw
    }

    /// How the other blocks look.
    pub const fn format(&self) -> &LogFormat {
        &self.format
    }

    /// The first log block to replay; `None` if the journal is clean.
    pub fn start(&self) -> Option<u32> {
        Some(self.raw.start.get()).filter(|&start| start != 0)
    }

    /// The first transaction to be found at [`Self::start`].
    pub const fn sequence(&self) -> TransactionId {
        TransactionId(self.raw.sequence.get())
    }

    /// Blocks of the journal, from the superblock on.
    pub const fn max_len(&self) -> u32 {
        self.raw.max_len.get()
    }

    /// The first block of the log.
    pub const fn first(&self) -> u32 {
        self.raw.first.get()
    }

    /// The block after the last of the log, without the area of fast commits.
    pub fn last(&self) -> u32 {
        self.max_len().saturating_sub(self.fast_commit_blocks())
    }

    /// Blocks set aside for fast commits.
    pub fn fast_commit_blocks(&self) -> u32 {
        fast_commit_blocks(&self.raw)
    }
}

impl TryFrom<&RawJournalSuperblock> for JournalSuperblock {
    type Error = FormatError;

    fn try_from(raw: &RawJournalSuperblock) -> Result<Self, FormatError> {
        AT.require(raw.magic.get() == MAGIC, Rule::Magic)?;
        let mut raw = *raw;
        match BlockType::from_number(raw.block_type.get()) {
            Some(BlockType::SuperblockV2) => {}
            Some(BlockType::SuperblockV1) => forget_features(&mut raw),
            _ => return Err(AT.breaks(Rule::JournalType).into()),
        }
        let block_size = raw.block_size.get();
        AT.require(
            block_size.is_power_of_two() && (1024..=65536).contains(&block_size),
            Rule::BlockSize,
        )?;
        let incompat = raw.incompat();
        let missing = incompat.difference(JournalIncompat::all());
        if !missing.is_empty() || raw.feature_ro_compat.get() != 0 {
            return Err(Unsupported::JournalIncompat(missing).into());
        }
        let v1 = raw.compat().contains(JournalCompat::CHECKSUM);
        let clash = incompat.contains(SUMMED) || v1 && incompat.intersects(SUMMED);
        AT.require(!clash, Rule::JournalFeatures)?;
        if incompat.intersects(SUMMED) {
            if raw.checksum_type != CRC32C {
                return Err(Unsupported::ChecksumType(raw.checksum_type).into());
            }
            AT.require(raw.checksum.get() == raw.computed_checksum(), Rule::Checksum)?;
        }
        let (first, start) = (raw.first.get(), raw.start.get());
        AT.require(raw.max_len.get() >= MIN_LOG_BLOCKS, Rule::JournalSize)?;
        let last = raw.max_len.get().saturating_sub(fast_commit_blocks(&raw));
        AT.require(first >= 1 && first < last, Rule::JournalStart)?;
        AT.require(start == 0 || (first..last).contains(&start), Rule::JournalStart)?;
        Ok(Self { format: LogFormat::of(&raw), raw })
    }
}
/// A superblock of version 1 ends before its features.
fn forget_features(raw: &mut RawJournalSuperblock) {
    raw.feature_compat = 0.into();
    raw.feature_incompat = 0.into();
    raw.feature_ro_compat = 0.into();
}

/// Blocks set aside for fast commits; none if too short a log would be left.
fn fast_commit_blocks(raw: &RawJournalSuperblock) -> u32 {
    let wanted =
        match (raw.incompat().contains(JournalIncompat::FAST_COMMIT), raw.num_fc_blocks.get()) {
            (false, _) => 0,
            (true, 0) => DEFAULT_FAST_COMMIT_BLOCKS,
            (true, count) => count,
        };
    let left = raw.max_len.get().checked_sub(wanted);
    if left.is_some_and(|left| left >= MIN_LOG_BLOCKS) { wanted } else { 0 }
}

/// The shortest log.
pub const MIN_LOG_BLOCKS: u32 = 1024;
/// Blocks set aside for fast commits unless the superblock says otherwise.
pub const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
const CRC32C: u8 = 4;
const SUMMED: JournalIncompat = JournalIncompat::CSUM_V2.union(JournalIncompat::CSUM_V3);
const AT: Place = Place::Journal(0);
const CHECKSUM_AT: usize = 0xFC;
