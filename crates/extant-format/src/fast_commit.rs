//! Fast commits: little-endian records in the last blocks of the journal, sealed by a checksum in their tail.
//!
//! A record never crosses a block; the rest of a block is padded. Everything since the last tail, headers and padding
//! included, goes into the checksum of the next. Behind the last tail the area holds whatever was there before, so a record
//! is taken apart in two steps: its tag and length end a scan, what it says is judged only once a tail vouches for it.
//!
//! Source: kernel `fs/ext4/fast_commit.h`; `fs/ext4/fast_commit.c`, `ext4_fc_reserve_space`, `ext4_fc_write_tail`,
//! `ext4_fc_replay_scan`.

use zerocopy::FromBytes;

use crate::bytes::{le16, le32, put};
use crate::corruption::{Corruption, Place, Rule, Unsupported};
use crate::crc::{Crc32c, crc32c};
use crate::extent::{Extent, RawExtent};
use crate::numbers::{InodeNumber, LogicalRange, TransactionId};

/// One change, as it is recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Record<'a> {
    /// Blocks of a file are mapped.
    AddRange(InodeNumber, Extent),
    /// Blocks of a file are not mapped any more.
    DeleteRange(InodeNumber, LogicalRange),
    /// A new inode got its first name.
    Create(Link<'a>),
    /// An inode got a name.
    Link(Link<'a>),
    /// An inode lost a name.
    Unlink(Link<'a>),
    /// An inode's bytes, as far as they are in use.
    Inode(InodeNumber, &'a [u8]),
    /// Nothing, up to the end of the block.
    Padding,
    /// The end of a commit.
    Tail(TransactionId, u32),
    /// The start of a commit in an empty area: features and transaction.
    Head(u32, TransactionId),
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link<'a> {
    /// The directory.
    pub parent: InodeNumber,
    /// The inode that has the name.
    pub inode: InodeNumber,
    /// The name.
    pub name: &'a [u8],
}

impl<'a> Record<'a> {
    /// From a tag and a value that [`is_possible`].
    fn decode(tag: u16, value: &'a [u8]) -> Option<Self> {
        let word = |at| le32(value, at);
        let inode = |at| word(at).and_then(InodeNumber::new);
        let link = || Some(Link { parent: inode(0)?, inode: inode(4)?, name: value.get(8..)? });
        Some(match tag {
            1 => {
                let (&raw, _) = RawExtent::ref_from_prefix(value.get(4..)?).ok()?;
                Self::AddRange(inode(0)?, raw.try_into().ok()?)
            }
            2 => Self::DeleteRange(inode(0)?, LogicalRange::new(word(4)?, word(8)?)?),
            3 => Self::Create(link()?),
            4 => Self::Link(link()?),
            5 => Self::Unlink(link()?),
            6 => Self::Inode(inode(0)?, value.get(4..)?),
            7 => Self::Padding,
            8 => Self::Tail(TransactionId(word(0)?), word(4)?),
            HEAD => Self::Head(word(0)?, TransactionId(word(4)?)),
            _ => return None,
        })
    }

    /// The number of its kind.
    pub const fn tag(&self) -> u16 {
        match self {
            Self::AddRange(..) => 1,
            Self::DeleteRange(..) => 2,
            Self::Create(_) => 3,
            Self::Link(_) => 4,
            Self::Unlink(_) => 5,
            Self::Inode(..) => 6,
            Self::Padding => 7,
            Self::Tail(..) => 8,
            Self::Head(..) => HEAD,
        }
    }

    /// The fixed words of the value, and the bytes after them.
    fn value(&self) -> ([u8; 16], usize, &'a [u8]) {
        let (words, len, bytes): ([u32; 4], usize, &[u8]) = match *self {
            Self::AddRange(inode, extent) => {
                let mut fixed = [0; 16];
                put(&mut fixed, 0, &inode.get().to_le_bytes());
                let raw: [u8; 12] = zerocopy::transmute!(RawExtent::from(extent));
                put(&mut fixed, 4, &raw);
                return (fixed, 16, &[]);
            }
            Self::DeleteRange(inode, blocks) => {
                ([inode.get(), blocks.start().get(), blocks.len(), 0], 12, &[])
            }
            Self::Create(link) | Self::Link(link) | Self::Unlink(link) => {
                ([link.parent.get(), link.inode.get(), 0, 0], 8, link.name)
            }
            Self::Inode(inode, bytes) => ([inode.get(), 0, 0, 0], 4, bytes),
            Self::Padding => ([0; 4], 0, &[]),
            Self::Tail(tid, sum) => ([tid.get(), sum, 0, 0], 8, &[]),
            Self::Head(features, tid) => ([features, tid.get(), 0, 0], 8, &[]),
        };
        let mut fixed = [0; 16];
        for (to, word) in fixed.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        (fixed, len, bytes)
    }
}

/// Whether a record with this tag can have a value of `len` bytes.
///
/// Source: kernel `ext4_fc_value_len_isvalid`. Differs: how long an inode may be is judged by whoever knows the volume.
const fn is_possible(tag: u16, len: usize) -> bool {
    match tag {
        1 => len == 16,
        2 => len == 12,
        3..=5 => len > 8 && len <= 8 + 255,
        6 => len >= 4 + 128,
        7 => true,
        8 => len >= 8,
        HEAD => len == 8,
        _ => false,
    }
}

/// A record as it lies in its block, its tag and length possible.
#[derive(Clone, Copy, Debug)]
struct RawRecord<'a> {
    tag: u16,
    /// With its header.
    bytes: &'a [u8],
}

impl<'a> RawRecord<'a> {
    fn decode(&self) -> Option<Record<'a>> {
        Record::decode(self.tag, self.bytes.get(HEADER_BYTES..)?)
    }
}

/// The records of one block; ends behind a tail or padding, and before what can be no record.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    block: &'a [u8],
    at: usize,
    log_block: u32,
    /// It ended early.
    broken: bool,
}

impl<'a> Records<'a> {
    /// Of a block of the area; `log_block` is its place in the journal.
    pub const fn new(block: &'a [u8], log_block: u32) -> Self {
        Self { block, at: 0, log_block, broken: false }
    }

    /// The next record with its bytes.
    fn next_raw(&mut self) -> Option<RawRecord<'a>> {
        let rest = self.block.get(self.at..)?;
        let (tag, len) = le16(rest, 0).zip(le16(rest, 2))?;
        let end = HEADER_BYTES.saturating_add(len.into());
        let bytes = rest.get(..end).filter(|_| is_possible(tag, len.into()));
        self.broken = bytes.is_none();
        self.at = if self.broken { self.block.len() } else { self.at.saturating_add(end) };
        bytes.map(|bytes| RawRecord { tag, bytes })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Corruption>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = Place::Journal(self.log_block);
        let raw = self.next_raw()?;
        Some(raw.decode().ok_or(at.breaks(Rule::FastCommitTag)))
    }
}

/// Finds how much of an area is to be replayed: the records up to the last tail with the right transaction and checksum.
#[derive(Clone, Debug)]
pub struct Scan {
    tid: TransactionId,
    sum: Crc32c,
    seen: u32,
    valid: u32,
    blocks: u32,
    valid_blocks: u32,
}

impl Scan {
    /// For fast commits on top of the last full one, so of transaction `tid`, the next one expected.
    pub const fn new(tid: TransactionId) -> Self {
        Self { tid, sum: Crc32c::new(0), seen: 0, valid: 0, blocks: 0, valid_blocks: 0 }
    }

    /// Looks at the next block, in order; `false` if no later one counts.
    ///
    /// # Errors
    /// The features that these commits use, none of which is known here.
    pub fn feed(&mut self, block: &[u8]) -> Result<bool, Unsupported> {
        self.blocks = self.blocks.saturating_add(1);
        let mut records = Records::new(block, 0);
        while let Some(raw) = records.next_raw() {
            if self.seen == 0 && raw.tag != HEAD {
                return Ok(false);
            }
            self.seen = self.seen.saturating_add(1);
            match raw.decode() {
                Some(Record::Head(_, tid)) if tid != self.tid => return Ok(false),
                Some(Record::Head(features, _)) if features != 0 => {
                    return Err(Unsupported::FastCommit(features));
                }
                Some(Record::Tail(tid, stored)) => {
                    let covered = raw.bytes.get(..TAIL_SUMMED_BYTES).unwrap_or(raw.bytes);
                    if tid != self.tid || stored != self.sum.update(covered).finish() {
                        return Ok(false);
                    }
                    self.valid = self.seen;
                    self.valid_blocks = self.blocks;
                    self.sum = Crc32c::new(0);
                }
                _ => self.sum = self.sum.update(raw.bytes),
            }
        }
        Ok(!records.broken)
    }

    /// How many records, counted over all blocks from the first, are to be replayed.
    pub const fn valid_records(&self) -> u32 {
        self.valid
    }

    /// In how many blocks, from the first, these lie.
    pub const fn valid_blocks(&self) -> u32 {
        self.valid_blocks
    }
}

/// Writes records into the blocks of the area, one block after another.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    at: usize,
    sum: u32,
}

impl Writer {
    /// At the start of a block.
    pub const fn new() -> Self {
        Self { at: 0, sum: 0 }
    }

    /// Bytes of the current block that are in use.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Adds a record to the current block. `false` if it does not fit: the block is padded then, and the same record goes
    /// into the next one.
    #[must_use]
    pub fn push(&mut self, block: &mut [u8], record: &Record<'_>) -> bool {
        let (fixed, fixed_len, bytes) = record.value();
        let len = fixed_len.saturating_add(bytes.len());
        if !self.has_room(block, len) {
            self.pad(block);
            return false;
        }
        let start = self.at;
        self.header(block, record.tag(), len);
        self.bytes(block, fixed.get(..fixed_len).unwrap_or(&fixed));
        self.bytes(block, bytes);
        self.sum = crc32c(self.sum, block.get(start..self.at).unwrap_or_default());
        true
    }

    /// Ends the commit and the current block with it. `false` if the tail does not fit: the block is padded then, and the
    /// tail goes into the next one.
    #[must_use]
    pub fn seal(&mut self, block: &mut [u8], tid: TransactionId) -> bool {
        if !self.has_room(block, TAIL_BYTES) {
            self.pad(block);
            return false;
        }
        let start = self.at;
        self.header(
            block,
            Record::Tail(tid, 0).tag(),
            block.len().saturating_sub(start).saturating_sub(HEADER_BYTES),
        );
        self.bytes(block, &tid.get().to_le_bytes());
        let sum = crc32c(self.sum, block.get(start..self.at).unwrap_or_default());
        self.bytes(block, &sum.to_le_bytes());
        block.get_mut(self.at..).unwrap_or_default().fill(0);
        *self = Self::new();
        true
    }

    /// Whether a value of `len` bytes fits, and the header of a padding after it.
    fn has_room(&self, block: &[u8], len: usize) -> bool {
        let end = self.at.saturating_add(len).saturating_add(HEADER_BYTES.saturating_mul(2));
        end <= block.len()
    }

    fn pad(&mut self, block: &mut [u8]) {
        let start = self.at;
        self.header(
            block,
            Record::Padding.tag(),
            block.len().saturating_sub(start).saturating_sub(HEADER_BYTES),
        );
        block.get_mut(self.at..).unwrap_or_default().fill(0);
        self.sum = crc32c(self.sum, block.get(start..).unwrap_or_default());
        self.at = 0;
    }

    fn header(&mut self, block: &mut [u8], tag: u16, len: usize) {
        self.bytes(block, &tag.to_le_bytes());
        self.bytes(
            block,
            &u16::try_from(len)
                .expect("blocks have at most 2^16 bytes, headers included")
                .to_le_bytes(),
        );
    }

    fn bytes(&mut self, block: &mut [u8], bytes: &[u8]) {
        put(block, self.at, bytes);
        self.at = self.at.saturating_add(bytes.len());
    }
}

const HEAD: u16 = 9;
const HEADER_BYTES: usize = 4;
const TAIL_BYTES: usize = 8;
/// A tail's header and transaction.
const TAIL_SUMMED_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::ExtentState;
    use crate::numbers::PhysicalBlock;
    use proptest::prelude::*;

    const TID: TransactionId = TransactionId(7);

    fn ino(n: u32) -> InodeNumber {
        InodeNumber::new(n).unwrap()
    }

    fn all() -> Vec<Record<'static>> {
        let link = Link { parent: ino(2), inode: ino(12), name: b"name" };
        let blocks = LogicalRange::new(5, 6).unwrap();
        let extent =
            Extent { blocks, start: PhysicalBlock::new(1 << 40), state: ExtentState::Unwritten };
        vec![
            Record::Head(0, TID),
            Record::AddRange(ino(12), extent),
            Record::DeleteRange(ino(12), LogicalRange::new(8, 9).unwrap()),
            Record::Create(link),
            Record::Link(link),
            Record::Unlink(link),
            Record::Inode(ino(12), &[7; 160]),
        ]
    }

    /// Writes `records` and a tail into blocks.
    fn write(records: &[Record<'_>], size: usize) -> Vec<Vec<u8>> {
        let mut writer = Writer::new();
        let mut blocks = vec![vec![0xAA; size]];
        for record in records {
            while !writer.push(blocks.last_mut().unwrap(), record) {
                blocks.push(vec![0xAA; size]);
            }
        }
        while !writer.seal(blocks.last_mut().unwrap(), TID) {
            blocks.push(vec![0xAA; size]);
        }
        blocks
    }

    fn scan(blocks: &[Vec<u8>], tid: TransactionId) -> u32 {
        let mut scan = Scan::new(tid);
        let _ = blocks.iter().all(|block| scan.feed(block).unwrap());
        scan.valid_records()
    }

    #[test]
    fn records_round_trip() {
        let blocks = write(&all(), 1024);
        assert_eq!(blocks.len(), 1);
        let read: Vec<_> = Records::new(&blocks[0], 0).map(Result::unwrap).collect();
        assert_eq!(read[..7], all());
        assert!(matches!(read[7], Record::Tail(TID, _)));
        assert_eq!(read.len(), 8);
    }

    #[test]
    fn only_sealed_records_of_the_right_transaction_count() {
        let mut blocks = write(&all(), 1024);
        assert_eq!(scan(&blocks, TID), 8);
        assert_eq!(scan(&blocks, TID.next()), 0);
        let more = write(&all()[1..3], 1024);
        blocks.extend(more);
        assert_eq!(scan(&blocks, TID), 11);
        blocks[1][10] ^= 1;
        assert_eq!(scan(&blocks, TID), 8);
        blocks[0][30] ^= 1;
        assert_eq!(scan(&blocks, TID), 0);
    }

    #[test]
    fn what_can_be_no_record_ends_a_block() {
        for (tag, len) in
            [(10, 0), (0, 0), (1, 15), (2, 13), (3, 8), (5, 264), (6, 131), (8, 7), (9, 9)]
        {
            let mut block = vec![0; 1024];
            block[..4].copy_from_slice(&[
                tag,
                0,
                u8::try_from(len % 256).unwrap(),
                u8::try_from(len / 256).unwrap(),
            ]);
            assert_eq!(Records::new(&block, 3).next(), None, "{tag} {len}");
        }
    }

    #[test]
    fn a_record_that_says_nonsense_is_told_where_a_tail_vouches_for_it() {
        let mut blocks = write(&all(), 1024);
        // The first inode number, that of the added range, becomes 0.
        blocks[0][16..20].fill(0);
        assert_eq!(scan(&blocks, TID), 0);
        let records = Records::new(&blocks[0], 3).nth(1);
        assert_eq!(records, Some(Err(Place::Journal(3).breaks(Rule::FastCommitTag))));
        let at = blocks[0].iter().rposition(|&byte| byte == 8).unwrap();
        let sum = crc32c(0, &blocks[0][..at + 8]);
        assert_eq!(blocks[0][at..at + 2], [8, 0]);
        blocks[0][at + 8..at + 12].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(scan(&blocks, TID), 8);
    }

    #[test]
    fn unknown_features_are_no_end_of_the_scan() {
        let blocks = write(&[Record::Head(4, TID)], 1024);
        assert_eq!(Scan::new(TID).feed(&blocks[0]), Err(Unsupported::FastCommit(4)));
        assert_eq!(Scan::new(TID.next()).feed(&blocks[0]), Ok(false));
    }

    proptest! {
        #[test]
        fn any_length_of_records_is_read_back(lengths in prop::collection::vec(128..900_usize, 1..12)) {
            let bytes = vec![3; 1000];
            let mut records = vec![Record::Head(0, TID)];
            records.extend(lengths.iter().map(|&len| Record::Inode(ino(9), &bytes[..len])));
            let blocks = write(&records, 1024);
            let read: Vec<_> = blocks.iter().flat_map(|block| Records::new(block, 0)).map(Result::unwrap).collect();
            let kept = |record: &&Record<'_>| !matches!(record, Record::Padding | Record::Tail(..));
            prop_assert_eq!(read.iter().filter(kept).copied().collect::<Vec<_>>(), records);
            prop_assert_eq!(usize::try_from(scan(&blocks, TID)).unwrap(), read.len());
        }

        #[test]
        fn no_bytes_make_a_scan_panic_or_hang(bytes in prop::collection::vec(0..12_u8, 0..200)) {
            prop_assert!(Records::new(&bytes, 0).count() <= bytes.len() / 4 + 1);
            let _ = Scan::new(TID).feed(&bytes);
        }
    }
}
