//! Structures of an image as they lie on the device, one at a time, without a mount: what `info`, `map` and `diff` are made of.
//!
//! A mount refuses what is damaged and shows what the journal makes of an image. Who explains an image wants neither: here one
//! group that makes no sense leaves the others readable, and nothing is replayed.
//!
//! # Invariants
//! Nothing that a device holds can make a walk go on for ever: an image has no more inner blocks of maps than blocks, and
//! a [`Reader`] reads no more of them (see [`Reader::map`]).
//! # Locking
//! None; a reader belongs to one thread.
//! # Not here
//! Checksums and what contradicts itself across structures (`check`); the journal's log.
//! # Source
//! Kernel `Documentation/filesystems/ext4/`; for groups without a bitmap `fs/ext4/balloc.c`, `ext4_init_block_bitmap`.

mod directory;
mod groups;
mod inodes;
mod tree;

use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

use extant_device::{BlockDevice, BlockDeviceExt, DeviceError};
use extant_format::cast::usize_from;
use extant_format::jbd2::JournalSuperblock;
use extant_format::{
    Corruption, FormatError, Geometry, InodeNumber, InodeRecord, PhysicalBlock, Place, Rule,
    Superblock,
};

pub use groups::Descriptors;
pub use tree::{MapNode, MapRun, MapStep, Position};

/// An image that is read structure by structure.
pub struct Reader<'a> {
    device: &'a dyn BlockDevice,
    superblock: Superblock,
    /// Inner blocks of maps that may still be read.
    nodes_left: Cell<u64>,
}

/// Why a structure could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// The device failed, or ends before the structure.
    #[error("{0}")]
    Device(#[from] DeviceError),
    /// The bytes make no sense.
    #[error("{0}")]
    Format(#[from] FormatError),
}

impl From<Corruption> for ReadError {
    fn from(corruption: Corruption) -> Self {
        Self::Format(corruption.into())
    }
}

impl<'a> Reader<'a> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// There is none, or it is damaged or asks for a feature that is not known.
    pub fn new(device: &'a dyn BlockDevice) -> Result<Self, ReadError> {
        let bytes = device.read_vec(Superblock::OFFSET_BYTES, 1024)?;
        Ok(Self::with(device, Superblock::parse(&bytes)?))
    }

    /// With a superblock that was read before.
    pub fn with(device: &'a dyn BlockDevice, superblock: Superblock) -> Self {
        let nodes_left = Cell::new(superblock.geometry().blocks_count);
        Self { device, superblock, nodes_left }
    }

    /// What the superblock says.
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Sizes and counts.
    pub const fn geometry(&self) -> &Geometry {
        self.superblock.geometry()
    }

    /// The bytes of a block.
    ///
    /// # Errors
    /// The device's, or that the file system has no such block.
    pub fn block(&self, block: PhysicalBlock) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; self.geometry().block_len()];
        self.read_blocks(block, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` with what lies from `block` on.
    ///
    /// # Errors
    /// As [`Self::block`].
    pub fn read_blocks(&self, block: PhysicalBlock, bytes: &mut [u8]) -> Result<(), ReadError> {
        let geometry = self.geometry();
        let place = Place::Block(block);
        place.require(geometry.has_block(block), Rule::BlockPlace)?;
        Ok(self.device.read_into(block.get() << geometry.block_bits, bytes)?)
    }

    /// The bytes of one inode.
    ///
    /// # Errors
    /// There is no such inode, or its group makes no sense.
    pub fn inode(&self, inode: InodeNumber) -> Result<Vec<u8>, ReadError> {
        let geometry = self.geometry();
        let found = geometry.inode_place(inode);
        let (group, index) = found.ok_or(Place::Inode(inode).breaks(Rule::EntryInode))?;
        let descriptor = self.descriptor(group)?;
        let (block, within) = geometry.inode_location(descriptor.inode_table, index);
        let bytes = self.block(block)?;
        let record = bytes.get(within..within.saturating_add(usize_from(geometry.inode_size)));
        Ok(record.ok_or(Place::Inode(inode).breaks(Rule::TooShort))?.to_vec())
    }

    /// One inode, checked on its own.
    ///
    /// # Errors
    /// As [`Self::inode`], or a rule that it breaks.
    pub fn record(&self, inode: InodeNumber) -> Result<InodeRecord, ReadError> {
        Ok(InodeRecord::decode(&self.inode(inode)?, self.geometry(), inode)?)
    }

    /// The journal's own superblock, if the journal lies in the image.
    ///
    /// # Errors
    /// Its inode or its first block makes no sense.
    pub fn journal(&self) -> Result<Option<JournalSuperblock>, ReadError> {
        let Some(inode) = self.superblock.journal_inode() else { return Ok(None) };
        let record = self.record(inode)?;
        let mut first = None;
        self.map(inode, &record, &mut |step| {
            if let MapStep::Run(run) = step
                && run.blocks.start().get() == 0
            {
                first = Some(run.start);
            }
        })?;
        let first = first.ok_or(Place::Journal(0).breaks(Rule::JournalSize))?;
        Ok(Some(JournalSuperblock::parse(&self.block(first)?)?))
    }

    /// Bytes of the device behind it.
    pub fn device_bytes(&self) -> u64 {
        self.device.geometry().len_bytes
    }
}
