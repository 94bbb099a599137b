//! How many blocks an operation may change: asked for before it starts.
//!
//! Source: kernel `fs/ext4/ext4_jbd2.h` and `ext4_meta_trans_blocks`, `ext4_chunk_trans_blocks` (`fs/ext4/inode.c`).

use extant_format::{Geometry, InodeNumber};

use crate::caller::Caller;
use crate::trace::HandleType;

/// What a handle asks the journal for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Credits {
    /// Blocks it may change.
    pub(crate) blocks: u32,
    /// Blocks it may revoke.
    pub(crate) revokes: u32,
    /// Blocks set aside for a handle that starts later, at the end of I/O.
    pub(crate) reserved: u32,
    /// What for.
    pub(crate) kind: HandleType,
    /// For which inode, if it is for one.
    pub(crate) inode: Option<InodeNumber>,
    /// Whether what it allocates may come from root's reserve.
    pub(crate) privileged: bool,
}

/// An xattr block, its bitmap, its descriptor, the inode, the superblock and one to spare.
pub(crate) const XATTR: u32 = 6;
/// One block of data or names into an extent-mapped file.
pub(crate) const SINGLE_DATA: u32 = 20;
/// A directory's index may grow by this many blocks.
pub(crate) const INDEX_EXTRA: u32 = 12;
/// One write into a file with attributes.
pub(crate) const DATA: u32 = SINGLE_DATA + XATTR - 2;
/// What truncate asks for at the least before it restarts.
pub(crate) const RESERVE: u32 = 12;

impl Credits {
    /// `blocks` changes and the kernel's default number of revokes.
    pub(crate) fn blocks(blocks: u32, geometry: &Geometry) -> Self {
        let revokes = geometry.cluster_ratio().saturating_mul(8);
        Self { blocks, revokes, ..Self::default() }
    }

    /// The same for work of this kind on an inode.
    pub(crate) fn of(self, kind: HandleType, inode: InodeNumber) -> Self {
        Self { kind, inode: Some(inode), ..self }
    }

    /// The same for work of this kind on the volume.
    pub(crate) fn of_volume(self, kind: HandleType) -> Self {
        Self { kind, inode: None, ..self }
    }

    /// The same in the name of a caller.
    pub(crate) fn by(self, caller: &Caller) -> Self {
        Self { privileged: caller.privileged, ..self }
    }

    /// The same with `reserved` blocks set aside.
    pub(crate) fn with_reserved(self, reserved: u32) -> Self {
        Self { reserved, ..self }
    }
}

/// Metadata blocks that mapping one run of up to `blocks` blocks of an extent-mapped file can change.
///
/// Source: `ext4_meta_trans_blocks` for one extent; reproduces that the second test looks at the clamped value (D15.1).
pub(crate) fn one_extent(geometry: &Geometry) -> u32 {
    let index = 2 * 5 + 1;
    let (mut groups, mut descriptors) = (index + 1, index + 1);
    groups = groups.min(geometry.group_count);
    if groups > geometry.desc_blocks {
        descriptors = geometry.desc_blocks;
    }
    index + groups + descriptors + XATTR
}

/// Metadata blocks that the conversion of one folio of `blocks` blocks at the end of its I/O can change (D15.2).
pub(crate) fn conversion(geometry: &Geometry, blocks: u32) -> u32 {
    if blocks <= 1 {
        return 1 + 2 * 5 + 1;
    }
    let per_leaf = (geometry.block_size - 12) / 12;
    1 + 3 * 5 + blocks.div_ceil(per_leaf)
}
