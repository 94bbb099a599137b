//! Block, cluster, group, inode and transaction numbers: one type a kind, no arithmetic between kinds.

use core::fmt;
use core::num::NonZeroU32;

/// A block's place in a file, in file-system blocks from the start; never past [`Self::LAST`].
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogicalBlock(u32);

impl LogicalBlock {
    /// A file's first block.
    pub const ZERO: Self = Self(0);
    /// The format keeps `u32::MAX` for "no more blocks".
    pub const LAST: Self = Self(u32::MAX - 1);

    /// Block number `n`, if a file can have it.
    pub const fn new(n: u32) -> Option<Self> {
        if n <= Self::LAST.0 { Some(Self(n)) } else { None }
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The block `blocks` further on, or `None` past [`Self::LAST`].
    pub fn checked_add(self, blocks: u32) -> Option<Self> {
        self.0.checked_add(blocks).and_then(Self::new)
    }

    /// The block `blocks` before, or `None` before the first.
    pub fn checked_sub(self, blocks: u32) -> Option<Self> {
        self.0.checked_sub(blocks).map(Self)
    }

    /// How many blocks lie from `earlier` up to this one, or `None` if `earlier` is later.
    pub fn distance_from(self, earlier: Self) -> Option<u32> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Display for LogicalBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// A block's place on the device, in file-system blocks from its start.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PhysicalBlock(u64);

impl PhysicalBlock {
    /// Block number `n`; whether the device has it, only its geometry can say.
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// From the halves in which the format stores it.
    pub const fn from_parts(hi: u16, lo: u32) -> Self {
        #[expect(clippy::as_conversions, reason = "widening in a const fn")]
        Self(((hi as u64) << 32) | lo as u64)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The block `blocks` further on, or `None` past the end of numbers.
    pub fn checked_add(self, blocks: u64) -> Option<Self> {
        self.0.checked_add(blocks).map(Self)
    }

    /// The block `blocks` before, or `None` before the first.
    pub fn checked_sub(self, blocks: u64) -> Option<Self> {
        self.0.checked_sub(blocks).map(Self)
    }

    /// How many blocks lie from `earlier` up to this one, or `None` if `earlier` is later.
    pub fn distance_from(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Display for PhysicalBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}", self.0)
    }
}

/// A run of blocks of a file: never empty, never past [`LogicalBlock::LAST`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LogicalRange {
    start: LogicalBlock,
    len: NonZeroU32,
}

impl LogicalRange {
    /// Every block that a file can have.
    pub const ALL: Self = Self { start: LogicalBlock(0), len: NonZeroU32::MAX };

    /// `len` blocks from number `start` on, or `None` if that is empty or passes the end.
    pub const fn new(start: u32, len: u32) -> Option<Self> {
        match (NonZeroU32::new(len), start.checked_add(len)) {
            (Some(len), Some(_)) => Some(Self { start: LogicalBlock(start), len }),
            _ => None,
        }
    }

    /// The one block `block`.
    pub const fn single(block: LogicalBlock) -> Self {
        Self { start: block, len: NonZeroU32::MIN }
    }

    /// From `start` to the last block a file can have.
    pub const fn from_block_on(start: LogicalBlock) -> Self {
        match NonZeroU32::new(u32::MAX.saturating_sub(start.0)) {
            Some(len) => Self { start, len },
            None => panic!("a LogicalBlock is below u32::MAX"),
        }
    }

    /// From `start` up to, not including, the number `end`; `None` if empty.
    pub const fn between(start: LogicalBlock, end: u32) -> Option<Self> {
        match end.checked_sub(start.0) {
            Some(len) => Self::new(start.0, len),
            None => None,
        }
    }

    /// The first block.
    pub const fn start(self) -> LogicalBlock {
        self.start
    }

    /// How many blocks; at least one.
    pub const fn len(self) -> u32 {
        self.len.get()
    }

    /// Never true; a range has at least one block.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The number after the last block; may be `u32::MAX`, which is no block.
    pub const fn end(self) -> u32 {
        self.start.0.saturating_add(self.len.get())
    }

    /// The last block.
    pub const fn last(self) -> LogicalBlock {
        LogicalBlock(self.end().saturating_sub(1))
    }

    /// Whether `block` lies inside.
    pub const fn contains(self, block: LogicalBlock) -> bool {
        self.start.0 <= block.0 && block.0 < self.end()
    }

    /// The part inside `other`, if any.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(self.start.max(other.start), self.end().min(other.end()))
    }
}

impl fmt::Display for LogicalRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}/{})", self.start.0, self.len)
    }
}

/// A run of blocks of the device: never empty, never past the end of numbers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PhysicalRange {
    start: PhysicalBlock,
    len: u64,
}

impl PhysicalRange {
    /// `len` blocks from `start` on, or `None` if that is empty or passes the end.
    pub const fn new(start: PhysicalBlock, len: u64) -> Option<Self> {
        match (len, start.0.checked_add(len)) {
            (1.., Some(_)) => Some(Self { start, len }),
            _ => None,
        }
    }

    /// The one block `block`, which must not be the last number of all.
    pub const fn single(block: PhysicalBlock) -> Self {
        Self { start: block, len: 1 }
    }

    /// The first block.
    pub const fn start(self) -> PhysicalBlock {
        self.start
    }

    /// How many blocks; at least one.
    pub const fn len(self) -> u64 {
        self.len
    }

    /// Never true; a range has at least one block.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The block after the last.
    pub const fn end(self) -> PhysicalBlock {
        PhysicalBlock(self.start.0.saturating_add(self.len))
    }

    /// Whether `block` lies inside.
    pub const fn contains(self, block: PhysicalBlock) -> bool {
        self.start.0 <= block.0 && block.0 < self.end().0
    }

    /// Whether any block lies in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end().0 && other.start.0 < self.end().0
    }
}

impl fmt::Display for PhysicalRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}+{}", self.start.0, self.len)
    }
}

/// How many clusters; a cluster is the unit of allocation (one block unless `bigalloc`).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterCount(pub u64);

impl ClusterCount {
    /// None at all.
    pub const ZERO: Self = Self(0);

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or `None` past the end of numbers.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for ClusterCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clusters", self.0)
    }
}

/// Blocks in a cluster: a power of two, one unless `bigalloc`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ClusterRatio {
    bits: u32,
}

impl ClusterRatio {
    /// A cluster is a block.
    pub const ONE: Self = Self { bits: 0 };

    /// `2^bits` blocks in a cluster, if a block's number has more bits than that.
    pub const fn new(bits: u32) -> Option<Self> {
        if bits < u32::BITS { Some(Self { bits }) } else { None }
    }

    /// How many blocks.
    pub const fn blocks(self) -> u32 {
        1 << self.bits
    }

    /// The cluster of a file's block.
    pub const fn cluster_of(self, block: LogicalBlock) -> LogicalCluster {
        LogicalCluster(block.0 >> self.bits)
    }

    /// All blocks that share the cluster of `block`; fewer in the last cluster a file can have.
    pub const fn around(self, block: LogicalBlock) -> LogicalRange {
        let start = LogicalBlock(self.cluster_of(block).0 << self.bits);
        match LogicalRange::new(start.0, self.blocks()) {
            Some(range) => range,
            None => LogicalRange::from_block_on(start),
        }
    }
}

/// A cluster's place in a file: the block number divided by the blocks of a cluster.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LogicalCluster(pub u32);

/// A cluster's place on the device, counted from the first data block.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PhysicalCluster(pub u64);

/// A block group's number.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockGroup(pub u32);

impl BlockGroup {
    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for BlockGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// An inode's number, from 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InodeNumber(NonZeroU32);

impl InodeNumber {
    /// The bad-blocks inode.
    pub const BAD_BLOCKS: Self = Self(NonZeroU32::new(1).expect("not zero"));
    /// The root directory.
    pub const ROOT: Self = Self(NonZeroU32::new(2).expect("not zero"));
    /// Owner of the reserved descriptor blocks.
    pub const RESIZE: Self = Self(NonZeroU32::new(7).expect("not zero"));
    /// The internal journal.
    pub const JOURNAL: Self = Self(NonZeroU32::new(8).expect("not zero"));

    /// Inode `n`, unless that is zero, which means "none".
    pub const fn new(n: u32) -> Option<Self> {
        match NonZeroU32::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for InodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {}", self.0)
    }
}

/// A transaction's number; it wraps, so it has no order but [`Self::is_after`].
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct TransactionId(pub u32);

impl TransactionId {
    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number of the next transaction.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether this comes after `other`, by signed difference.
    ///
    /// Source: kernel `include/linux/jbd2.h`, `tid_gt`.
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).wrapping_sub(1) < u32::MAX / 2
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.0)
    }
}
