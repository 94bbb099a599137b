//! Descriptor blocks: tags that say where the blocks after them belong.
//!
//! Source: kernel `fs/jbd2/commit.c`, `jbd2_journal_commit_transaction`; `fs/jbd2/recovery.c`, `count_tags`.

use super::{BlockType, HEADER_BYTES, JournalHeader, LogChecksum, LogFormat, UUID_BYTES};
use crate::bytes::{array_at, put};
use crate::cast::{high_u32, low_u16, low_u32};
use crate::numbers::{PhysicalBlock, TransactionId};

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
