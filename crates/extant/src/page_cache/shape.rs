//! [`FolioShape`]: where a folio lies in its file, and how it divides into blocks and frames.

use alloc::vec::Vec;
use core::ops::Range;

use extant_format::cast::{u64_from, usize_from};
use extant_format::{LogicalBlock, LogicalRange};

/// Bytes of a page, whatever the block size.
pub(crate) const PAGE_BYTES: usize = 1 << PAGE_BITS;
/// A folio has at most 512 pages, 2 MiB.
pub(crate) const MAX_ORDER: u32 = 9;
/// A frame of a folio has at most 64 KiB.
pub(super) const MAX_FRAME_BYTES: usize = 64 << 10;
const PAGE_BITS: u32 = 12;
/// log2 of the blocks that a folio may have.
const MAX_BLOCKS_BITS: u32 = 11;

/// A page's place in a file, in pages from the start.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct PageIndex(u64);

impl PageIndex {
    /// A file's first page.
    pub(crate) const ZERO: Self = Self(0);

    /// Page number `n`.
    pub(crate) const fn new(n: u64) -> Self {
        Self(n)
    }

    /// The page that holds the byte at `offset`.
    pub(crate) const fn holding(offset: u64) -> Self {
        Self(offset >> PAGE_BITS)
    }

    /// The number itself.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// Where in the file the page starts, in bytes.
    pub(crate) const fn start(self) -> u64 {
        self.0 << PAGE_BITS
    }
}

/// How large a file's blocks are: from 1 to 64 KiB.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BlockSize {
    bits: u32,
}

impl BlockSize {
    /// Blocks of `2^bits` bytes, if the format has them.
    pub(crate) const fn new(bits: u32) -> Option<Self> {
        if matches!(bits, 10..=16) { Some(Self { bits }) } else { None }
    }

    /// In bytes.
    pub(crate) const fn bytes(self) -> usize {
        1 << self.bits
    }

    /// A folio has at least one block.
    pub(crate) const fn min_order(self) -> u32 {
        self.bits.saturating_sub(PAGE_BITS)
    }

    /// A folio has at most 2,048 blocks (D2.5).
    ///
    /// Source: kernel `ext4_set_inode_mapping_order`.
    pub(crate) fn max_order(self) -> u32 {
        MAX_ORDER.min(MAX_BLOCKS_BITS + self.bits - PAGE_BITS)
    }
}

/// Where a folio lies and how it is divided. Offsets, and block numbers in plain `usize`, count from its start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FolioShape {
    index: PageIndex,
    order: u32,
    block_size: BlockSize,
}

impl FolioShape {
    /// The folio of `2^order` pages around page `index`.
    pub(super) fn new(index: PageIndex, order: u32, block_size: BlockSize) -> Self {
        Self { index: PageIndex(index.0 >> order << order), order, block_size }
    }

    /// Its first page.
    pub(crate) fn index(&self) -> PageIndex {
        self.index
    }

    /// log2 of its pages.
    pub(crate) fn order(&self) -> u32 {
        self.order
    }

    /// log2 of the pages that a folio with blocks of this size has at the least.
    pub(super) fn min_order(&self) -> u32 {
        self.block_size.min_order()
    }

    /// Whether `page` is one of its own.
    pub(super) fn holds(&self, page: PageIndex) -> bool {
        self.index <= page && page < self.end_index()
    }

    /// What is left of it, in pieces as large as can be, if `page` gets a folio of its own, of the lowest order; that one too.
    pub(super) fn cut_around(self, page: PageIndex, pieces: &mut Vec<Self>) {
        let mut rest = self;
        while rest.order > self.min_order() {
            let halves = [0, rest.pages() / 2].map(|skip| Self {
                index: PageIndex(rest.index.0 + skip),
                order: rest.order - 1,
                ..rest
            });
            let [first, second] = halves;
            let (with, without) = if first.holds(page) { (first, second) } else { (second, first) };
            pieces.push(without);
            rest = with;
        }
        pieces.push(rest);
    }

    /// How many pages it has.
    pub(crate) fn pages(&self) -> u64 {
        1 << self.order
    }

    /// The page after its last.
    pub(crate) fn end_index(&self) -> PageIndex {
        PageIndex(self.index.0 + self.pages())
    }

    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        PAGE_BYTES << self.order
    }

    /// Where in the file it starts, in bytes.
    pub(crate) fn start(&self) -> u64 {
        self.index.start()
    }

    /// Where in the file it ends, in bytes.
    pub(crate) fn end(&self) -> u64 {
        self.end_index().start()
    }

    /// Which of its bytes lie in `range` of the file; empty if none do.
    pub(crate) fn part_of(&self, range: &Range<u64>) -> Range<usize> {
        let within = |offset: u64| {
            let offset = offset.clamp(self.start(), self.end()) - self.start();
            usize::try_from(offset).expect("at most the bytes of a folio")
        };
        within(range.start)..within(range.end)
    }

    /// How many blocks it has.
    pub(crate) fn blocks(&self) -> usize {
        self.bytes() >> self.block_size.bits
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> usize {
        self.block_size.bytes()
    }

    /// The blocks that `bytes` touch.
    pub(crate) fn touched(&self, bytes: &Range<usize>) -> Range<usize> {
        let first = bytes.start >> self.block_size.bits;
        first..bytes.end.div_ceil(self.block_bytes()).max(first)
    }

    /// The blocks that lie in `bytes` as a whole.
    pub(crate) fn covered(&self, bytes: &Range<usize>) -> Range<usize> {
        let first = bytes.start.div_ceil(self.block_bytes());
        first..(bytes.end >> self.block_size.bits).max(first)
    }

    /// The bytes of `blocks`.
    pub(crate) fn bytes_of(&self, blocks: &Range<usize>) -> Range<usize> {
        blocks.start << self.block_size.bits..blocks.end << self.block_size.bits
    }

    /// What `blocks`, which are not empty, are in the file.
    ///
    /// # Panics
    /// If they are empty or lie past the last block a file can have, where no file has bytes.
    pub(crate) fn file_blocks(&self, blocks: &Range<usize>) -> LogicalRange {
        let first = (self.start() >> self.block_size.bits) + u64_from(blocks.start);
        let range = u32::try_from(first).ok().zip(u32::try_from(blocks.len()).ok());
        range.and_then(|(first, len)| LogicalRange::new(first, len)).expect("blocks of a file")
    }

    /// Which of its blocks lie in `range` of the file; empty if none do.
    pub(crate) fn blocks_in(&self, range: LogicalRange) -> Range<usize> {
        let byte = |block: u32| u64::from(block) << self.block_size.bits;
        self.touched(&self.part_of(&(byte(range.start().get())..byte(range.end()))))
    }

    /// Its block that is `block` of the file, if it is one of its own.
    pub(crate) fn block_in(&self, block: LogicalBlock) -> Option<usize> {
        let first = self.start() >> self.block_size.bits;
        let nth = usize_from(u32::try_from(u64::from(block.get()).checked_sub(first)?).ok()?);
        (nth < self.blocks()).then_some(nth)
    }

    /// Bytes of a frame.
    pub(super) fn frame_bytes(&self) -> usize {
        self.bytes().min(MAX_FRAME_BYTES)
    }

    /// How many frames it has.
    pub(super) fn frames(&self) -> usize {
        self.bytes() / self.frame_bytes()
    }

    /// `bytes` cut at the frames: each piece's frame, and its place in there.
    pub(super) fn pieces(
        &self,
        bytes: Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let len = self.frame_bytes();
        let frames =
            if bytes.is_empty() { 0..0 } else { bytes.start / len..bytes.end.div_ceil(len) };
        frames.map(move |frame| {
            let start = bytes.start.max(frame * len) - frame * len;
            (frame, start..bytes.end.min((frame + 1) * len) - frame * len)
        })
    }
}
