//! Two images side by side: in which structure they differ first, and in how many of each kind.
//!
//! "Byte 73728 differs" helps nobody. [`structures`] compares bytes once, in one pass over both devices, and then asks of each run
//! that differs whose it is: a field of the superblock or of a descriptor, a bit of a bitmap, a field of an inode, an extent, an attribute,
//! a name, the journal, a file's data, or nobody's. [`trees`] compares what users see instead, wherever it lies.
//!
//! # Invariants
//! Images are equal byte by byte if and only if no [`Difference`] is told by [`structures`]: whatever no structure claims is told as
//! [`Kind::Other`] or [`Kind::Unused`]. Memory grows with what differs, not with the images. What makes no sense on one side is a
//! difference of its own, and the comparison goes on.
//! # Locking
//! None.
//! # Not here
//! Which of the two is right (`check`).
//! # Source
//! Names of fields are the format's own: kernel `fs/ext4/ext4.h`, `Documentation/filesystems/ext4/`.

mod attributes;
mod contents;
mod fields;
mod groups;
mod inodes;
#[cfg(test)]
mod tests;
#[cfg(feature = "std")]
mod tree;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::{ControlFlow, Range};

use extant_device::{BlockDevice, BlockDeviceExt};
use extant_format::{BlockGroup, InodeNumber};

use crate::ranges::Ranges;
use crate::reader::{ReadError, Reader};

#[cfg(feature = "std")]
pub use tree::trees;

/// What differs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// The superblock, or one of its copies.
    Superblock,
    /// A group's descriptor, or a copy of it.
    Descriptor,
    /// A block bitmap.
    BlockBitmap,
    /// An inode bitmap.
    InodeBitmap,
    /// An inode, or a file's attributes in a tree.
    Inode,
    /// Where a file's blocks lie.
    Map,
    /// An extended attribute.
    Attribute,
    /// A name in a directory.
    Name,
    /// The journal.
    Journal,
    /// A file's contents.
    Data,
    /// Blocks in use that no known structure has.
    Other,
    /// Bytes that mean nothing: free blocks and inodes, what is behind the end of a file.
    Unused,
    /// One side makes no sense.
    Unreadable,
}

impl Kind {
    /// In one word, for programs and counts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Superblock => "superblock",
            Self::Descriptor => "descriptor",
            Self::BlockBitmap => "block bitmap",
            Self::InodeBitmap => "inode bitmap",
            Self::Inode => "inode",
            Self::Map => "map",
            Self::Attribute => "attribute",
            Self::Name => "name",
            Self::Journal => "journal",
            Self::Data => "data",
            Self::Other => "other",
            Self::Unused => "unused",
            Self::Unreadable => "unreadable",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// Of which kind.
    pub kind: Kind,
    /// Where, in words.
    pub place: String,
    /// The inode that it belongs to.
    pub inode: Option<InodeNumber>,
    /// The group that it belongs to.
    pub group: Option<BlockGroup>,
    /// What the first has.
    pub left: String,
    /// What the second has.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} against {}", self.place, self.left, self.right)
    }
}

/// Is told of each difference; whoever breaks ends the comparison.
pub type Visit<'v> = &'v mut dyn FnMut(Difference) -> ControlFlow<()>;

/// Compares two images byte by byte and tells of each structure that differs, in the order superblock, groups, inodes and what
/// they own, the rest. Only `regions` of the devices are looked at, in bytes and rising; the others are known to be equal.
///
/// # Errors
/// A device that fails where both are compared.
pub fn structures(
    left: &Reader<'_>,
    right: &Reader<'_>,
    devices: (&dyn BlockDevice, &dyn BlockDevice),
    regions: &[Range<u64>],
    visit: Visit<'_>,
) -> Result<ControlFlow<()>, ReadError> {
    let block = u64::from(left.geometry().block_size);
    let differing = differing(devices, regions, block)?;
    let mut diff = Diff { left, right, differing, visit };
    Ok(diff.run(devices))
}

/// The comparison on its way.
pub(crate) struct Diff<'d, 'l, 'r> {
    left: &'d Reader<'l>,
    right: &'d Reader<'r>,
    /// Blocks that differ, and that no structure has claimed.
    differing: Ranges,
    visit: Visit<'d>,
}

impl Diff<'_, '_, '_> {
    fn run(&mut self, devices: (&dyn BlockDevice, &dyn BlockDevice)) -> ControlFlow<()> {
        self.superblocks(devices)?;
        if !self.is_comparable() {
            return ControlFlow::Continue(());
        }
        self.groups()?;
        self.inodes()?;
        self.rest()
    }

    /// Whether structures of both lie in the same places, so that they can be compared one by one.
    fn is_comparable(&self) -> bool {
        let key = |reader: &Reader<'_>| {
            let geometry = reader.geometry();
            (
                geometry.block_size,
                geometry.first_data_block,
                geometry.blocks_per_group,
                geometry.inodes_per_group,
                geometry.inode_size,
                geometry.desc_size,
                geometry.cluster_bits,
            )
        };
        key(self.left) == key(self.right)
    }

    /// Groups that both have.
    fn common_groups(&self) -> impl Iterator<Item = BlockGroup> + use<> {
        let count = self.left.geometry().group_count.min(self.right.geometry().group_count);
        (0..count).map(BlockGroup)
    }

    /// Whether any block of a run differs.
    fn differs(&self, start: u64, len: u64) -> bool {
        self.differing.touches(start..start.saturating_add(len))
    }

    /// Takes the differing blocks of a run: they are told by whoever takes them.
    fn claim(&mut self, start: u64, len: u64) -> Vec<Range<u64>> {
        self.differing.take(start..start.saturating_add(len))
    }

    fn tell(
        &mut self,
        kind: Kind,
        place: impl Into<String>,
        sides: (impl Into<String>, impl Into<String>),
    ) -> ControlFlow<()> {
        self.tell_of(kind, (None, None), place, sides)
    }

    fn tell_of(
        &mut self,
        kind: Kind,
        (inode, group): (Option<InodeNumber>, Option<BlockGroup>),
        place: impl Into<String>,
        (left, right): (impl Into<String>, impl Into<String>),
    ) -> ControlFlow<()> {
        let (place, left, right) = (place.into(), left.into(), right.into());
        (self.visit)(Difference { kind, place, inode, group, left, right })
    }

    /// Tells that one side makes no sense where the other does, or does so for another reason.
    fn unreadable<L, R>(
        &mut self,
        place: String,
        sides: (&Result<L, ReadError>, &Result<R, ReadError>),
    ) -> ControlFlow<()> {
        let left = sides.0.as_ref().map_or_else(ToString::to_string, |_| "readable".to_string());
        let right = sides.1.as_ref().map_or_else(ToString::to_string, |_| "readable".to_string());
        if left == right {
            return ControlFlow::Continue(());
        }
        self.tell(Kind::Unreadable, place, (left, right))
    }
}

/// Blocks that differ, where either device has any.
fn differing(
    (left, right): (&dyn BlockDevice, &dyn BlockDevice),
    regions: &[Range<u64>],
    block: u64,
) -> Result<Ranges, ReadError> {
    let ends = (left.geometry().len_bytes, right.geometry().len_bytes);
    let mut found = Ranges::default();
    let piece = PIECE_BYTES.max(block);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for region in regions {
        let mut at = region.start - region.start % block;
        while at < region.end {
            let end = at.saturating_add(piece).min(region.end.next_multiple_of(block));
            read(left, at..end, ends.0, &mut a)?;
            read(right, at..end, ends.1, &mut b)?;
            if a != b {
                let len = usize::try_from(block).unwrap_or(usize::MAX);
                for (number, (a, b)) in (at / block..).zip(a.chunks(len).zip(b.chunks(len))) {
                    if a != b {
                        found.add(number..number.saturating_add(1));
                    }
                }
            }
            at = end;
        }
    }
    Ok(found)
}

/// Fills `bytes` with a part of a device; what is past its end is zeros.
fn read(
    device: &dyn BlockDevice,
    range: Range<u64>,
    end: u64,
    bytes: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    bytes.clear();
    bytes.resize(len, 0);
    let there = usize::try_from(end.saturating_sub(range.start)).unwrap_or(usize::MAX).min(len);
    match bytes.get_mut(..there) {
        Some(bytes) if there > 0 => Ok(device.read_exact(range.start, bytes)?),
        _ => Ok(()),
    }
}

/// Bytes that are compared at once.
const PIECE_BYTES: u64 = 1 << 20;
