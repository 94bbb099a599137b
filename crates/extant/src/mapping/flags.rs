//! How a mapping is asked for, and the answer.

use bitflags::bitflags;
use extant_format::{LogicalBlock, LogicalRange, PhysicalBlock};

use crate::extent_status::BlockState;

bitflags! {
    /// What [`Mapper::map`](super::Mapper::map) may do; the values are those that the kernel's events print.
    ///
    /// Source: kernel `fs/ext4/ext4.h`, `EXT4_GET_BLOCKS_*`.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub(crate) struct MapFlags: u32 {
        /// Give holes and delayed blocks a place, and make unwritten blocks written, unless other flags say otherwise.
        const CREATE = 0x1;
        /// What is allocated is unwritten; what is unwritten stays so.
        const UNWRITTEN = 0x2;
        /// A reservation pays. [`Mapper::map`](super::Mapper::map) finds out by itself.
        const DELALLOC_RESERVED = 0x4;
        /// I/O follows: the blocks become an unwritten extent of their own until it is done.
        const PRE_IO = 0x8;
        /// I/O is done: unwritten blocks become written.
        const CONVERT = 0x10;
        /// The tree may take its blocks from the reserved pool.
        const METADATA_NOFAIL = 0x20;
        /// Take what was asked for and set nothing aside.
        const NO_NORMALIZE = 0x40;
        /// Written blocks become unwritten: they read as zeros.
        const CONVERT_UNWRITTEN = 0x100;
        /// New blocks are zeroed on the device before anybody can see them.
        const ZERO = 0x200;
        /// The caller submits the data itself.
        const IO_SUBMIT = 0x400;
        /// The file is open and goes on growing: set more aside for it than the kernel would. Not one of its flags.
        const GROWING = 0x0200_0000;
        /// Note nothing in memory beyond the blocks asked for: the caller holds neither `content` nor `invalidate`.
        const NO_CACHE = 0x4000_0000;

        /// Place for dirty data, unwritten until its I/O is done (`dioread_nolock`).
        const WRITEBACK = Self::CREATE.bits() | Self::UNWRITTEN.bits() | Self::PRE_IO.bits()
            | Self::METADATA_NOFAIL.bits() | Self::IO_SUBMIT.bits() | Self::NO_CACHE.bits();
        /// Place for dirty data, written at once; the commit waits for the data (`dioread_lock`).
        const WRITEBACK_WRITTEN = Self::CREATE.bits() | Self::METADATA_NOFAIL.bits() | Self::IO_SUBMIT.bits()
            | Self::NO_CACHE.bits();
        /// The end of I/O past the cache.
        const END_OF_DIRECT = Self::CREATE.bits() | Self::UNWRITTEN.bits() | Self::CONVERT.bits()
            | Self::NO_CACHE.bits();
        /// The end of that I/O.
        const END_OF_IO = Self::CREATE.bits() | Self::UNWRITTEN.bits() | Self::CONVERT.bits()
            | Self::IO_SUBMIT.bits() | Self::NO_CACHE.bits();
    }
}

/// The bit of a delayed block in what events say of dirty blocks (`BH_Delay`); it has no name there.
pub(crate) const DELAY_BIT: u32 = 0x100;

/// A run of blocks in one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub(crate) struct Mapped {
    /// The run: it begins where the caller asked, and may be shorter than asked for.
    pub(crate) blocks: LogicalRange,
    /// What the first block is; the places of the others follow its own.
    pub(crate) state: BlockState,
    /// Whether the blocks got their place, or became readable, by this call: what is not overwritten of them has to be
    /// zeroed in memory.
    pub(crate) new: bool,
}

impl Mapped {
    /// Whether the data has to be on the device before the transaction commits, so that nobody reads what was there before:
    /// in ordered mode the caller files it with its handle. Blocks zeroed on the device ([`MapFlags::ZERO`]) need not be.
    ///
    /// Source: kernel `ext4_map_blocks` (D17.1).
    pub(crate) fn exposes_data(&self) -> bool {
        self.new && matches!(self.state, BlockState::Written(_))
    }

    /// The run from one of its blocks on.
    pub(crate) fn from(&self, block: LogicalBlock) -> Option<Self> {
        let skipped = block.distance_from(self.blocks.start())?;
        let blocks = LogicalRange::between(block, self.blocks.end())?;
        let on = |at: PhysicalBlock| at.checked_add(skipped.into());
        let state = match self.state {
            BlockState::Written(at) => BlockState::Written(on(at)?),
            BlockState::Unwritten(at) => BlockState::Unwritten(on(at)?),
            state => state,
        };
        Some(Self { blocks, state, ..*self })
    }
}
