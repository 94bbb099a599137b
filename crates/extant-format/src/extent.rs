//! Extent tree nodes: checked views to read them, and to change the entries of one node.
//!
//! [`NodeView`] checks a whole node once when it is made; [`NodeView::trusted`] skips that for bytes that were checked
//! before and have since been changed only by [`NodeMut`]. Changing several nodes together (splits, keys of parents)
//! is the work of the extent tree above this crate.
//!
//! Source: kernel `fs/ext4/ext4_extents.h`; `fs/ext4/extents.c`, `__ext4_ext_check`, `ext4_valid_extent_entries`,
//! `ext4_extent_block_csum`.

use core::mem::offset_of;
use core::ops::Range;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{le32, put};
use crate::cast;
use crate::corruption::{Corruption, Place, Rule};
use crate::crc::crc32c;
use crate::geometry::Geometry;
use crate::numbers::{LogicalBlock, LogicalRange, PhysicalBlock, PhysicalRange};

/// A run of file blocks and where it lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// Which blocks of the file; at most [`ExtentState::max_len`].
    pub blocks: LogicalRange,
    /// Where the first of them is; the others follow.
    pub start: PhysicalBlock,
    /// Whether they have been written.
    pub state: ExtentState,
}

impl Extent {
    /// The device blocks, or `None` past the end of numbers.
    pub fn device_blocks(&self) -> Option<PhysicalRange> {
        PhysicalRange::new(self.start, self.blocks.len().into())
    }

    /// Where `block` of the file lies, if the extent has it.
    pub fn map(&self, block: LogicalBlock) -> Option<PhysicalBlock> {
        let offset =
            block.distance_from(self.blocks.start()).filter(|_| self.blocks.contains(block))?;
        self.start.checked_add(offset.into())
    }
}

/// Whether the blocks of an extent hold data or only space.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ExtentState {
    /// They hold data.
    Written,
    /// They read as zeros.
    Unwritten,
}

impl ExtentState {
    /// The most blocks that one extent of this state can have.
    pub const fn max_len(self) -> u32 {
        match self {
            Self::Written => 32768,
            Self::Unwritten => 32767,
        }
    }
}

/// An entry of an inner node: the child that has the blocks from `first` on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Index {
    /// The first block of the file that the child may have.
    pub first: LogicalBlock,
    /// Where the child is.
    pub child: PhysicalBlock,
}

/// A node's header, as stored on disk.
///
/// Source: kernel `fs/ext4/ext4_extents.h`, `struct ext4_extent_header`.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
pub struct RawExtentHeader {
    magic: U16,      // MAGIC
    entries: U16,    // in use
    max: U16,        // that fit
    depth: U16,      // 0 for a leaf
    generation: U32, // unused
}
const _: () =
    assert!(size_of::<RawExtentHeader>() == ENTRY_BYTES && offset_of!(RawExtentHeader, depth) == 6);

/// A leaf entry, as stored on disk.
///
/// Source: kernel `fs/ext4/ext4_extents.h`, `struct ext4_extent`.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
pub struct RawExtent {
    block: U32,    // first file block
    len: U16,      // blocks, plus MAX_WRITTEN_LEN if unwritten
    start_hi: U16, // first device block, bits 32 to 47
    start_lo: U32, // first device block, bits 0 to 31
}
const _: () =
    assert!(size_of::<RawExtent>() == ENTRY_BYTES && offset_of!(RawExtent, start_lo) == 8);

/// An inner node's entry, as stored on disk.
///
/// Source: kernel `fs/ext4/ext4_extents.h`, `struct ext4_extent_idx`.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
pub struct RawIndex {
    block: U32,   // first file block below
    leaf_lo: U32, // child, bits 0 to 31
    leaf_hi: U16, // child, bits 32 to 47
    unused: U16,
}
const _: () = assert!(size_of::<RawIndex>() == ENTRY_BYTES && offset_of!(RawIndex, leaf_hi) == 8);

impl TryFrom<RawExtent> for Extent {
    type Error = Rule;

    fn try_from(raw: RawExtent) -> Result<Self, Rule> {
        let (len, state) = match raw.len.get().checked_sub(MAX_WRITTEN_LEN) {
            None | Some(0) => (raw.len.get(), ExtentState::Written),
            Some(len) => (len, ExtentState::Unwritten),
        };
        let blocks = LogicalRange::new(raw.block.get(), len.into()).ok_or(Rule::ExtentRange)?;
        Ok(Self {
            blocks,
            start: PhysicalBlock::from_parts(raw.start_hi.get(), raw.start_lo.get()),
            state,
        })
    }
}

/// Panics if the extent is longer than its state allows: a bug of whoever made it.
impl From<Extent> for RawExtent {
    fn from(extent: Extent) -> Self {
        assert!(extent.blocks.len() <= extent.state.max_len(), "extent too long: {extent:?}");
        let flag = match extent.state {
            ExtentState::Written => 0,
            ExtentState::Unwritten => MAX_WRITTEN_LEN,
        };
        Self {
            block: extent.blocks.start().get().into(),
            len: cast::low_u16(extent.blocks.len()).saturating_add(flag).into(),
            start_hi: cast::low_u16(cast::high_u32(extent.start.get())).into(),
            start_lo: cast::low_u32(extent.start.get()).into(),
        }
    }
}

impl TryFrom<RawIndex> for Index {
    type Error = Rule;

    fn try_from(raw: RawIndex) -> Result<Self, Rule> {
        let first = LogicalBlock::new(raw.block.get()).ok_or(Rule::ExtentRange)?;
        Ok(Self { first, child: PhysicalBlock::from_parts(raw.leaf_hi.get(), raw.leaf_lo.get()) })
    }
}

impl From<Index> for RawIndex {
    fn from(index: Index) -> Self {
        Self {
            block: index.first.get().into(),
            leaf_lo: cast::low_u32(index.child.get()).into(),
            leaf_hi: cast::low_u16(cast::high_u32(index.child.get())).into(),
            unused: 0.into(),
        }
    }
}

/// Twelve bytes that are either kind of entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RawEntry([u8; ENTRY_BYTES]);

impl From<Extent> for RawEntry {
    fn from(extent: Extent) -> Self {
        Self(zerocopy::transmute!(RawExtent::from(extent)))
    }
}

impl From<Index> for RawEntry {
    fn from(index: Index) -> Self {
        Self(zerocopy::transmute!(RawIndex::from(index)))
    }
}

/// What a node must agree with: its depth and the blocks that its parent gives it.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The depth, one less than the parent's; `None` for a root.
    pub depth: Option<u16>,
    /// The key in the parent; `None` for a root.
    pub first: Option<LogicalBlock>,
    /// The number after the last block that the node may map: the next key, or `u32::MAX`.
    pub end: u32,
}

impl Expected {
    /// What a root must agree with: nothing.
    pub const ROOT: Self = Self { depth: None, first: None, end: u32::MAX };
}

/// A node, to be read.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    header: RawExtentHeader,
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> NodeView<'a> {
    /// Checks a node: the block area of an inode, or a block. Its checksum is another question.
    ///
    /// # Errors
    /// The first rule that the node breaks.
    pub fn new(
        bytes: &'a [u8],
        at: Place,
        geometry: &Geometry,
        expected: Expected,
    ) -> Result<Self, Corruption> {
        let node = Self::trusted(bytes).ok_or_else(|| at.breaks(header_rule(bytes)))?;
        let depth_is_right =
            expected.depth.map_or(node.depth() <= MAX_DEPTH, |depth| node.depth() == depth);
        at.require(depth_is_right, Rule::ExtentDepth)?;
        let may_be_empty = expected.depth.is_none() && node.is_leaf();
        at.require(may_be_empty || !node.is_empty(), Rule::ExtentCount)?;
        if let (Some(first), Some(found)) = (expected.first, node.first_block(0)) {
            at.require(first == found, Rule::ExtentFirst)?;
        }
        let mut next = 0;
        for i in 0..node.len() {
            let (range, end) = node.checked_entry(i, geometry).map_err(|rule| at.breaks(rule))?;
            at.require(range.get() >= next, Rule::ExtentOrder)?;
            next = end;
        }
        at.require(next <= expected.end, Rule::ExtentLimit)?;
        Ok(node)
    }

    /// A view of bytes that were checked before; `None` if not even the header makes sense.
    pub fn trusted(bytes: &'a [u8]) -> Option<Self> {
        let (&header, rest) = RawExtentHeader::ref_from_prefix(bytes).ok()?;
        let (all, _) = rest.as_chunks::<ENTRY_BYTES>();
        let entries = all.get(..header.entries.get().into())?;
        let sound = header.magic.get() == MAGIC
            && header.entries <= header.max
            && usize::from(header.max.get()) <= all.len();
        (sound && header.max.get() > 0).then_some(Self { header, entries })
    }

    /// Levels below this node; 0 for a leaf.
    pub const fn depth(&self) -> u16 {
        self.header.depth.get()
    }

    /// Whether the entries are extents.
    pub const fn is_leaf(&self) -> bool {
        self.depth() == 0
    }

    /// Entries in use.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that fit.
    pub fn capacity(&self) -> usize {
        self.header.max.get().into()
    }

    /// Whether no entry more fits.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity()
    }

    /// Entry `i` of a leaf.
    pub fn extent(&self, i: usize) -> Option<Extent> {
        self.is_leaf().then(|| self.raw_extent(i)?.try_into().ok()).flatten()
    }

    /// Entry `i` of an inner node.
    pub fn index(&self, i: usize) -> Option<Index> {
        (!self.is_leaf()).then(|| self.raw_index(i)?.try_into().ok()).flatten()
    }

    /// Entries of a leaf, in order; none of an inner node.
    pub fn extents(self) -> impl DoubleEndedIterator<Item = Extent> + use<'a> {
        (0..self.len()).filter_map(move |i| self.extent(i))
    }

    /// Entries of an inner node, in order; none of a leaf.
    pub fn indexes(self) -> impl DoubleEndedIterator<Item = Index> + use<'a> {
        (0..self.len()).filter_map(move |i| self.index(i))
    }

    /// The first block of entry `i` of either kind.
    pub fn first_block(&self, i: usize) -> Option<LogicalBlock> {
        LogicalBlock::new(le32(self.entries.get(i)?, 0)?)
    }

    /// The last entry that starts at or before `block`.
    pub fn search(&self, block: LogicalBlock) -> Option<usize> {
        let starts_by =
            |entry: &[u8; ENTRY_BYTES]| le32(entry, 0).is_some_and(|first| first <= block.get());
        self.entries.partition_point(starts_by).checked_sub(1)
    }

    /// What the child at entry `i` must agree with, if this node was checked against `own`.
    pub fn expected_of_child(&self, i: usize, own: Expected) -> Option<Expected> {
        let end = i
            .checked_add(1)
            .and_then(|next| self.first_block(next))
            .map_or(own.end, LogicalBlock::get);
        Some(Expected {
            depth: Some(self.depth().checked_sub(1)?),
            first: Some(self.index(i)?.first),
            end,
        })
    }

    /// Checks entry `i` on its own, and returns its first block and the number after its last.
    fn checked_entry(&self, i: usize, geometry: &Geometry) -> Result<(LogicalBlock, u32), Rule> {
        if self.is_leaf() {
            let extent = Extent::try_from(self.raw_extent(i).ok_or(Rule::ExtentCount)?)?;
            let placed =
                extent.device_blocks().is_some_and(|blocks| geometry.may_hold_data(blocks));
            return if placed {
                Ok((extent.blocks.start(), extent.blocks.end()))
            } else {
                Err(Rule::ExtentPlace)
            };
        }
        let index = Index::try_from(self.raw_index(i).ok_or(Rule::ExtentCount)?)?;
        let placed =
            PhysicalRange::new(index.child, 1).is_some_and(|block| geometry.may_hold_data(block));
        if placed {
            Ok((index.first, index.first.get().saturating_add(1)))
        } else {
            Err(Rule::IndexPlace)
        }
    }

    fn raw_extent(&self, i: usize) -> Option<RawExtent> {
        self.entries.get(i).map(|&entry| zerocopy::transmute!(entry))
    }

    fn raw_index(&self, i: usize) -> Option<RawIndex> {
        self.entries.get(i).map(|&entry| zerocopy::transmute!(entry))
    }
}

/// A node, to be changed. Order and keys are the caller's care; positions past the end are bugs of the caller and panic.
#[derive(Debug)]
pub struct NodeMut<'a> {
    header: &'a mut RawExtentHeader,
    entries: &'a mut [[u8; ENTRY_BYTES]],
}

impl<'a> NodeMut<'a> {
    /// Makes `bytes`, a block area or a block, an empty node of the most entries that fit.
    pub fn init(bytes: &'a mut [u8], depth: u16) -> Self {
        let (header, rest) =
            RawExtentHeader::mut_from_prefix(bytes).expect("a node has room for its header");
        let (entries, _) = rest.as_chunks_mut();
        let max =
            u16::try_from(entries.len()).expect("a block has room for less than 2^16 entries");
        *header = RawExtentHeader {
            magic: MAGIC.into(),
            entries: 0.into(),
            max: max.into(),
            depth: depth.into(),
            generation: 0.into(),
        };
        Self { header, entries }
    }

    /// A view of bytes that were checked before; `None` if not even the header makes sense.
    pub fn trusted(bytes: &'a mut [u8]) -> Option<Self> {
        NodeView::trusted(bytes)?;
        let (header, rest) = RawExtentHeader::mut_from_prefix(bytes).ok()?;
        let (all, _) = rest.as_chunks_mut();
        let entries = all.get_mut(..header.max.get().into())?;
        Some(Self { header, entries })
    }

    /// The same node, to be read.
    pub fn view(&self) -> NodeView<'_> {
        let entries = self.entries.get(..self.len()).expect("the header was checked");
        NodeView { header: *self.header, entries }
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.header.entries.get().into()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces entry `i`.
    pub fn set(&mut self, i: usize, entry: impl Into<RawEntry>) {
        assert!(i < self.len(), "entry {i} of {}", self.len());
        *self.entries.get_mut(i).expect("just checked") = entry.into().0;
    }

    /// Puts an entry before entry `i`, or last; `false`, and nothing changed, if the node is full.
    #[must_use]
    pub fn insert(&mut self, i: usize, entry: impl Into<RawEntry>) -> bool {
        let len = self.len();
        assert!(i <= len, "entry {i} of {len}");
        if len >= self.entries.len() {
            return false;
        }
        self.entries.copy_within(i..len, i.saturating_add(1));
        self.set_len(len.saturating_add(1));
        self.set(i, entry);
        true
    }

    /// Takes out the entries at `range`.
    pub fn remove(&mut self, range: Range<usize>) {
        let len = self.len();
        let kept = len.checked_sub(range.len()).filter(|_| range.end <= len);
        let kept = kept.expect("the range lies in the node");
        self.entries.copy_within(range.end..len, range.start);
        self.set_len(kept);
    }

    /// Moves the entries from `i` on behind those of `to`, which has the same depth and enough room.
    pub fn move_tail(&mut self, i: usize, to: &mut NodeMut<'_>) {
        let len = self.len();
        let moved = self.entries.get(i..len).expect("the entry lies in the node");
        let (start, depth) = (to.len(), to.header.depth);
        let end = start.saturating_add(moved.len());
        assert_eq!(depth, self.header.depth, "depths differ");
        to.entries.get_mut(start..end).expect("the other node has room").copy_from_slice(moved);
        to.set_len(end);
        self.set_len(i);
    }

    /// Sets the depth, when the tree grows or shrinks at its root.
    pub fn set_depth(&mut self, depth: u16) {
        self.header.depth = depth.into();
    }

    fn set_len(&mut self, len: usize) {
        self.header.entries = u16::try_from(len).expect("no more than fit").into();
    }
}

/// Whether the checksum at the end of a node in a block is right, given the inode's seed.
pub fn verify_block_checksum(block: &[u8], seed: u32) -> bool {
    checksum(block, seed).is_some_and(|(tail, sum)| le32(block, tail) == Some(sum))
}

/// Sets the checksum at the end of a node in a block, given the inode's seed.
pub fn set_block_checksum(block: &mut [u8], seed: u32) {
    if let Some((tail, sum)) = checksum(block, seed) {
        put(block, tail, &sum.to_le_bytes());
    }
}

/// Where the checksum is, and what it should be.
fn checksum(block: &[u8], seed: u32) -> Option<(usize, u32)> {
    let (header, _) = RawExtentHeader::ref_from_prefix(block).ok()?;
    let tail = usize::from(header.max.get()).checked_mul(ENTRY_BYTES)?.checked_add(ENTRY_BYTES)?;
    Some((tail, crc32c(seed, block.get(..tail)?)))
}

/// Which rule a header breaks that makes no sense.
fn header_rule(bytes: &[u8]) -> Rule {
    match RawExtentHeader::ref_from_prefix(bytes) {
        Err(_) => Rule::TooShort,
        Ok((header, _)) if header.magic.get() != MAGIC => Rule::Magic,
        Ok((header, _)) if header.max.get() > 0 && header.entries > header.max => Rule::ExtentCount,
        Ok(_) => Rule::ExtentCapacity,
    }
}

/// The deepest root.
pub const MAX_DEPTH: u16 = 5;
/// Entries that fit into an inode.
pub const ROOT_CAPACITY: usize = 4;
const MAGIC: u16 = 0xF30A;
const ENTRY_BYTES: usize = 12;
const MAX_WRITTEN_LEN: u16 = 32768;

#[cfg(test)]
mod tests;
