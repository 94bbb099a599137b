//! The journal's blocks: superblock, descriptors with their tags, revokes, commits, and their checksums.
//!
//! All numbers are big-endian. [`LogFormat`] is what the superblock's features say about the other blocks; writers fill
//! a block in place, readers are iterators over one.
//!
//! Source: kernel `include/linux/jbd2.h`; `fs/jbd2/journal.c` (superblock), `commit.c` (writing), `recovery.c` (reading).

use core::mem::offset_of;

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{array_at, put};
use crate::cast::{high_u32, low_u16, low_u32, usize_from};
use crate::corruption::{Corruption, FormatError, Place, Rule, Unsupported};
use crate::crc::{self, Crc32c, crc32c};
use crate::features::features;
use crate::numbers::{PhysicalBlock, TransactionId};

features! {
    /// Features of a journal that may be ignored.
    JournalCompat, "C":
    CHECKSUM = 0x1 "journal_checksum";
}

features! {
    /// Features of a journal that its reader must know.
    JournalIncompat, "I":
    REVOKE = 0x1 "journal_incompat_revoke";
    BIT64 = 0x2 "journal_64bit";
    ASYNC_COMMIT = 0x4 "journal_async_commit";
    CSUM_V2 = 0x8 "journal_checksum_v2";
    CSUM_V3 = 0x10 "journal_checksum_v3";
    FAST_COMMIT = 0x20 "fast_commit";
}

/// What a block of the log is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockType {
    /// Tags of the blocks that follow it.
    Descriptor,
    /// End of a transaction.
    Commit,
    /// Superblock without features.
    SuperblockV1,
    /// Superblock.
    SuperblockV2,
    /// Blocks whose older copies must not be replayed.
    Revoke,
}

impl BlockType {
    const fn number(self) -> u32 {
        match self {
            Self::Descriptor => 1,
            Self::Commit => 2,
            Self::SuperblockV1 => 3,
            Self::SuperblockV2 => 4,
            Self::Revoke => 5,
        }
    }

    const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Descriptor,
            2 => Self::Commit,
            3 => Self::SuperblockV1,
            4 => Self::SuperblockV2,
            5 => Self::Revoke,
            _ => return None,
        })
    }
}

/// The header that every block of the log but data has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JournalHeader {
    /// What the block is; `None` if the number means nothing.
    pub block_type: Option<BlockType>,
    /// The transaction that it belongs to.
    pub sequence: TransactionId,
}

impl JournalHeader {
    /// The header of a block, or `None` if it has none, which is where a log ends.
    pub fn parse(block: &[u8]) -> Option<Self> {
        let (raw, _) = RawHeader::ref_from_prefix(block).ok()?;
        (raw.magic.get() == MAGIC).then(|| Self {
            block_type: BlockType::from_number(raw.block_type.get()),
            sequence: TransactionId(raw.sequence.get()),
        })
    }

    fn write(block: &mut [u8], block_type: BlockType, sequence: TransactionId) {
        let raw = RawHeader {
            magic: MAGIC.into(),
            block_type: block_type.number().into(),
            sequence: sequence.get().into(),
        };
        put(block, 0, raw.as_bytes());
    }
}

#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    block_type: U32,
    sequence: U32,
}
const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

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
        let last = raw.max_len.get().checked_sub(fast_commit_blocks(&raw));
        let last =
            last.filter(|&last| last >= MIN_LOG_BLOCKS).ok_or(AT.breaks(Rule::JournalSize))?;
        AT.require(first >= 1 && first < last, Rule::JournalStart)?;
        AT.require(start == 0 || (first..last).contains(&start), Rule::JournalStart)?;
        Ok(Self { format: LogFormat::of(&raw), raw })
    }
}

/// How checksums are stored in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogChecksum {
    /// None.
    None,
    /// One a transaction, in its commit block; old.
    V1,
    /// In every block and, cut to 16 bits, in every tag.
    V2,
    /// In every block and every tag.
    V3,
}

/// What the superblock's features say about the blocks of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogFormat {
    /// Bytes in a block.
    pub block_size: u32,
    /// Whether block numbers have 64 bits.
    pub wide: bool,
    /// How checksums are stored.
    pub checksum: LogChecksum,
    /// Seed of the checksums of versions 2 and 3.
    pub seed: u32,
    /// The journal's UUID.
    pub uuid: [u8; 16],
}

impl LogFormat {
    fn of(raw: &RawJournalSuperblock) -> Self {
        let incompat = raw.incompat();
        let checksum = match () {
            () if incompat.contains(JournalIncompat::CSUM_V3) => LogChecksum::V3,
            () if incompat.contains(JournalIncompat::CSUM_V2) => LogChecksum::V2,
            () if raw.compat().contains(JournalCompat::CHECKSUM) => LogChecksum::V1,
            () => LogChecksum::None,
        };
        let seed = crc32c(crc::START, &raw.uuid);
        let wide = incompat.contains(JournalIncompat::BIT64);
        Self { block_size: raw.block_size.get(), wide, checksum, seed, uuid: raw.uuid }
    }

    /// Whether blocks carry checksums of version 2 or 3.
    pub const fn is_summed(&self) -> bool {
        matches!(self.checksum, LogChecksum::V2 | LogChecksum::V3)
    }

    /// Bytes from one tag to the next.
    pub const fn tag_bytes(&self) -> usize {
        match (self.checksum, self.wide) {
            (LogChecksum::V3, _) => 16,
            (LogChecksum::V2, true) => 14,
            (LogChecksum::V2, false) => 10,
            (_, true) => 12,
            (_, false) => 8,
        }
    }

    /// Tags that surely fit a descriptor.
    ///
    /// Source: kernel `fs/jbd2/journal.c`, `jbd2_journal_init_transaction_limits`.
    pub fn tags_per_block(&self) -> u32 {
        let room = usize_from(self.block_size)
            .saturating_sub(HEADER_BYTES.saturating_add(UUID_BYTES.saturating_mul(2)));
        let tags = room.saturating_sub(self.tail_bytes()).checked_div(self.tag_bytes());
        tags.and_then(|tags| u32::try_from(tags).ok()).unwrap_or(0)
    }

    /// Block numbers that fit a revoke block.
    pub fn revokes_per_block(&self) -> u32 {
        let room = usize_from(self.block_size)
            .saturating_sub(self.tail_bytes())
            .saturating_sub(REVOKE_HEADER_BYTES);
        let count = room.checked_div(self.revoke_bytes());
        count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
    }

    /// The checksum of a data block for its tag: of the bytes as they are in the log, after escaping.
    pub fn tag_checksum(&self, tid: TransactionId, block: &[u8]) -> u32 {
        Crc32c::new(self.seed).update(&tid.get().to_be_bytes()).update(block).finish()
    }

    /// Whether a tag's checksum is that of `block`, as far as tags can hold it; always without checksums.
    pub fn tag_matches(&self, tag: &Tag, tid: TransactionId, block: &[u8]) -> bool {
        match self.checksum {
            LogChecksum::V3 => tag.checksum == self.tag_checksum(tid, block),
            LogChecksum::V2 => tag.checksum == u32::from(low_u16(self.tag_checksum(tid, block))),
            LogChecksum::None | LogChecksum::V1 => true,
        }
    }

    /// Whether the tail of a descriptor or revoke block is right; always without checksums.
    pub fn verify_tail(&self, block: &[u8]) -> bool {
        if !self.is_summed() {
            return true;
        }
        block
            .split_last_chunk::<4>()
            .is_some_and(|(covered, &tail)| u32::from_be_bytes(tail) == self.tail_sum(covered))
    }

    fn set_tail(&self, block: &mut [u8]) {
        if self.is_summed()
            && let Some((covered, tail)) = block.split_last_chunk_mut::<4>()
        {
            *tail = self.tail_sum(covered).to_be_bytes();
        }
    }

    fn tail_sum(&self, covered: &[u8]) -> u32 {
        Crc32c::new(self.seed).update(covered).update(&[0; 4]).finish()
    }

    const fn tail_bytes(&self) -> usize {
        if self.is_summed() { 4 } else { 0 }
    }

    const fn revoke_bytes(&self) -> usize {
        if self.wide { 8 } else { 4 }
    }
}

bitflags::bitflags! {
    /// What a tag says beside its block's number.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct TagFlags: u16 {
        /// The copy's first four bytes were the magic number and are written as zeros.
        const ESCAPE = 1;
        /// No UUID follows.
        const SAME_UUID = 2;
        /// Unused.
        const DELETED = 4;
        /// The last tag of its descriptor.
        const LAST_TAG = 8;
    }
}

/// One tag of a descriptor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tag {
    /// The home of the block.
    pub block: PhysicalBlock,
    /// Whether it is escaped, and what follows.
    pub flags: TagFlags,
    /// The checksum, cut to 16 bits in version 2; 0 without.
    pub checksum: u32,
}

/// Fills a descriptor block.
#[derive(Debug)]
pub struct DescriptorWriter<'a> {
    block: &'a mut [u8],
    format: LogFormat,
    at: usize,
    last: Option<usize>,
}

impl<'a> DescriptorWriter<'a> {
    /// Starts a descriptor of transaction `tid` in `block`.
    pub fn new(block: &'a mut [u8], format: LogFormat, tid: TransactionId) -> Self {
        block.fill(0);
        JournalHeader::write(block, BlockType::Descriptor, tid);
        Self { block, format, at: HEADER_BYTES, last: None }
    }

    /// Whether another tag fits.
    pub fn has_room(&self) -> bool {
        let needed = self
            .format
            .tag_bytes()
            .saturating_add(UUID_BYTES)
            .saturating_add(self.format.tail_bytes());
        self.block.len().saturating_sub(self.at) >= needed
    }

    /// Adds a tag; there must be room. The checksum is that of [`LogFormat::tag_checksum`].
    pub fn push(&mut self, block: PhysicalBlock, escaped: bool, checksum: u32) {
        assert!(self.has_room(), "descriptor is full");
        let mut flags = TagFlags::empty();
        flags.set(TagFlags::ESCAPE, escaped);
        flags.set(TagFlags::SAME_UUID, self.last.is_some());
        let at = self.at;
        let mut field =
            |offset: usize, value: &[u8]| _ = put(self.block, at.saturating_add(offset), value);
        field(0, &low_u32(block.get()).to_be_bytes());
        field(6, &flags.bits().to_be_bytes());
        if self.format.wide {
            field(8, &high_u32(block.get()).to_be_bytes());
        }
        match self.format.checksum {
            LogChecksum::V3 => field(12, &checksum.to_be_bytes()),
            LogChecksum::V2 => field(4, &low_u16(checksum).to_be_bytes()),
            LogChecksum::None | LogChecksum::V1 => {}
        }
        let mut next = at.saturating_add(self.format.tag_bytes());
        if self.last.is_none() {
            put(self.block, next, &self.format.uuid);
            next = next.saturating_add(UUID_BYTES);
        }
        self.last = Some(at);
        self.at = next;
    }

    /// Marks the last tag and sets the checksum.
    pub fn finish(self) {
        if let Some(flags_at) = self.last.and_then(|at| at.checked_add(6)) {
            let flags = array_at(self.block, flags_at).map_or(0, u16::from_be_bytes)
                | TagFlags::LAST_TAG.bits();
            put(self.block, flags_at, &flags.to_be_bytes());
        }
        self.format.set_tail(self.block);
    }
}

/// The tags of a descriptor block, in order.
#[derive(Clone, Debug)]
pub struct DescriptorTags<'a> {
    block: &'a [u8],
    format: LogFormat,
    at: usize,
}

impl<'a> DescriptorTags<'a> {
    /// Of a block whose header says that it is a descriptor.
    pub fn new(block: &'a [u8], format: LogFormat) -> Self {
        let end = block.len().saturating_sub(format.tail_bytes());
        Self { block: block.get(..end).unwrap_or_default(), format, at: HEADER_BYTES }
    }
}

impl Iterator for DescriptorTags<'_> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        let raw = self.block.get(self.at..)?.get(..self.format.tag_bytes())?;
        let be32 = |at| array_at(raw, at).map(u32::from_be_bytes);
        let be16 = |at| array_at(raw, at).map(u16::from_be_bytes);
        let high = if self.format.wide { be32(8)? } else { 0 };
        let flags = TagFlags::from_bits_retain(be16(6)?);
        let checksum = match self.format.checksum {
            LogChecksum::V3 => be32(12)?,
            LogChecksum::V2 => be16(4)?.into(),
            LogChecksum::None | LogChecksum::V1 => 0,
        };
        let uuid = if flags.contains(TagFlags::SAME_UUID) { 0 } else { UUID_BYTES };
        self.at = self.at.saturating_add(raw.len()).saturating_add(uuid);
        if flags.contains(TagFlags::LAST_TAG) {
            self.at = self.block.len();
        }
        let block = PhysicalBlock::new(u64::from(high) << 32 | u64::from(be32(0)?));
        Some(Tag { block, flags, checksum })
    }
}

/// Fills a revoke block.
#[derive(Debug)]
pub struct RevokeWriter<'a> {
    block: &'a mut [u8],
    format: LogFormat,
    at: usize,
}

impl<'a> RevokeWriter<'a> {
    /// Starts a revoke block of transaction `tid` in `block`.
    pub fn new(block: &'a mut [u8], format: LogFormat, tid: TransactionId) -> Self {
        block.fill(0);
        JournalHeader::write(block, BlockType::Revoke, tid);
        Self { block, format, at: REVOKE_HEADER_BYTES }
    }

    /// Adds a block; `false`, and nothing changed, if it does not fit.
    #[must_use]
    pub fn push(&mut self, block: PhysicalBlock) -> bool {
        let next = self.at.saturating_add(self.format.revoke_bytes());
        if next > self.block.len().saturating_sub(self.format.tail_bytes()) {
            return false;
        }
        if self.format.wide {
            put(self.block, self.at, &block.get().to_be_bytes());
        } else {
            put(self.block, self.at, &low_u32(block.get()).to_be_bytes());
        }
        self.at = next;
        true
    }

    /// Sets count and checksum.
    pub fn finish(self) {
        let count = u32::try_from(self.at).expect("a block has at most 2^16 bytes");
        put(self.block, HEADER_BYTES, &count.to_be_bytes());
        self.format.set_tail(self.block);
    }
}

/// The blocks that a revoke block revokes.
///
/// # Errors
/// Its count is impossible; `log_block` says where.
pub fn revoked_blocks(
    block: &[u8],
    format: LogFormat,
    log_block: u32,
) -> Result<impl Iterator<Item = PhysicalBlock> + '_, Corruption> {
    let bad = Place::Journal(log_block).breaks(Rule::RevokeCount);
    let count = array_at(block, HEADER_BYTES).map(u32::from_be_bytes).ok_or(bad)?;
    let room = block.len().saturating_sub(format.tail_bytes());
    let used = block
        .get(..room)
        .and_then(|room| room.get(REVOKE_HEADER_BYTES..usize_from(count)))
        .ok_or(bad)?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    Ok(used.chunks_exact(format.revoke_bytes()).map(move |bytes| PhysicalBlock::new(number(bytes))))
}

/// What a commit block says, beside its transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CommitBlock {
    /// When, in seconds since 1970; never goes back within a journal's life.
    pub seconds: u64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// What a commit block's checksum says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CommitChecksum {
    /// It is right, or there is none.
    Right,
    /// It is right if everything after the header of the commit block is taken as zero; accepted.
    Partial,
    /// It is wrong.
    Wrong,
}

impl CommitBlock {
    /// Fills `block` with the end of transaction `tid`.
    pub fn write(self, block: &mut [u8], format: &LogFormat, tid: TransactionId) {
        block.fill(0);
        JournalHeader::write(block, BlockType::Commit, tid);
        put(block, COMMIT_SECONDS_AT, &self.seconds.to_be_bytes());
        put(block, COMMIT_NANOSECONDS_AT, &self.nanoseconds.to_be_bytes());
        if format.is_summed() {
            let sum = crc32c(format.seed, block);
            put(block, COMMIT_CHECKSUM_AT, &sum.to_be_bytes());
        }
    }

    /// The time in a commit block; `None` if the block is too short for one.
    pub fn parse(block: &[u8]) -> Option<Self> {
        Some(Self {
            seconds: array_at(block, COMMIT_SECONDS_AT).map(u64::from_be_bytes)?,
            nanoseconds: array_at(block, COMMIT_NANOSECONDS_AT).map(u32::from_be_bytes)?,
        })
    }

    /// Sets the checksum of version 1: [`crc32_be`](crc::crc32_be) over all descriptors and data of the transaction.
    pub fn set_v1(block: &mut [u8], sum: u32) {
        put(block, HEADER_BYTES, &[V1_CRC32, V1_SIZE]);
        put(block, COMMIT_CHECKSUM_AT, &sum.to_be_bytes());
    }

    /// Whether the checksum of version 1 is `sum`, or was left out.
    pub fn verify_v1(block: &[u8], sum: u32) -> bool {
        let stored = array_at(block, COMMIT_CHECKSUM_AT).map(u32::from_be_bytes);
        match (array_at(block, HEADER_BYTES), stored) {
            (Some([V1_CRC32, V1_SIZE]), Some(stored)) => stored == sum,
            (Some([0, 0]), Some(stored)) => stored == 0,
            _ => false,
        }
    }

    /// What the checksum of a commit block says.
    ///
    /// Source: kernel `fs/jbd2/recovery.c`, `jbd2_commit_block_csum_verify` and `.._partial`.
    pub fn verify(block: &[u8], format: &LogFormat) -> CommitChecksum {
        if !format.is_summed() {
            return CommitChecksum::Right;
        }
        let Some((header, rest)) = block.split_at_checked(COMMIT_HEADER_BYTES) else {
            return CommitChecksum::Wrong;
        };
        let stored = array_at(header, COMMIT_CHECKSUM_AT).map_or(0, u32::from_be_bytes);
        let mut copy = [0; COMMIT_HEADER_BYTES];
        copy.copy_from_slice(header);
        put(&mut copy, COMMIT_CHECKSUM_AT, &[0; 4]);
        let sum = Crc32c::new(format.seed).update(&copy);
        if stored == sum.update(rest).finish() {
            return CommitChecksum::Right;
        }
        let zeroed = rest
            .chunks(ZEROS.len())
            .fold(sum, |sum, chunk| sum.update(ZEROS.get(..chunk.len()).unwrap_or(&ZEROS)));
        if stored == zeroed.finish() { CommitChecksum::Partial } else { CommitChecksum::Wrong }
    }
}

/// Whether a block must be escaped to be written to the log as data.
pub fn needs_escape(block: &[u8]) -> bool {
    array_at(block, 0).map(u32::from_be_bytes) == Some(MAGIC)
}

/// Escapes a block: its first four bytes, which are the magic number, become zeros.
pub fn escape(block: &mut [u8]) {
    put(block, 0, &[0; 4]);
}

/// Undoes [`escape`].
pub fn unescape(block: &mut [u8]) {
    put(block, 0, &MAGIC.to_be_bytes());
}

/// A superblock of version 1 ends before its features.
fn forget_features(raw: &mut RawJournalSuperblock) {
    raw.feature_compat = 0.into();
    raw.feature_incompat = 0.into();
    raw.feature_ro_compat = 0.into();
}

fn fast_commit_blocks(raw: &RawJournalSuperblock) -> u32 {
    match (raw.incompat().contains(JournalIncompat::FAST_COMMIT), raw.num_fc_blocks.get()) {
        (false, _) => 0,
        (true, 0) => DEFAULT_FAST_COMMIT_BLOCKS,
        (true, count) => count,
    }
}

/// Tells a block of the log that is not data.
pub const MAGIC: u32 = 0xC03B_3998;
/// The shortest log.
pub const MIN_LOG_BLOCKS: u32 = 1024;
/// Blocks set aside for fast commits unless the superblock says otherwise.
pub const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
const CRC32C: u8 = 4;
const SUMMED: JournalIncompat = JournalIncompat::CSUM_V2.union(JournalIncompat::CSUM_V3);
const AT: Place = Place::Journal(0);
const CHECKSUM_AT: usize = 0xFC;
const HEADER_BYTES: usize = 12;
const REVOKE_HEADER_BYTES: usize = 16;
const UUID_BYTES: usize = 16;
const COMMIT_HEADER_BYTES: usize = 60;
const COMMIT_CHECKSUM_AT: usize = 16;
const V1_CRC32: u8 = 1;
const V1_SIZE: u8 = 4;
const COMMIT_SECONDS_AT: usize = 48;
const COMMIT_NANOSECONDS_AT: usize = 56;
const ZEROS: [u8; 64] = [0; 64];

#[cfg(test)]
mod tests;
